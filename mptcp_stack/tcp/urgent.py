"""Urgent data as Linux has it (RFC 9293 §3.8.5, RFC 6093): a byte that is read apart, unless SO_OOBINLINE.

The pointer tells the place behind the urgent byte, as everybody has it by now (RFC 6093 §2.1). It is TCP's
alone: MPTCP has none. Of several urgent bytes only the last is urgent; it stays in the stream's numbering,
and a read ends before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.wire.tcp_segment import URG

if TYPE_CHECKING:
    from mptcp_stack.tcp.subflow import Subflow
    from mptcp_stack.wire.tcp_segment import TcpSegment

_LARGEST_POINTER = 0xFFFF


class UrgentData:
    """Of one connection; most have none."""

    __slots__ = ("byte", "mark", "sent_end", "was_read")

    def __init__(self) -> None:
        self.sent_end = 0
        """The sequence number behind the last urgent byte that was written here; 0: none."""
        self.mark: int | None = None
        """Where in the peer's stream its urgent byte is; None once reading has passed it."""
        self.byte: int | None = None
        """That byte, once it has come."""
        self.was_read = False

    @property
    def is_readable(self) -> bool:
        return self.byte is not None and not self.was_read

    def set_mark(self, position: int) -> None:
        self.mark, self.byte, self.was_read = position, None, False

    def forget_mark(self) -> None:
        self.mark = self.byte = None
        self.was_read = False

    def is_sending(self, subflow: Subflow) -> bool:
        """The peer has not acknowledged it yet."""
        return self.sent_end > subflow.snd_una


def on_segment(subflow: Subflow, segment: TcpSegment, sequence: int) -> None:
    """Has a pointer, or may bring the byte that one has told of."""
    urgent = subflow.urgent
    if segment.flags & URG:
        if urgent is None:
            urgent = subflow.urgent_data()
        if urgent is not None:
            subflow.urgent = urgent
            _on_pointer(subflow, urgent, sequence + max(0, segment.urgent_pointer - 1))
    if urgent is None or urgent.mark is None or urgent.byte is not None:
        return
    offset = urgent.mark + subflow.data_irs - sequence
    if 0 <= offset < len(segment.payload):
        urgent.byte = segment.payload[offset]
        subflow.on_urgent_byte()


def _on_pointer(subflow: Subflow, urgent: UrgentData, sequence: int) -> None:
    position = sequence - subflow.data_irs
    if sequence < subflow.rcv_nxt or (urgent.mark is not None and position <= urgent.mark):
        # It came before, or was the last to be urgent for a time only.
        return
    if urgent.mark is not None:
        subflow.on_urgent_mark_moved()
    urgent.set_mark(position)


def mark_header(subflow: Subflow, urgent: UrgentData, segment: TcpSegment, sequence: int) -> None:
    """The pointer of a segment that begins at ``sequence``; the largest when the place is too far away."""
    distance = urgent.sent_end - sequence
    if not urgent.is_sending(subflow) or distance <= 0:
        return
    if distance <= _LARGEST_POINTER:
        segment.urgent_pointer = distance
    elif sequence + _LARGEST_POINTER > subflow.snd_nxt:
        segment.urgent_pointer = _LARGEST_POINTER
    else:
        return
    segment.flags |= URG
