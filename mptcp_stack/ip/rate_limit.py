"""A token bucket in integer microseconds."""

from __future__ import annotations

MICROSECONDS_PER_SECOND = 1_000_000


class TokenBucket:
    """Grants at most ``rate_per_second`` uses a second on average, and ``burst`` of them at once."""

    __slots__ = ("_capacity", "_level", "_rate_per_second", "_updated_us")

    def __init__(self, rate_per_second: int, burst: int) -> None:
        self._rate_per_second = rate_per_second
        # A token is a million units: a microsecond then yields ``rate_per_second`` units, without fractions.
        self._capacity = burst * MICROSECONDS_PER_SECOND
        self._level = self._capacity
        self._updated_us = 0

    def take(self, now_us: int) -> bool:
        """Use one token; False when none is left."""
        elapsed_us = max(0, now_us - self._updated_us)
        self._updated_us = max(now_us, self._updated_us)
        self._level = min(self._capacity, self._level + elapsed_us * self._rate_per_second)
        if self._level < MICROSECONDS_PER_SECOND:
            return False
        self._level -= MICROSECONDS_PER_SECOND
        return True
