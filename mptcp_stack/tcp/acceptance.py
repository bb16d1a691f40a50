"""What happens to an arriving segment: the steps of RFC 9293 §3.10.7, in its order."""

from __future__ import annotations

from errno import ECONNREFUSED, ECONNRESET, EPIPE

from mptcp_stack.tcp import (
    duplicate_sack,
    fast_open,
    orphans,
    output,
    passive_handshake,
    peer_fin,
    refusals,
    retransmission_timer,
    urgent,
)
from mptcp_stack.tcp.loss_recovery import on_acknowledgement
from mptcp_stack.tcp.reassembly import Placement
from mptcp_stack.tcp.receive_round_trip import ReceiveRoundTrip
from mptcp_stack.tcp.states import CAN_RECEIVE, COUNTED_AS_ESTABLISHED, Acknowledge, Event, State
from mptcp_stack.tcp.subflow import Subflow
from mptcp_stack.tcp.tail_loss_probe import TIMER_SLACK_US
from mptcp_stack.wire.sequence import unwrap
from mptcp_stack.wire.tcp_segment import ACK, FIN, RST, SYN, URG, TcpSegment

_SIGN = 1 << 31
"""Of the difference of two 32 bit clocks: set when the first is behind."""


def process(subflow: Subflow, segment: TcpSegment, now_us: int) -> None:
    """Takes a segment whose four-tuple is this subflow's."""
    if subflow.state is State.SYN_SENT:
        _process_in_syn_sent(subflow, segment, now_us)
        return
    sequence = unwrap(segment.sequence, subflow.rcv_nxt)
    is_expected = _is_expected_in_handshake if subflow.state is State.SYN_RECEIVED else _is_acceptable
    if not is_expected(subflow, segment, sequence, now_us):
        return
    if segment.flags & RST:
        _process_reset(subflow, segment, sequence, now_us)
    elif not segment.flags & ACK:
        subflow.environment.counters.increment("StackDropUnexpectedState")
    elif _passes_acknowledgement_step(subflow, segment, sequence, now_us):
        _process_data_and_fin(subflow, segment, sequence, now_us)


def process_third_packet(subflow: Subflow, segment: TcpSegment, now_us: int) -> None:
    """Takes what ended a request, for the subflow that was just made of it."""
    sequence = unwrap(segment.sequence, subflow.rcv_nxt)
    if _passes_acknowledgement_step(subflow, segment, sequence, now_us):
        _process_data_and_fin(subflow, segment, sequence, now_us)


def _process_data_and_fin(subflow: Subflow, segment: TcpSegment, sequence: int, now_us: int) -> None:
    if segment.payload:
        _process_data(subflow, segment, sequence, now_us)
    if segment.flags & FIN and subflow.state is not State.CLOSED:
        peer_fin.on_fin(subflow, sequence + len(segment.payload), now_us)
    if subflow.state is State.FIN_WAIT_2:
        # Not before: the segment that acknowledged our FIN may have brought the peer's.
        orphans.on_segment(subflow, segment, now_us)


def _passes_acknowledgement_step(subflow: Subflow, segment: TcpSegment, sequence: int, now_us: int) -> bool:
    """Handshake, acknowledgement and options; False when data and FIN are not to be looked at."""
    if subflow.state is State.SYN_RECEIVED and not _finish_passive_open(subflow, segment, now_us):
        return False
    if not _process_acknowledgement(subflow, segment, sequence, now_us):
        return False
    if not subflow.on_segment(segment, now_us):
        return False
    if segment.flags & URG or subflow.urgent is not None:
        urgent.on_segment(subflow, segment, sequence)
    return True


