"""A script's times on a real clock: when each event is due, and how late this program was with its own.

In virtual time every event happens when it is due. In real time an event of the script (a packet that
arrives, a system call) happens a little later, and all that follows counts from when it did. What the stack
sends may be caused by any event before, so that it is due at its time in the script plus the delay that the
run had at *one* of those: a timer that an early event set does not wait for a late one. Hence the delays of
all events are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.packetdrill.syntax import EventTime, TimeKind

ANY_TIME_LIMIT_US = {True: 600_000_000, False: 10_000_000}
"""How long ``*`` waits in virtual time, and in real time."""

SMALLEST_LATENESS_US = 2_000
"""Less than this is no excuse: it is how long a system call may take to begin."""
_SAME_DELAY_US = 100
"""Delays that differ by less count as one."""


@dataclass(frozen=True, slots=True)
class Window:
    """When an event may happen, in the script's own time; ``scheduled_us`` is when it ought to."""

    first_us: int
    last_us: int
    scheduled_us: int


class Timeline:
    """Times of the script become times of the clock by adding the delay so far."""

    def __init__(self, tolerance_us: int, *, is_virtual: bool) -> None:
        self.tolerance_us = tolerance_us
        self._any_time_limit_us = ANY_TIME_LIMIT_US[is_virtual]
        self._base_us = 0
        self._delay_us = 0
        self._delays_us = [0]
        self.lateness_us = 0
        """The most that this program was late with an event of its own."""

    @property
    def base_us(self) -> int:
        """The script's time of the event before."""
        return self._base_us

    @property
    def began_us(self) -> int:
        """The clock's time of the event before."""
        return self._base_us + self._delay_us

    def window(self, time: EventTime, now_us: int) -> Window:
        if time.kind is TimeKind.ANY:
            here_us = now_us - self._delay_us
            return Window(0, here_us + self._any_time_limit_us, here_us)
        from_us = self._base_us if time.is_relative else 0
        return Window(from_us + time.start_us, from_us + time.end_us, from_us + time.start_us)

    def due_us(self, window: Window) -> int:
        """On the clock."""
        return window.scheduled_us + self._delay_us

    def begin(self, window: Window, now_us: int) -> None:
        """This program carries out the event now."""
        self._base_us = window.scheduled_us
        self._postpone(now_us - self.due_us(window), is_late=True)

    def end(self, now_us: int) -> None:
        """The event that began is carried out; it may have had its effect at any moment since."""
        took_us = now_us - self.began_us
        self.lateness_us = max(self.lateness_us, took_us)
        self._note(self._delay_us + took_us)

    def wait_for_command(self, now_us: int) -> None:
        """What the script itself asked for has taken until now: a delay, but nobody was late."""
        self._postpone(now_us - self.began_us, is_late=False)

    def _postpone(self, late_us: int, *, is_late: bool) -> None:
        if late_us <= 0:
            return
        self._delay_us += late_us
        self._note(self._delay_us)
        if is_late:
            self.lateness_us = max(self.lateness_us, late_us)

    def _note(self, delay_us: int) -> None:
        if delay_us - self._delays_us[-1] >= _SAME_DELAY_US:
            self._delays_us.append(delay_us)

    def happened(self, window: Window, at_us: int, *, is_exact: bool) -> None:
        """What was waited for came at this time of the clock; what follows counts from there."""
        self._base_us = window.scheduled_us if is_exact else at_us - self._delay_us

    def excess_us(self, first_us: int, last_us: int, at_us: int) -> int:
        """By how much the clock's ``at_us`` misses that time of the script; 0 is within the tolerance."""
        return min(
            max(
                0,
                first_us + delay_us - self.tolerance_us - at_us,
                at_us - self.tolerance_us - last_us - delay_us,
            )
            for delay_us in self._delays_us
        )

    def telling_lateness_us(self, excess_us: int) -> int:
        """How late the machine must have been for that to be the possible reason of a failure.

        For a failure in content, which has no excess, more than the tolerance. For a time, what it is off by;
        or less, for what delays the first measurement of a round trip makes a timer later by three times
        that (RFC 6298 §2.2), and each repetition by twice as much again.
        """
        if not excess_us:
            return self.tolerance_us + 1
        return max(SMALLEST_LATENESS_US, min(excess_us, self.tolerance_us) // 3)

    def bounds_us(self, window: Window) -> tuple[int, int]:
        """The first and the last time of the clock that is within the tolerance."""
        first_us = window.first_us + min(self._delays_us) - self.tolerance_us
        return max(0, first_us), window.last_us + max(self._delays_us) + self.tolerance_us
