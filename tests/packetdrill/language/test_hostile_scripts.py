"""Whatever is in a file: it is a script, or one PacketScriptError says why not, and soon."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from testbed.packetdrill.errors import PacketScriptError
from testbed.packetdrill.parser import parse_script
from testbed.packetdrill.printer import print_script

from .test_printer import WHOLE_SCRIPT

PIECES = (
    *"<>[](){}|,=:+-*~.\"'`%/\\ \n\t\0é",
    "...",
    "%{",
    "}%",
    "//",
    "/*",
    "*/",
    "--",
    "0",
    "+0.1",
    "4294967295",
    "0x",
    "S.",
    "addr[",
    "icmp",
    "ack",
    "mss",
    "dss",
    "dack8=",
    "key[",
    "mpcapable",
    "socket",
    "= -1",
    "EINVAL",
)


def check(text: str) -> None:
    try:
        script = parse_script(text, "hostile.pkt")
    except PacketScriptError as error:
        problems = error.problems
    else:
        assert parse_script(print_script(script)) == script
        return
    assert problems
    lines = text.split("\n")
    for problem in problems:
        assert 1 <= problem.location.line <= len(lines)
        assert 1 <= problem.location.column <= len(lines[problem.location.line - 1]) + 1


@given(st.text(max_size=200))
@example("0 %{}%")
@example("0 close(" + "1|" * 90 + "1)")
def test_any_text(text: str) -> None:
    check(text)


@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_any_pieces_of_the_language(text: str) -> None:
    check(text)


@given(st.lists(st.sampled_from(PIECES), max_size=30).map(" ".join))
def test_any_event(text: str) -> None:
    check(f"+0 {text}")


@pytest.mark.parametrize("seed", range(150))
def test_mutations_of_a_good_script(seed: int) -> None:
    source = random.Random(seed)
    characters = list(WHOLE_SCRIPT)
    for _ in range(source.randint(1, 8)):
        place = source.randrange(len(characters))
        match source.randrange(3):
            case 0:
                del characters[place : place + source.randint(1, 4)]
            case 1:
                characters.insert(place, source.choice(PIECES))
            case _:
                other = source.randrange(len(characters))
                characters[place], characters[other] = characters[other], characters[place]
    check("".join(characters))


@pytest.mark.parametrize(
    "text",
    [
        "/*" * 200_000,
        "0 %{" * 100_000,
        '0 "' + '\\"' * 200_000,
        "`" * 333_333,
        "0 close(" + "(" * 200_000,
        "0 close(1" + "|1" * 100_000 + ")",
        "0 close(3) = " + "9" * 300_000,
        "0 < S 0:0(0) <" + "nop," * 100_000 + "nop>",
        "0 < S 0:0(0) <" * 20_000,
        "0." + "0" * 300_000 + " close(3)",
        "--mtu=" + "9" * 300_000,
        "0 close(3) = 0 (" + ")" * 300_000,
        "\n" * 300_000,
        "+" * 300_000,
        "0 " + "a" * 300_000 + "(3)",
    ],
    ids=lambda text: repr(text[:16]),
)
def test_large_nonsense_is_judged_soon(text: str) -> None:
    started = time.process_time()
    check(text)
    # Generous: what is meant are the minutes and hours of something quadratic.
    assert time.process_time() - started < 20
