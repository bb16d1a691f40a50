"""The time that a case lives in: the machine's, or a simulation's."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Cases wait by this clock and by no other, so that they run in virtual time as well."""

    def now_us(self) -> int:
        """Microseconds since a moment that does not matter."""
        ...

    def sleep(self, seconds: float) -> None: ...


class RealClock:
    """The machine's own."""

    def now_us(self) -> int:
        return time.monotonic_ns() // 1000

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