def _process_in_syn_sent(subflow: Subflow, segment: TcpSegment, now_us: int) -> None:
    """RFC 9293 §3.10.7.3."""
    counters = subflow.environment.counters
    if segment.flags & ACK and not _acknowledges_syn(subflow, segment):
        counters.increment("StackDropBadAcknowledgement")
        _refuse_acknowledgement(subflow, segment, now_us)
        if not subflow.syn_retransmissions:
            # As in Linux: what the RST ends at the peer was in the way of our SYN, which comes again soon.
            retransmission_timer.fire_in(subflow, TIMER_SLACK_US, now_us)
        return
    if segment.flags & RST:
        if segment.flags & ACK:
            subflow.finish(ECONNREFUSED, now_us)
        else:
            counters.increment("StackDropUnexpectedState")
        return
    if not segment.flags & SYN:
        counters.increment("StackDropUnexpectedState")
        return
    if not segment.flags & ACK:
        # Simultaneous open: answered like a passive one (RFC 9293 §3.5, figure 7).
        subflow.take_syn(segment, now_us)
        subflow.change_state(Event.SYN_RECEIVED)
        subflow.on_simultaneous_open(now_us)
        if subflow.state is not State.CLOSED:
            subflow.retransmission_queue.chunks[0].flags = SYN | ACK
            output.send_syn(subflow, subflow.retransmission_queue.chunks[0], now_us)
        return
    subflow.take_syn(segment, now_us)
    if subflow.fast_open is not None:
        acknowledgement = unwrap(segment.acknowledgement, subflow.snd_nxt)
        fast_open.on_syn_acknowledgement(subflow, subflow.fast_open, segment, acknowledgement)
    on_acknowledgement(subflow, subflow.snd_nxt, segment.options, False, now_us)
    subflow.snd_wl2 = subflow.snd_una
    subflow.change_state(Event.SYN_ACK_RECEIVED)
    subflow.acknowledge = Acknowledge.NOW
    if subflow.on_syn_acknowledgement(segment, now_us):
        subflow.on_handshake_end()
        subflow.on_established(now_us)
        subflow.request_output()


def _acknowledges_syn(subflow: Subflow, segment: TcpSegment) -> bool:
    """And maybe the data that went with it (RFC 7413)."""
    acknowledgement = unwrap(segment.acknowledgement, subflow.snd_nxt)
    opening = subflow.fast_open
    sent = subflow.snd_nxt if opening is None else subflow.snd_nxt + len(opening.data)
    return subflow.snd_iss < acknowledgement <= sent


def _is_expected_in_handshake(subflow: Subflow, segment: TcpSegment, sequence: int, now_us: int) -> bool:
    """In SYN_RECEIVED. False when the segment has been dealt with."""
    if subflow.is_passive:
        return passive_handshake.lets_pass(subflow, segment, sequence, now_us)
    if _is_crossing_syn(subflow, segment, sequence):
        _finish_passive_open(subflow, segment, now_us)
        return False
    return _is_acceptable(subflow, segment, sequence, now_us)


def _is_acceptable(subflow: Subflow, segment: TcpSegment, sequence: int, now_us: int) -> bool:
    """PAWS (RFC 7323 §5.3), and the window test of RFC 9293 §3.10.7.4."""
    if segment.flags & (SYN | RST) == SYN:
        subflow.environment.counters.increment("TcpExtTCPSYNChallenge")
        refusals.challenge(subflow, now_us)
        return False
    timestamp = segment.options.timestamp_value
    if (
        subflow.timestamps_enabled
        and timestamp is not None
        and (timestamp - subflow.timestamp_recent) & _SIGN
        and refusals.is_too_old(subflow, segment, sequence, now_us)
    ):
        return False
    length = len(segment.payload)
    if segment.flags & FIN:
        length += 1
    end = sequence + length
    edge = _receivable_edge(subflow, sequence + 1)
    if (
        sequence > edge
        or end < subflow.rcv_nxt
        or (length and end == subflow.rcv_nxt)
        or (length and sequence == edge)
    ):
        subflow.environment.counters.increment("StackDropOutOfWindow")
        if not segment.flags & RST:
            refusals.answer(subflow, segment, sequence, "TcpExtTCPACKSkippedSeq", now_us)
        return False
    return True


