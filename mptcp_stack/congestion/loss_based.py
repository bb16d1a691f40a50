"""What the controllers that take loss for congestion have in common.

Slow start with byte counting, whether the window is in use, the restart after a silence, and undoing a
reduction. How much a window shrinks and how it grows outside of slow start is each controller's own.
"""

from __future__ import annotations

from abc import abstractmethod

from mptcp_stack.congestion.interface import CongestionController, Path

INITIAL_WINDOW_SEGMENTS = 10
"""RFC 6928."""
MINIMUM_THRESHOLD_SEGMENTS = 2
"""RFC 5681 §3.1, equation 4."""
UNLIMITED = 1 << 62


class LossBasedController(CongestionController):
    """As in Linux a reduction starts from the window, not from FlightSize: an unused one has not grown."""

    __slots__ = (
        "_increment",
        "_is_limited",
        "_largest_flight",
        "_last_sent_us",
        "_prior_threshold",
        "_prior_window",
        "_usage_end",
    )

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.congestion_window = INITIAL_WINDOW_SEGMENTS * path.segment_bytes
        self.slow_start_threshold = UNLIMITED
        self._increment = 0.0
        self._is_limited = False
        self._largest_flight = 0
        self._last_sent_us = 0
        self._usage_end = 0
        self._prior_window = self._prior_threshold = 0

    # --- each controller's own ---

    @abstractmethod
    def _window_after_loss(self) -> int:
        """What a loss or a mark leaves of the window, in bytes; bounded below by the caller."""

    @abstractmethod
    def _avoid_congestion(self, acknowledged_bytes: int, now_us: int) -> None:
        """The window is in use and above the slow start threshold."""

    def _start_slowly(self, acknowledged_bytes: int, now_us: int) -> int:
        """Slow start (RFC 5681 §3.1, RFC 3465); the acknowledged bytes that are left at its end."""
        grown = min(self.congestion_window + acknowledged_bytes, self.slow_start_threshold)
        left = acknowledged_bytes - (grown - self.congestion_window)
        self.congestion_window = grown
        return left

    def _minimum_window(self) -> int:
        return MINIMUM_THRESHOLD_SEGMENTS * self.path.segment_bytes

    # --- sending ---

    def on_sent(self, bytes_in_flight: int, now_us: int) -> None:
        """Notes how much of the window is used, for a window of data, as Linux's tcp_cwnd_validate."""
        self._last_sent_us = now_us
        path = self.path
        is_limited = bytes_in_flight + path.segment_bytes > self.congestion_window
        if (
            is_limited
            or path.snd_una >= self._usage_end
            or (not self._is_limited and bytes_in_flight > self._largest_flight)
        ):
            self._is_limited = is_limited
            self._largest_flight = bytes_in_flight
            self._usage_end = path.snd_nxt

    def _is_window_used(self) -> bool:
        """RFC 7661 §4.3: a window that the application does not use says nothing about the path."""
        if self._is_limited:
            return True
        return self.is_in_slow_start and self.congestion_window < 2 * self._largest_flight

    def on_transmission_start(self, now_us: int, rto_us: int) -> None:
        """RFC 2861 §3.1: half of the window for each RTO of silence, down to the restart window."""
        silence_us = now_us - self._last_sent_us
        if not self._last_sent_us or silence_us <= rto_us:
            return
        window = self.congestion_window
        restart_window = min(INITIAL_WINDOW_SEGMENTS * self.path.segment_bytes, window)
        self.slow_start_threshold = self._current_threshold()
        while (silence_us := silence_us - rto_us) > 0 and window > restart_window:
            window //= 2
        self.congestion_window = max(window, restart_window)

    def _current_threshold(self) -> int:
        """RFC 2861 §3.1: where the window has been is a hint how far slow start may go again."""
        return max(self.slow_start_threshold, self.congestion_window * 3 // 4)

    # --- acknowledgements ---

    def on_acknowledged(self, acknowledged_bytes: int, now_us: int) -> None:
        if not self._is_window_used():
            return
        if self.congestion_window < self.slow_start_threshold:
            acknowledged_bytes = self._start_slowly(acknowledged_bytes, now_us)
        if acknowledged_bytes > 0:
            self._avoid_congestion(acknowledged_bytes, now_us)

    def _grow(self, increment_bytes: float) -> None:
        """By fractions of a byte, which add up."""
        self._increment += increment_bytes
        whole = int(self._increment)
        self._increment -= whole
        self.congestion_window += whole

    # --- losses ---

    def _remember(self) -> None:
        self._prior_window = self.congestion_window
        self._prior_threshold = self._current_threshold()

    def _reduce(self) -> None:
        self._increment = 0.0
        self.slow_start_threshold = max(self._window_after_loss(), self._minimum_window())

    def on_loss(self) -> None:
        self._remember()
        self._reduce()
        self.congestion_window = self.slow_start_threshold

    def on_congestion_notification(self) -> None:
        """As for a loss, but a mark is no error that could be undone."""
        self.on_loss()
        self._prior_window = 0

    def on_recovery_end(self) -> None:
        self.congestion_window = min(
            self.congestion_window, max(self.slow_start_threshold, self._minimum_window())
        )

    def on_timeout(self, is_first: bool) -> None:
        if is_first:
            self._remember()
            self._reduce()
        self.congestion_window = self.path.segment_bytes
        self._increment = 0.0

    def on_spurious_loss(self) -> None:
        """As Linux: a window that has grown meanwhile stays."""
        if self._prior_window:
            self.congestion_window = max(self.congestion_window, self._prior_window)
            self.slow_start_threshold = max(self.slow_start_threshold, self._prior_threshold)
            self._prior_window = 0
