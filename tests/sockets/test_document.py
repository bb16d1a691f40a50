"""The examples of docs/sockets.md do what the document says they print."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import trustme

DOCUMENT = Path(__file__).parents[2] / "docs" / "sockets.md"


def test_the_examples_run_and_print_what_is_shown(tmp_path: Path) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    program = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    shown = "".join(re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    issued = authority.issue_cert("server.example")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    names = {"authority": str(tmp_path / "authority.pem"), "certificate": str(tmp_path / "server.pem")}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, str(DOCUMENT), "exec"), {**names, "__name__": "example"})
    assert "start_server" in program
    assert printed.getvalue() == shown