def _receivable_edge(subflow: Subflow, wanted: int) -> int:
    """The first sequence number beyond the window, or any behind ``wanted`` that lies within it."""
    edge = subflow.rcv_right_edge
    return edge if wanted <= edge else max(edge, subflow.rcv_nxt + subflow.receive_window())


def _process_reset(subflow: Subflow, segment: TcpSegment, sequence: int, now_us: int) -> None:
    """RFC 5961 §3.2: only a RST at exactly the next sequence number is believed."""
    if sequence != subflow.rcv_nxt:
        refusals.challenge(subflow, now_us)
        return
    subflow.on_reset_received(segment, now_us)
    if subflow.state is State.CLOSED:
        return
    if subflow.state in COUNTED_AS_ESTABLISHED:
        subflow.environment.counters.increment("TcpEstabResets")
    error = EPIPE if subflow.state is State.CLOSE_WAIT else ECONNRESET
    subflow.finish(error, now_us)


def _is_crossing_syn(subflow: Subflow, segment: TcpSegment, sequence: int) -> bool:
    """The SYN/ACK of the other end of a simultaneous open (RFC 9293 §3.5, figure 7).

    By its sequence number it lies before the window; were it answered with our own SYN/ACK, both ends would
    go on like that for ever.
    """
    return segment.flags & (SYN | ACK | RST) == SYN | ACK and sequence == subflow.irs


def _refuse_acknowledgement(subflow: Subflow, segment: TcpSegment, now_us: int) -> None:
    """The handshake goes on; who believes in another connection is told (RFC 9293 §3.5.2, group 2)."""
    if not segment.flags & RST:
        output.send_reset_at(subflow, segment, now_us)


def _finish_passive_open(subflow: Subflow, segment: TcpSegment, now_us: int) -> bool:
    """The third packet of the handshake. False when the segment must not be looked at any further."""
    acknowledgement = unwrap(segment.acknowledgement, subflow.snd_nxt)
    if not subflow.snd_iss < acknowledgement <= subflow.snd_nxt:
        subflow.environment.counters.increment("StackDropBadAcknowledgement")
        _refuse_acknowledgement(subflow, segment, now_us)
        return False
    if not subflow.on_handshake_acknowledgement(segment, now_us):
        return False
    on_acknowledgement(subflow, acknowledgement, segment.options, False, now_us)
    subflow.change_state(Event.HANDSHAKE_ACKNOWLEDGED)
    if subflow.fin_position is not None:
        subflow.change_state(Event.FIN_SENT)
    subflow.on_handshake_end()
    # RFC 7323 §2.2: the window of a segment with SYN is never scaled.
    subflow.snd_wnd = segment.window << (0 if segment.flags & SYN else subflow.snd_wnd_scale)
    # What the SYN showed was not scaled, and says nothing beside this.
    subflow.largest_send_window = 0
    subflow.on_window_told(subflow.snd_wnd)
    subflow.snd_wl1 = subflow.rcv_nxt - 1
    subflow.snd_wl2 = acknowledgement
    subflow.on_established(now_us)
    return subflow.state is not State.CLOSED and _take_early_acknowledgement(subflow, now_us)


def _take_early_acknowledgement(subflow: Subflow, now_us: int) -> bool:
    """What went before the third packet (RFC 7413) may be acknowledged by it."""
    fin_position = subflow.fin_position
    if fin_position is not None and subflow.snd_una > fin_position:
        return _on_fin_acknowledged(subflow, now_us)
    if subflow.snd_una > subflow.snd_iss + 1:
        subflow.on_acknowledged(now_us)
    return True


