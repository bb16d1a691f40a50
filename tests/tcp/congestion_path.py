"""A path for a congestion controller on its own: whatever it sends is acknowledged a round trip later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from mptcp_stack.congestion.interface import CongestionController, Path
from mptcp_stack.congestion.registry import create_controller

SEGMENT = 1000


@dataclass
class FixedRoundTrip:
    srtt_us: int | None = 100_000
    latest_us: int = 100_000


@dataclass(eq=False)
class FixedPath:
    """``siblings`` are the other paths of the connection."""

    controller_name: str
    round_trip: FixedRoundTrip = field(default_factory=FixedRoundTrip)
    segment_bytes: int = SEGMENT
    snd_una: int = 0
    snd_nxt: int = 0
    can_send: bool = True
    now_us: int = 1_000_000
    siblings: list[FixedPath] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.congestion: CongestionController = create_controller(self.controller_name, self)

    def coupled_paths(self) -> Sequence[Path]:
        return [self, *self.siblings]

    def count(self, counter: str) -> None:
        self.counted[counter] += 1

    @property
    def window(self) -> float:
        """In segments."""
        return self.congestion.congestion_window / SEGMENT

    def set_window(self, segments: int, threshold: int | None = None) -> None:
        self.congestion.congestion_window = segments * SEGMENT
        if threshold is not None:
            self.congestion.slow_start_threshold = threshold * SEGMENT

    def send(self, count: int) -> None:
        """So many segments, one after the other."""
        for _ in range(count):
            self.snd_nxt += SEGMENT
            self.congestion.on_sent(self.snd_nxt - self.snd_una, self.now_us)

    def acknowledge(self, count: int) -> None:
        """So many segments, by an acknowledgement each."""
        for _ in range(count):
            self.snd_una += SEGMENT
            self.congestion.on_acknowledged(SEGMENT, self.now_us)

    def pass_round_trip(self, count: int | None = None) -> None:
        """Sends a window of data, or ``count`` segments, of which each is acknowledged after a round trip."""
        count = int(self.window) if count is None else count
        self.send(count)
        self.now_us += self.round_trip.latest_us
        self.acknowledge(count)
