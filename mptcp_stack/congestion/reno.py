"""NewReno's window (RFC 5681, RFC 6582) with appropriate byte counting (RFC 3465)."""

from __future__ import annotations

from typing import ClassVar

from mptcp_stack.congestion.interface import Path
from mptcp_stack.congestion.loss_based import LossBasedController


class Reno(LossBasedController):
    """Additive increase by one segment a round trip, halving on loss."""

    __slots__ = ("_acknowledged",)

    name: ClassVar[str] = "reno"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._acknowledged = 0

    def _avoid_congestion(self, acknowledged_bytes: int, now_us: int) -> None:
        """A whole segment at a time, when a window of data has been acknowledged, as Linux."""
        self._acknowledged += acknowledged_bytes
        if self._acknowledged >= self.congestion_window:
            self._acknowledged -= self.congestion_window
            self.congestion_window += self.path.segment_bytes

    def _window_after_loss(self) -> int:
        self._acknowledged = 0
        return self.congestion_window // 2
