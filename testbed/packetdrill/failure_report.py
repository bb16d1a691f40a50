"""What a failed script says: the place, what is wrong, a diff in the language, the packets before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testbed.errors import ExitCode, TestbedError
from testbed.packetdrill.errors import printable
from testbed.packetdrill.syntax import Event


class ScriptFailureError(TestbedError):
    """The stack did not do what the script says; the text is complete."""

    exit_code = ExitCode.FAIL


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