def _process_acknowledgement(subflow: Subflow, segment: TcpSegment, sequence: int, now_us: int) -> bool:
    """RFC 9293 §3.10.7.4, fifth step. False when the segment is not to be looked at any further."""
    counters = subflow.environment.counters
    acknowledgement = unwrap(segment.acknowledgement, subflow.snd_una)
    if acknowledgement > subflow.snd_nxt or acknowledgement < subflow.snd_una - subflow.largest_send_window:
        # RFC 5961 §5.2
        counters.increment("StackDropBadAcknowledgement")
        refusals.challenge(subflow, now_us)
        return False
    subflow.soft_error = None
    if subflow.probing is not None:
        subflow.probing.on_acknowledgement()
    _update_timestamp(subflow, segment, sequence, now_us)
    subflow.last_received_us = now_us
    window = segment.window << subflow.snd_wnd_scale
    has_outstanding = len(subflow.retransmission_queue.chunks) > 0
    is_duplicate = (
        has_outstanding
        and acknowledgement == subflow.snd_una
        and not segment.payload
        and not segment.flags & FIN
        and window == subflow.snd_wnd
        and not (segment.options.mptcp and subflow.is_signal(segment))
    )
    if acknowledgement >= subflow.snd_una:
        _update_window(subflow, sequence, acknowledgement, window)
    if not segment.payload:
        counters.increment("TcpExtTCPPureAcks")
    if subflow.explicit_congestion is not None:
        subflow.explicit_congestion.on_acknowledgement(subflow, segment.flags, acknowledgement)
    moved = acknowledgement > subflow.snd_una
    if has_outstanding or moved or segment.options.sack_blocks:
        on_acknowledgement(subflow, acknowledgement, segment.options, is_duplicate, now_us)
    if moved:
        fin_position = subflow.fin_position
        if fin_position is not None and subflow.snd_una > fin_position:
            return _on_fin_acknowledged(subflow, now_us)
        subflow.on_acknowledged(now_us)
    return True


def _update_timestamp(subflow: Subflow, segment: TcpSegment, sequence: int, now_us: int) -> None:
    """RFC 7323 §4.3: the echo is for the earliest segment that is not acknowledged yet.

    Only after the acknowledgement number was found good, as in Linux: who has to guess must guess both.
    """
    value = segment.options.timestamp_value
    if not subflow.timestamps_enabled or value is None or sequence > subflow.last_acknowledged:
        return
    if not (value - subflow.timestamp_recent) & _SIGN or refusals.is_timestamp_forgotten(subflow, now_us):
        subflow.timestamp_recent = value


def _update_window(subflow: Subflow, sequence: int, acknowledgement: int, window: int) -> None:
    if subflow.snd_wl1 < sequence or (subflow.snd_wl1 == sequence and subflow.snd_wl2 <= acknowledgement):
        if window != subflow.snd_wnd:
            subflow.request_output()
        subflow.snd_wnd = window
        subflow.snd_wl1, subflow.snd_wl2 = sequence, acknowledgement
        subflow.on_window_told(window)


def _on_fin_acknowledged(subflow: Subflow, now_us: int) -> bool:
    if subflow.state is State.FIN_WAIT_1:
        subflow.change_state(Event.FIN_ACKNOWLEDGED)
        subflow.on_acknowledged(now_us)
    elif subflow.state is State.CLOSING:
        subflow.change_state(Event.FIN_ACKNOWLEDGED)
        subflow.on_acknowledged(now_us)
        subflow.enter_time_wait(now_us)
        return False
    elif subflow.state is State.LAST_ACK:
        subflow.change_state(Event.FIN_ACKNOWLEDGED)
        subflow.on_acknowledged(now_us)
        subflow.finish_in_order(now_us)
        return False
    return True


