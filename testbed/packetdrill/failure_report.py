"""What a failed script says: the place, what is wrong, a diff in the language, the packets before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testbed.errors import ExitCode, TestbedError
from testbed.packetdrill.errors import printable
from testbed.packetdrill.syntax import Event


class ScriptFailureError(TestbedError):
    """The stack did not do what the script says; the text is complete.

    ``telling_lateness_us``: a machine that was late by so much, in real time, could be the reason.
    ``own_lateness_us`` is how late this program was with what the script has it do.
    """

    exit_code = ExitCode.FAIL

    def __init__(self, message: str, telling_lateness_us: int = 1, own_lateness_us: int = 0) -> None:
        super().__init__(message)
        self.telling_lateness_us = telling_lateness_us
        self.own_lateness_us = own_lateness_us


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that is not as the script has it. Without a field, ``got`` is the whole message."""

    field: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.field}: expected {self.expected}, got {self.got}" if self.field else self.got


def describe_failure(
    path: str,
    event: Event,
    differences: Sequence[Difference],
    expected: str,
    came: str,
    last_packets: Sequence[str],
) -> str:
    """``path:line: field: expected …, got …``, then the script's line, a diff and the last packets."""
    location = f"{path}:{event.location.line}"
    lines = [f"{location}: {differences[0]}"]
    lines += [f"    {difference}" for difference in differences[1:]]
    lines += [f"    {line.strip()}" for line in event.source.strip().splitlines()[:5]]
    if expected:
        lines.append(f"  - {expected}")
        lines.append(f"  + {came or '(nothing)'}")
    if last_packets:
        lines.append("  last packets:")
        lines += [f"    {packet}" for packet in last_packets]
    return "\n".join(printable(line) for text in lines for line in text.splitlines())
