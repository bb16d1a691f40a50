"""Controllers whose windows depend on the other subflows of the connection.

Together they take from a bottleneck about what one TCP would, and move the load to the less congested path.
Only the increase in congestion avoidance is coupled; slow start is each subflow's own (RFC 6356 §3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from mptcp_stack.congestion.interface import Path
from mptcp_stack.congestion.loss_based import LossBasedController


@dataclass(slots=True)
class Sums:
    """Over all subflows that may send and know their round-trip time; rates in bytes per microsecond."""

    window: int = 0
    rate: float = 0.0
    """Σ w / rtt"""
    largest_rate: float = 0.0
    largest_pull: float = 0.0
    """max w / rtt²"""


def _coupled(path: Path) -> Iterator[tuple[Path, int]]:
    """The subflows that count, with their round-trip times."""
    for sibling in path.coupled_paths():
        srtt_us = sibling.round_trip.srtt_us
        if srtt_us is not None and (sibling.can_send or sibling is path):
            yield sibling, srtt_us


def _sum_up(path: Path) -> Sums:
    sums = Sums()
    for sibling, srtt_us in _coupled(path):
        window = sibling.congestion.congestion_window
        rate = window / srtt_us
        sums.window += window
        sums.rate += rate
        sums.largest_rate = max(sums.largest_rate, rate)
        sums.largest_pull = max(sums.largest_pull, rate / srtt_us)
    return sums


class Lia(LossBasedController):
    """The Linked Increases Algorithm (RFC 6356)."""

    __slots__ = ()

    name: ClassVar[str] = "lia"

    def _avoid_congestion(self, acknowledged_bytes: int, now_us: int) -> None:
        """RFC 6356 §3: min(alpha / cwnd_total, 1 / cwnd_i) for each acknowledged byte, in segments."""
        sums = _sum_up(self.path)
        share = 1 / self.congestion_window
        if sums.rate:
            # alpha / cwnd_total; alpha is cwnd_total · max(cwnd/rtt²) / (Σ cwnd/rtt)².
            share = min(share, sums.largest_pull / (sums.rate * sums.rate))
        self._grow(acknowledged_bytes * self.path.segment_bytes * share)

    def _window_after_loss(self) -> int:
        return self.congestion_window // 2


class Olia(LossBasedController):
    """The Opportunistic Linked Increases Algorithm (Khalili, CoNEXT 2012).

    A path is good by what it carries between two losses; who is good and has a small window gets more
    of the increase, at the cost of those with the largest.
    """

    __slots__ = ("_bytes_before_loss", "_bytes_since_loss")

    name: ClassVar[str] = "olia"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._bytes_since_loss = 0
        self._bytes_before_loss = 0

    @property
    def bytes_between_losses(self) -> int:
        """The larger of what was acknowledged since the last loss and between the last two."""
        return max(self._bytes_since_loss, self._bytes_before_loss)

    def on_acknowledged(self, acknowledged_bytes: int, now_us: int) -> None:
        self._bytes_since_loss += acknowledged_bytes
        super().on_acknowledged(acknowledged_bytes, now_us)

    def _avoid_congestion(self, acknowledged_bytes: int, now_us: int) -> None:
        window = self.congestion_window
        sums = _sum_up(self.path)
        share = 1 / window
        if sums.rate:
            srtt_us = self.path.round_trip.srtt_us or 1
            share = window / (srtt_us * srtt_us) / (sums.rate * sums.rate)
            share += self._shift() / window
        self._grow(acknowledged_bytes * self.path.segment_bytes * share)
        self.congestion_window = max(self.congestion_window, self._minimum_window())

    def _shift(self) -> float:
        """alpha_r: positive for the best paths that have not the largest window, negative for the largest."""
        members = [
            (sibling, _quality(sibling, srtt_us), sibling.congestion.congestion_window)
            for sibling, srtt_us in _coupled(self.path)
        ]
        best_quality = max(quality for _, quality, _ in members)
        largest_window = max(window for _, _, window in members)
        largest = [sibling for sibling, _, window in members if window == largest_window]
        hidden = [
            sibling
            for sibling, quality, window in members
            if quality == best_quality and window < largest_window
        ]
        if not hidden:
            return 0.0
        if self.path in hidden:
            return 1 / (len(members) * len(hidden))
        return -1 / (len(members) * len(largest)) if self.path in largest else 0.0

    def _minimum_window(self) -> int:
        """A path that others replace may shrink to one segment (draft-khalili-mptcp-congestion-control)."""
        segments = 1 if len(self.path.coupled_paths()) > 1 else 2
        return segments * self.path.segment_bytes

    def _window_after_loss(self) -> int:
        self._bytes_before_loss = self._bytes_since_loss
        self._bytes_since_loss = 0
        return self.congestion_window // 2


def _quality(path: Path, srtt_us: int) -> float:
    """Proportional to an estimate of the rate that TCP would have on the path."""
    controller = path.congestion
    if not isinstance(controller, Olia):
        return 0.0
    between = controller.bytes_between_losses
    return between * between / srtt_us


class Balia(LossBasedController):
    """The Balanced Linked Adaptation algorithm (Peng, ToN 2016)."""

    __slots__ = ()

    name: ClassVar[str] = "balia"

    def _avoid_congestion(self, acknowledged_bytes: int, now_us: int) -> None:
        """x/(rtt·(Σx)²) · (1+a)/2 · (4+a)/5, where a = max x / x."""
        sums = _sum_up(self.path)
        share = 1 / self.congestion_window
        if sums.rate:
            srtt_us = self.path.round_trip.srtt_us or 1
            rate = self.congestion_window / srtt_us
            ratio = sums.largest_rate / rate
            share = rate / (srtt_us * sums.rate * sums.rate) * (1 + ratio) / 2 * (4 + ratio) / 5
        self._grow(acknowledged_bytes * self.path.segment_bytes * share)

    def _window_after_loss(self) -> int:
        """w/2 · min(a, 1.5) less."""
        window = self.congestion_window
        sums = _sum_up(self.path)
        srtt_us = self.path.round_trip.srtt_us
        ratio = sums.largest_rate * srtt_us / window if srtt_us else 1.0
        return int(window - window / 2 * min(ratio, 1.5))
