"""Options that make no sense end with 2 and a line that says why, before any machine is asked."""

from __future__ import annotations

import pytest

pytest.importorskip("fabric", reason="Fabric is not installed (extra: remote)")

from invoke.context import Context
from invoke.exceptions import Exit

from playbooks import fabfile


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no machine is named: --machines"),
        ({"machines": "debian@127.0.0.1", "timeout": "nan"}, "--timeout nan: expected 1 to 604800 seconds"),
        ({"machines": "debian@127.0.0.1", "timeout": "-1"}, "--timeout -1: expected"),
        ({"machines": "debian@127.0.0.1", "timeout": "0"}, "--timeout 0: expected"),
        ({"machines": "debian@127.0.0.1", "arguments": "--family '4"}, "--family '4: No closing quotation"),
    ],
)
def test_selftest_refuses_what_makes_no_sense(options: dict[str, str], said: str) -> None:
    with pytest.raises(Exit) as refused:
        fabfile.selftest.body(Context(), **options)
    assert refused.value.code == 2
    assert said in str(refused.value)
