"""CUBIC (RFC 9438): the window is a cubic function of the time since the last loss."""

from __future__ import annotations

from math import cbrt
from typing import ClassVar

from mptcp_stack.congestion.hybrid_start import GROWTH_DIVISOR, Growth, HybridStart
from mptcp_stack.congestion.interface import Path
from mptcp_stack.congestion.loss_based import UNLIMITED, LossBasedController

SCALE = 0.4
"""C, in segments per second cubed (RFC 9438 §5.1)."""
REDUCTION = 0.7
"""beta_cubic (RFC 9438 §4.6)."""
FRIENDLY_INCREASE = 3 * (1 - REDUCTION) / (1 + REDUCTION)
"""alpha_cubic (RFC 9438 §4.3): with REDUCTION it gives Reno's throughput."""


class Cubic(LossBasedController):
    """Bytes throughout; RFC 9438 counts segments, so that C becomes SCALE times a segment."""

    __slots__ = (
        "_epoch_us",
        "_estimate",
        "_hybrid_start",
        "_maximum",
        "_origin",
        "_prior_epoch",
        "_time_to_origin_s",
        "_window_before_loss",
    )

    name: ClassVar[str] = "cubic"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._maximum = 0.0
        """W_max: where the window was when a loss came, or below with fast convergence."""
        self._origin = 0.0
        """Where the plateau of the present epoch is: W_max, or the window that slow start ended with."""
        self._epoch_us: int | None = None
        self._time_to_origin_s = 0.0
        self._estimate = 0.0
        """W_est: what Reno would have."""
        self._window_before_loss = 0
        self._prior_epoch: tuple[float, float, int | None, float, float] | None = None
        self._hybrid_start: HybridStart | None = None

    # --- slow start ---

    def _start_slowly(self, acknowledged_bytes: int, now_us: int) -> int:
        if self.slow_start_threshold != UNLIMITED:
            self._hybrid_start = None
            return super()._start_slowly(acknowledged_bytes, now_us)
        path = self.path
        if self._hybrid_start is None:
            self._hybrid_start = HybridStart(path.snd_nxt)
        growth = self._hybrid_start.on_sample(path.round_trip.latest_us, path.snd_una, path.snd_nxt)
        if growth is Growth.FAST:
            return super()._start_slowly(acknowledged_bytes, now_us)
        if growth is Growth.CONSERVATIVE:
            self._grow(acknowledged_bytes / GROWTH_DIVISOR)
            return 0
        path.count("TcpExtTCPHystartDelayDetect")
        self._hybrid_start = None
        self.slow_start_threshold = self.congestion_window
        return acknowledged_bytes

    # --- congestion avoidance ---

    def window_after(self, elapsed_s: float) -> float:
        """W_cubic(t) in bytes, ``elapsed_s`` after the epoch began (RFC 9438 §4.2, figure 1)."""
        offset_s = elapsed_s - self._time_to_origin_s
        return SCALE * self.path.segment_bytes * offset_s * offset_s * offset_s + self._origin

    def _begin_epoch(self, now_us: int) -> int:
        window = self.congestion_window
        self._epoch_us = now_us
        self._estimate = float(window)
        self._origin = max(self._maximum, float(window))
        self._time_to_origin_s = cbrt((self._origin - window) / (SCALE * self.path.segment_bytes))
        return now_us

    def _avoid_congestion(self, acknowledged_bytes: int, now_us: int) -> None:
        """RFC 9438 §4.2 to §4.5."""
        epoch_us = self._begin_epoch(now_us) if self._epoch_us is None else self._epoch_us
        window = self.congestion_window
        segment_bytes = self.path.segment_bytes
        elapsed_s = (now_us - epoch_us) / 1e6
        # §4.3: Reno's increase once the window is back where the loss found it.
        increase = FRIENDLY_INCREASE if self._estimate < self._window_before_loss else 1.0
        self._estimate += increase * segment_bytes * acknowledged_bytes / window
        if self.window_after(elapsed_s) < self._estimate:
            self._grow(max(0.0, self._estimate - window))
            return
        target = self.window_after(elapsed_s + (self.path.round_trip.srtt_us or 0) / 1e6)
        target = min(max(target, window), 1.5 * window)
        self._grow(acknowledged_bytes * (target - window) / window)

    def on_transmission_start(self, now_us: int, rto_us: int) -> None:
        """The time without anything to send is none in which the path was probed (RFC 9438 §5.8)."""
        if self._epoch_us is not None and self._last_sent_us:
            self._epoch_us = min(now_us, self._epoch_us + now_us - self._last_sent_us)
        super().on_transmission_start(now_us, rto_us)

    # --- losses ---

    def _remember(self) -> None:
        super()._remember()
        self._prior_epoch = (
            self._maximum,
            self._origin,
            self._epoch_us,
            self._time_to_origin_s,
            self._estimate,
        )

    def _window_after_loss(self) -> int:
        window = self.congestion_window
        self._epoch_us = None
        self._window_before_loss = window
        # §4.7, fast convergence: who loses before reaching the old maximum makes room for others.
        self._maximum = window * (1 + REDUCTION) / 2 if window < self._maximum else float(window)
        return int(window * REDUCTION)

    def on_spurious_loss(self) -> None:
        """RFC 9438 §4.9."""
        super().on_spurious_loss()
        if self._prior_epoch is not None:
            self._maximum, self._origin, self._epoch_us, self._time_to_origin_s, self._estimate = (
                self._prior_epoch
            )
            self._prior_epoch = None
