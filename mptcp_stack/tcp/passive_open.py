"""How a subflow begins that the peer has asked for: at its third packet, or at its SYN (RFC 7413)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.tcp.reassembly import Reassembly
from mptcp_stack.tcp.retransmission_queue import Chunk
from mptcp_stack.tcp.states import Event
from mptcp_stack.wire.tcp_segment import ACK, SYN, TcpSegment

if TYPE_CHECKING:
    from mptcp_stack.tcp.fast_open import Opening
    from mptcp_stack.tcp.request import Request
    from mptcp_stack.tcp.subflow import Subflow


def open_answered(subflow: Subflow, request: Request, now_us: int) -> None:
    """As if the SYN had been answered by this subflow; the third packet is to be processed at once."""
    agreed = request.agreed
    subflow.environment.subflows[subflow.four_tuple] = subflow
    subflow.begin_at(request.snd_iss)
    subflow.change_state(Event.SYN_RECEIVED)
    subflow.timestamps_enabled = agreed.timestamp_value is not None
    subflow.sack_enabled = agreed.sack_permitted
    subflow.window_scale_enabled = agreed.window_scale is not None
    subflow.rcv_wnd_scale = agreed.window_scale or 0
    subflow.timestamp_offset = request.timestamp_offset
    subflow.take_syn(request.syn, now_us)
    subflow.rcv_right_edge = subflow.rcv_told_edge = subflow.rcv_nxt + request.window
    subflow.snd_nxt += 1
    if not request.transmissions:
        # A cookie: nobody knows when it was sent.
        subflow.snd_una = subflow.snd_nxt
        return
    chunk = Chunk(subflow.snd_una, subflow.snd_nxt, (), SYN | ACK, request.sent_us)
    chunk.transmissions = request.transmissions
    subflow.syn_retransmissions = subflow.segments_sent_again = request.transmissions - 1
    subflow.retransmission_queue.append(chunk)


def open_early(subflow: Subflow, opening: Opening, syn: TcpSegment, now_us: int) -> None:
    """Answers a SYN whose data was believed."""
    subflow.fast_open = opening
    numbers = subflow.environment.numbers
    subflow.timestamp_offset = numbers.timestamp_offset(subflow.local, subflow.remote)
    subflow.environment.subflows[subflow.four_tuple] = subflow
    subflow.change_state(Event.SYN_RECEIVED)
    subflow.take_syn(syn, now_us)
    # The data of the SYN belongs to no mapping (RFC 8684 Appendix B).
    subflow.rcv_nxt += len(opening.data)
    subflow.rcv_right_edge = subflow.rcv_told_edge = subflow.last_acknowledged = subflow.rcv_nxt
    subflow.data_irs += len(opening.data)
    subflow.reassembly = Reassembly(subflow.rcv_nxt)
    subflow.begin_handshake(SYN | ACK, now_us)
