"""What TCP asks of the layer above it, which owns the subflow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from mptcp_stack.congestion.interface import Path
from mptcp_stack.tcp.retransmission_queue import Chunk
from mptcp_stack.tcp.urgent import UrgentData
from mptcp_stack.wire.frame import Buffer
from mptcp_stack.wire.mptcp_options import MptcpOption
from mptcp_stack.wire.tcp_segment import TcpSegment


class SubflowOwner(ABC):
    """What the layer above contributes; the methods with defaults are for TCP without options."""

    __slots__ = ()

    @abstractmethod
    def receive_window(self) -> int:
        """Bytes that the peer may send beyond ``rcv_nxt``."""

    @property
    @abstractmethod
    def receive_buffer_bytes(self) -> int:
        """For how much data there is room in all, unread or beyond a gap."""

    @property
    @abstractmethod
    def is_passive(self) -> bool:
        """It began with the peer's SYN."""

    @property
    @abstractmethod
    def is_accepted(self) -> bool:
        """It began with the peer's SYN, and an application has it already."""

    @abstractmethod
    def may_send_early(self) -> bool:
        """Before the third packet came: the peer's SYN was believed by its cookie (RFC 7413 §4.2.2)."""

    @abstractmethod
    def answers_to_send(self) -> int:
        """How often a SYN/ACK is sent again at most; asked when one was not acknowledged in time."""

    @property
    @abstractmethod
    def is_orphan(self) -> bool:
        """Nobody is left to read what the peer may still send."""

    @abstractmethod
    def window_edge(self) -> int:
        """The first sequence number that must not be sent yet."""

    @abstractmethod
    def coupled_paths(self) -> Sequence[Path]:
        """The subflows whose congestion windows may depend on one another (RFC 6356 §3)."""

    @abstractmethod
    def is_signal(self, segment: TcpSegment) -> bool:
        """A segment without data that was sent for its options: its acknowledgement tells nothing."""

    @abstractmethod
    def is_reader_gone(self) -> bool:
        """Nobody will read what still comes, so that it is to be refused."""

    @abstractmethod
    def has_waiting(self) -> bool:
        """There is something that this subflow would send if it might."""

    @abstractmethod
    def send_waiting(self, now_us: int) -> bool:
        """Sends what the window takes, little as it is; True if that was anything."""

    @abstractmethod
    def request_output(self) -> None:
        """There is something to send: have ``flush`` called soon."""

    @abstractmethod
    def has_unsent_data(self) -> bool:
        """There is new data that this subflow could send, if its windows took it."""

    @abstractmethod
    def send_beyond_window(self, now_us: int) -> bool:
        """Sends one segment of new data, whatever the congestion window says. False: there is none."""

    @abstractmethod
    def on_data(self, position: int, pieces: list[Buffer], now_us: int) -> None:
        """In-order bytes, the first of them at ``position`` of the peer's sequence space."""

    @abstractmethod
    def urgent_data(self) -> UrgentData | None:
        """Where urgent data is kept; None where it has no meaning."""

    @abstractmethod
    def on_urgent_mark_moved(self) -> None:
        """Another byte is going to be the urgent one."""

    @abstractmethod
    def on_urgent_byte(self) -> None:
        """The peer's urgent byte has come."""

    @abstractmethod
    def on_fin(self, now_us: int) -> None:
        """The peer sends nothing more on this subflow."""

    @abstractmethod
    def on_acknowledged(self, now_us: int) -> None:
        """``snd_una`` moved."""

    @abstractmethod
    def on_established(self, now_us: int) -> None:
        """The handshake is complete."""

    @abstractmethod
    def on_closed(self, error: int | None, now_us: int) -> None:
        """Nothing more will come or go; ``error`` is an errno when it did not end in order."""

    @abstractmethod
    def on_reset_received(self, segment: TcpSegment, now_us: int) -> None:
        """A believable RST came in; its options may say why. ``on_closed`` follows."""

    @abstractmethod
    def on_simultaneous_open(self, now_us: int) -> None:
        """Both ends sent a SYN, and both crossed. May reset the subflow."""

    @abstractmethod
    def syn_options(self) -> tuple[MptcpOption, ...]:
        """What a SYN or SYN/ACK carries."""

    @abstractmethod
    def acknowledgement_options(self) -> tuple[MptcpOption, ...]:
        """What a segment without data carries; asked once for each that is sent."""

    @abstractmethod
    def data_options(self, chunk: Chunk) -> tuple[MptcpOption, ...]:
        """What a segment with this data carries."""

    @abstractmethod
    def data_option_bytes(self) -> int:
        """The most that ``data_options`` takes, padded: what a segment's payload has to leave free."""

    @abstractmethod
    def on_syn_acknowledgement(self, segment: TcpSegment, now_us: int) -> bool:
        """The options of a SYN/ACK. False: they are unacceptable and the subflow has been reset."""

    @abstractmethod
    def on_handshake_acknowledgement(self, segment: TcpSegment, now_us: int) -> bool:
        """The options of the third packet. False: unacceptable and reset, or to be ignored."""

    @abstractmethod
    def on_segment(self, segment: TcpSegment, now_us: int) -> bool:
        """The options of any later segment, before its data. False: the subflow has been reset."""
