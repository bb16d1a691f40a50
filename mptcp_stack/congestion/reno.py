"""NewReno (RFC 5681, RFC 6582) with appropriate byte counting (RFC 3465)."""

from __future__ import annotations

INITIAL_WINDOW_SEGMENTS = 10
"""RFC 6928."""
_UNLIMITED = 1 << 62


class Reno:
    """Additive increase by one segment a round trip, halving on loss."""

    __slots__ = ("_acknowledged", "_segment_bytes", "congestion_window", "slow_start_threshold")

    def __init__(self, segment_bytes: int) -> None:
        self._segment_bytes = segment_bytes
        self._acknowledged = 0
        self.congestion_window = INITIAL_WINDOW_SEGMENTS * segment_bytes
        self.slow_start_threshold = _UNLIMITED

    def on_acknowledged(self, acknowledged_bytes: int, bytes_in_flight_before: int) -> None:
        # RFC 7661 §4.3: a window that the application does not use says nothing about the path.
        if bytes_in_flight_before * 2 < self.congestion_window:
            return
        if self.congestion_window < self.slow_start_threshold:
            self.congestion_window += acknowledged_bytes
            return
        self._acknowledged += acknowledged_bytes
        if self._acknowledged >= self.congestion_window:
            self._acknowledged -= self.congestion_window
            self.congestion_window += self._segment_bytes

    def on_loss(self, outstanding_bytes: int) -> None:
        self.slow_start_threshold = max(outstanding_bytes // 2, 2 * self._segment_bytes)
        self.congestion_window = self.slow_start_threshold
        self._acknowledged = 0

    def on_recovery_end(self) -> None:
        self.congestion_window = min(
            self.congestion_window, max(self.slow_start_threshold, 2 * self._segment_bytes)
        )

    def on_timeout(self, outstanding_bytes: int, is_first: bool) -> None:
        if is_first:
            self.slow_start_threshold = max(outstanding_bytes // 2, 2 * self._segment_bytes)
        self.congestion_window = self._segment_bytes
        self._acknowledged = 0