def _process_data(subflow: Subflow, segment: TcpSegment, sequence: int, now_us: int) -> None:
    """RFC 9293 §3.10.7.4, seventh step; acknowledges by RFC 5681 §4.2."""
    if not _wants_data(subflow, segment, sequence, now_us):
        return
    payload = segment.payload
    length = len(payload)
    edge = _receivable_edge(subflow, sequence + length)
    if sequence + length > edge:
        length = edge - sequence
        payload = payload[:length]
    _prepare_acknowledgement(subflow, segment, sequence, now_us)
    reassembly, acknowledging = subflow.reassembly, subflow.acknowledging
    if sequence > subflow.rcv_nxt:
        reassembly.buffer_bytes = subflow.receive_buffer_bytes
    placement, ready = reassembly.insert(sequence, payload)
    if placement is not Placement.IN_ORDER:
        _on_data_out_of_order(subflow, placement, now_us)
        return
    position = subflow.rcv_nxt
    filled_gap = len(ready) > 1 or subflow.waiting_fin_position is not None
    subflow.rcv_nxt = reassembly.next_position
    acknowledging.on_data(subflow, length, segment.flags, now_us)
    if subflow.receive_round_trip is None:
        subflow.receive_round_trip = ReceiveRoundTrip()
    subflow.receive_round_trip.on_data(subflow, segment, now_us)
    subflow.on_data(position, ready, now_us)
    if subflow.state is State.CLOSED:
        return
    if filled_gap or not reassembly.is_empty:
        subflow.want_acknowledgement(Acknowledge.NOW, now_us)
    elif acknowledging.is_scheduled and subflow.acknowledge is not Acknowledge.NOW:
        # Else it has been acknowledged by the layer above, or will be now.
        acknowledging.schedule(subflow, now_us)
    if subflow.waiting_fin_position is not None:
        peer_fin.on_hole_filled(subflow, now_us)


def _on_data_out_of_order(subflow: Subflow, placement: Placement, now_us: int) -> None:
    counters = subflow.environment.counters
    if placement is Placement.REFUSED:
        counters.increment("TcpExtTCPOFODrop")
        counters.increment("StackDropReceiveQueueFull")
    else:
        counters.increment("TcpExtTCPOFOQueue")
        if placement is Placement.DUPLICATE:
            counters.increment("TcpExtTCPOFOMerge")
    subflow.want_acknowledgement(Acknowledge.NOW, now_us)


def _wants_data(subflow: Subflow, segment: TcpSegment, sequence: int, now_us: int) -> bool:
    """Beyond the peer's FIN there is none; what nobody will read is refused (RFC 9293 §3.6.1)."""
    if subflow.state not in CAN_RECEIVE or subflow.peer_fin_position is not None:
        subflow.environment.counters.increment("StackDropUnexpectedState")
        if sequence < subflow.rcv_nxt:
            subflow.want_acknowledgement(Acknowledge.NOW, now_us)
        return False
    if subflow.is_reader_gone() and sequence + len(segment.payload) > subflow.rcv_nxt:
        subflow.environment.counters.increment("TcpExtTCPAbortOnData")
        output.send_reset_at(subflow, segment, now_us)
        subflow.finish(ECONNRESET, now_us)
        return False
    return True


def _prepare_acknowledgement(subflow: Subflow, segment: TcpSegment, sequence: int, now_us: int) -> None:
    """What the data says about acknowledging, before it is known to continue the rest or not."""
    has_gaps = not subflow.reassembly.is_empty
    if has_gaps:
        _report_gaps(subflow, sequence, now_us)
    if has_gaps or sequence < subflow.rcv_nxt:
        duplicate_sack.on_data(subflow, sequence, sequence + len(segment.payload), now_us)
    if subflow.explicit_congestion is not None:
        subflow.explicit_congestion.on_data(subflow, segment, now_us)


def _report_gaps(subflow: Subflow, sequence: int, now_us: int) -> None:
    """Sends the acknowledgement that is owed before a segment that does not continue the latest range.

    When a device hands over many segments at once, an acknowledgement after the last would name the latest
    ranges only, since beside MPTCP's options there is room for one block, and the peer would think the
    others lost. Without SACK every segment out of order has to bring its duplicate (RFC 5681 §4.2).
    """
    if subflow.acknowledge is not Acknowledge.NOW:
        return
    if not subflow.sack_enabled or not subflow.reassembly.continues_latest(sequence):
        output.send_acknowledgement(subflow, now_us)
