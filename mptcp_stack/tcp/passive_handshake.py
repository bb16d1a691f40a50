"""What arrives between our answer to a SYN and the third packet, by the rules of Linux's requests.

They are those of RFC 9293 §3.10.7.4 for SYN_RECEIVED, but nothing is lost yet: a SYN in the window ends it.
"""

from __future__ import annotations

from errno import ECONNRESET
from typing import TYPE_CHECKING

from mptcp_stack.tcp import output, retransmission_timer
from mptcp_stack.wire.sequence import unwrap
from mptcp_stack.wire.tcp_segment import ACK, FIN, RST, SYN

if TYPE_CHECKING:
    from mptcp_stack.tcp.subflow import Subflow
    from mptcp_stack.wire.tcp_segment import TcpSegment

_ANSWER_INTERVAL_US = 500_000
"""Linux's tcp_invalid_ratelimit."""


def lets_pass(subflow: Subflow, segment: TcpSegment, sequence: int, now_us: int) -> bool:
    """Whether the segment may be the third packet, or follow it. Else it has been dealt with."""
    kind = segment.flags & (SYN | ACK | RST)
    if sequence == subflow.irs and kind == SYN and not _is_too_old(subflow, segment):
        _answer_again(subflow, now_us)
        return False
    if kind & ACK and not _acknowledges_answer(subflow, segment):
        subflow.environment.counters.increment("StackDropBadAcknowledgement")
        if not kind & RST:
            output.send_reset_at(subflow, segment.acknowledgement, now_us)
        return False
    if not _is_acceptable(subflow, segment, sequence, now_us):
        return False
    if kind & RST and sequence != subflow.rcv_nxt:
        # RFC 5961 §3.2
        if _may_answer(subflow, now_us):
            subflow.environment.counters.increment("TcpExtTCPChallengeACK")
            output.send_acknowledgement(subflow, now_us)
        return False
    if kind & RST or (kind & SYN and sequence != subflow.irs):
        subflow.environment.counters.increment("TcpAttemptFails")
        refuse(subflow, segment, now_us)
        return False
    if not kind & ACK:
        subflow.environment.counters.increment("StackDropUnexpectedState")
        return False
    # The SYN of a segment that lies before the window is cut off.
    segment.flags &= ~SYN
    return True


def refuse(subflow: Subflow, segment: TcpSegment, now_us: int) -> None:
    """Ends it, and tells the peer."""
    subflow.environment.counters.increment("TcpExtEmbryonicRsts")
    if not segment.flags & RST:
        output.send_refusal(subflow, segment, now_us)
    error = None
    if subflow.fast_open is not None and subflow.fast_open.is_passive:
        subflow.fast_open.was_reset = bool(segment.flags & RST)
        error = ECONNRESET
    subflow.finish(error, now_us)


def _acknowledges_answer(subflow: Subflow, segment: TcpSegment) -> bool:
    """And maybe data that followed it at once (RFC 7413)."""
    acknowledgement = unwrap(segment.acknowledgement, subflow.snd_nxt)
    return subflow.snd_iss < acknowledgement <= subflow.snd_nxt


def _answer_again(subflow: Subflow, now_us: int) -> None:
    """The peer repeated its SYN; its timer starts anew."""
    if _may_answer(subflow, now_us):
        output.send_again(subflow, subflow.retransmission_queue.chunks[0], now_us)
        retransmission_timer.start(subflow, now_us)


def _may_answer(subflow: Subflow, now_us: int) -> bool:
    if now_us - subflow.last_answer_us >= _ANSWER_INTERVAL_US:
        subflow.last_answer_us = now_us
        return True
    subflow.environment.counters.increment("TcpExtTCPACKSkippedSynRecv")
    return False


def _is_too_old(subflow: Subflow, segment: TcpSegment) -> bool:
    """RFC 7323 §5.3; a RST is believed whatever its timestamp."""
    value = segment.options.timestamp_value
    if not subflow.timestamps_enabled or value is None or segment.flags & RST:
        return False
    return unwrap(value, subflow.timestamp_recent) < subflow.timestamp_recent


def _is_acceptable(subflow: Subflow, segment: TcpSegment, sequence: int, now_us: int) -> bool:
    """Who sends what is out of the window is told where it is, at a bounded rate."""
    is_too_old = _is_too_old(subflow, segment)
    end = sequence + len(segment.payload) + bool(segment.flags & SYN) + bool(segment.flags & FIN)
    edge = subflow.rcv_nxt + output.first_window(subflow, is_answer=True)
    is_inside = (
        sequence == subflow.rcv_nxt
        or (end > subflow.rcv_nxt and sequence < edge)
        or (sequence == end == edge)
    )
    if is_inside and not is_too_old:
        return True
    counters = subflow.environment.counters
    # Who sends data waits for an answer; two ends that only acknowledge would answer each other for ever.
    has_data = len(segment.payload) > 0 and not segment.flags & SYN
    if not segment.flags & RST and (has_data or _may_answer(subflow, now_us)):
        output.send_acknowledgement(subflow, now_us)
    if is_too_old:
        counters.increment("TcpExtPAWSEstab")
        counters.increment("StackDropPaws")
    else:
        counters.increment("StackDropOutOfWindow")
    return False
