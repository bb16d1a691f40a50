"""What a congestion controller sees of its subflow, and what it is asked and told. Windows are in bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol


class RoundTrip(Protocol):
    """The round-trip times of a subflow, in microseconds."""

    @property
    def srtt_us(self) -> int | None:
        """None before the first sample."""

    @property
    def latest_us(self) -> int:
        """The latest sample; 0 before the first."""


class Path(Protocol):
    """A subflow, as its controller and those of its siblings see it."""

    @property
    def segment_bytes(self) -> int:
        """The payload of a full segment; may change."""

    @property
    def snd_una(self) -> int: ...

    @property
    def snd_nxt(self) -> int: ...

    @property
    def can_send(self) -> bool: ...

    @property
    def round_trip(self) -> RoundTrip: ...

    @property
    def congestion(self) -> CongestionController: ...

    def coupled_paths(self) -> Sequence[Path]:
        """All subflows of the connection, this one among them (RFC 6356 §3)."""

    def count(self, counter: str) -> None:
        """Counts an event that Linux has a counter for."""


class CongestionController(ABC):
    """One subflow's congestion window.

    During fast recovery the window belongs to loss recovery, which may write ``congestion_window``;
    outside of it to the controller. Whoever finds a loss or a mark calls ``on_loss``, ``on_timeout`` or
    ``on_congestion_notification`` once per window of data, and ``on_spurious_loss`` when it proves to
    have been none.
    """

    __slots__ = ("congestion_window", "path", "slow_start_threshold")

    name: ClassVar[str]
    """As in ``net.ipv4.tcp_congestion_control``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.congestion_window = 0
        self.slow_start_threshold = 0

    @property
    def is_in_slow_start(self) -> bool:
        return self.congestion_window < self.slow_start_threshold

    @abstractmethod
    def on_sent(self, bytes_in_flight: int, now_us: int) -> None:
        """New data was just sent; ``bytes_in_flight`` includes it."""

    @abstractmethod
    def on_transmission_start(self, now_us: int, rto_us: int) -> None:
        """New data is about to be sent, and nothing is outstanding (RFC 5681 §4.1)."""

    @abstractmethod
    def on_acknowledged(self, acknowledged_bytes: int, now_us: int) -> None:
        """New data was delivered, outside of fast recovery."""

    @abstractmethod
    def on_loss(self) -> None:
        """Loss was found by duplicate or selective acknowledgements: reduces window and threshold."""

    @abstractmethod
    def on_congestion_notification(self) -> None:
        """The peer echoes a mark (RFC 3168 §6.1.2): reduces window and threshold as for a loss."""

    @abstractmethod
    def on_recovery_end(self) -> None:
        """Everything that was outstanding when the loss was found has been acknowledged."""

    @abstractmethod
    def on_timeout(self, is_first: bool) -> None:
        """The retransmission timer fired; ``is_first`` when not for the same data again."""

    @abstractmethod
    def on_spurious_loss(self) -> None:
        """Nothing was lost after all (RFC 4015, RFC 5682, RFC 9438 §4.9): undoes the latest reduction."""
