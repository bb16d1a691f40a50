"""Mutation check: a script that passes must fail, naming the field, when one of its fields is altered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from testbed.errors import TestbedError
from tests.packetdrill.engine.scripts import play

PACKETS = Path(__file__).parents[2] / "packets"


def from_suite(name: str) -> str:
    """One of our own scripts."""
    return (PACKETS / f"{name}.pkt").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Mutation:
    """``before`` becomes ``after`` at its last place in the script; ``named`` must be complained of."""

    script: str
    before: str
    after: str
    named: str


def complaint_about(mutation: Mutation) -> str:
    """The first line of what the altered script fails with. Raises AssertionError if it still passes."""
    play(mutation.script)
    head, found, tail = mutation.script.rpartition(mutation.before)
    assert found, f"{mutation.before!r} is not in the script"
    try:
        play(head + mutation.after + tail)
    except TestbedError as error:
        return str(error)
    raise AssertionError(f"{mutation.before!r} → {mutation.after!r} was not noticed")
