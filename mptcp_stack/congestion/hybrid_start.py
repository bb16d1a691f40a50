"""HyStart++ (RFC 9406): leaves slow start when round-trip times rise, before the queue overflows.

Linux has the older HyStart, which leaves at once. A stack in user space sees round-trip times that vary by
more than the queue's growth, and what RFC 9406 adds, conservative slow start from which it may return, is
for just that. Its limit L on growth by one acknowledgement is left out, as in Linux: super-segments
are acknowledged as a whole.
"""

from __future__ import annotations

from enum import Enum, auto

MINIMUM_THRESHOLD_US, MAXIMUM_THRESHOLD_US = 4_000, 16_000
ROUND_TRIP_DIVISOR = 8
SAMPLES_IN_A_ROUND = 8
GROWTH_DIVISOR = 4
CONSERVATIVE_ROUNDS = 5
"""RFC 9406 §4.3."""
_INFINITE_US = 1 << 62


class Growth(Enum):
    """How the window is to grow now."""

    FAST = auto()
    CONSERVATIVE = auto()
    ENDED = auto()


class HybridStart:
    """For the first slow start of a subflow only; dropped when that is over (RFC 9406 §4.3)."""

    __slots__ = ("_baseline_us", "_current_us", "_last_us", "_round_end", "_rounds", "_samples")

    def __init__(self, snd_nxt: int) -> None:
        self._round_end = snd_nxt
        self._last_us = self._current_us = _INFINITE_US
        self._baseline_us: int | None = None
        self._samples = self._rounds = 0

    def on_sample(self, round_trip_us: int, snd_una: int, snd_nxt: int) -> Growth:
        """An acknowledgement of new data came; a round is as long as it takes to acknowledge a window."""
        if snd_una >= self._round_end:
            self._round_end = snd_nxt
            self._last_us, self._current_us = self._current_us, _INFINITE_US
            self._samples = 0
            if self._baseline_us is not None:
                self._rounds += 1
        self._samples += 1
        self._current_us = min(self._current_us, round_trip_us)
        if self._baseline_us is None:
            if self._has_risen():
                self._baseline_us = self._current_us
                self._rounds = 0
        elif self._samples >= SAMPLES_IN_A_ROUND and self._current_us < self._baseline_us:
            # It was jitter, not a queue.
            self._baseline_us = None
        elif self._rounds >= CONSERVATIVE_ROUNDS:
            return Growth.ENDED
        return Growth.FAST if self._baseline_us is None else Growth.CONSERVATIVE

    def _has_risen(self) -> bool:
        if self._samples < SAMPLES_IN_A_ROUND or self._last_us == _INFINITE_US:
            return False
        threshold_us = min(
            max(self._last_us // ROUND_TRIP_DIVISOR, MINIMUM_THRESHOLD_US), MAXIMUM_THRESHOLD_US
        )
        return self._current_us >= self._last_us + threshold_us
