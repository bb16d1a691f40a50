"""Every script in docs/packet-scripts.md does what the text around it says.

The info string of a block, after ``packetdrill``, says how it is played:

* nothing: it passes with each IP version;
* ``fails``: it fails over IPv4 with the message in the ``text`` block that comes next, in which ``[...]``
  stands for anything within brackets and a last line ``...`` for what is left out;
* ``name=NAME``: it passes, and others may go on from where it ends;
* ``after=NAME``: it goes on from there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from testbed.packetdrill.constants import OPTION_NAMES, SCRIPT_OPTIONS, SYSTEM_CALLS
from testbed.packetdrill.errors import PacketScriptError
from testbed.packetdrill.playing import PlayOptions, play_cell
from testbed.packetdrill.stack_under_test import IpVersion
from testbed.packetdrill.suite import plan
from testbed.selftests.results import Outcome

DOCUMENT = Path(__file__).parents[2] / "docs" / "packet-scripts.md"
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = "first.pkt"
"""What the tutorial calls its script."""


@dataclass(frozen=True)
class Example:
    line: int
    text: str
    message: str | None
    """Of an example that fails."""


@cache
def examples() -> tuple[Example, ...]:
    text = DOCUMENT.read_text(encoding="utf-8")
    blocks = [(text.count("\n", 0, found.start()) + 1, found[1], found[2]) for found in BLOCK.finditer(text)]
    named: dict[str, str] = {}
    found_examples = []
    for number, (line, info, body) in enumerate(blocks):
        language, _, how = info.partition(" ")
        if language != "packetdrill":
            continue
        message, before = None, ""
        if how.startswith("after="):
            before = named[how.removeprefix("after=")]
        elif how.startswith("name="):
            named[how.removeprefix("name=")] = body
        elif how == "fails":
            assert blocks[number + 1][1] == "text", f"line {line}: no message follows the failing example"
            message = blocks[number + 1][2]
        else:
            assert not how, f"line {line}: what is {how!r}?"
        found_examples.append(Example(line, before + body, message))
    return tuple(found_examples)


def play(text: str, versions: list[IpVersion]) -> str:
    """What the runs say that do not pass."""
    path = Path(FILE_NAME)
    path.write_text(text, encoding="utf-8")
    try:
        cells = plan([path], ["userspace"], versions)
    except PacketScriptError as error:
        return str(error)
    results = [play_cell(cell, PlayOptions()) for cell in cells]
    return "\n".join(result.message for result in results if result.outcome is not Outcome.PASS)


def pattern_of(message: str) -> str:
    shown, has_more, _ = message.partition("\n...")
    return re.escape(shown).replace(re.escape("[...]"), r"\[[^\]\n]*\]") + (r"\n.*" if has_more else "")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("example", examples(), ids=lambda example: f"line-{example.line}")
def test_the_example_does_what_the_text_says(example: Example) -> None:
    versions = list(IpVersion) if example.message is None else [IpVersion.IPV4]
    said = play(example.text, versions).strip()
    if example.message is None:
        assert not said
    else:
        assert re.fullmatch(pattern_of(example.message.strip()), said, re.DOTALL), said


def test_there_are_examples_of_both_kinds() -> None:
    kinds = [example.message is None for example in examples()]
    assert kinds.count(True) >= 10
    assert kinds.count(False) >= 4


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("script option", [f"--{name}" for name in SCRIPT_OPTIONS]),
        ("system call", list(SYSTEM_CALLS)),
        ("TCP option", list(OPTION_NAMES)),
    ],
)
def test_nothing_is_left_out(what: str, names: list[str]) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    missing = [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?!\w)", text)]
    assert not missing, f"{what}: {', '.join(missing)}"
