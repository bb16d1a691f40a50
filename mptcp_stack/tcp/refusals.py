"""Segments of a connection that are not taken: what is answered, and how often.

Two ends that both find the other's acknowledgements senseless would answer each other for ever, so that
answers to what brings no data have a rate (RFC 5961 §7, Linux's tcp_invalid_ratelimit).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.tcp import duplicate_sack
from mptcp_stack.tcp.states import Acknowledge
from mptcp_stack.wire.sequence import unwrap
from mptcp_stack.wire.tcp_segment import ACK, FIN, RST, SYN, TcpSegment

if TYPE_CHECKING:
    from mptcp_stack.tcp.subflow import Subflow

ANSWER_INTERVAL_US = 500_000
TIMESTAMP_LIFETIME_US = 24 * 86_400 * 1_000_000
"""RFC 7323 §5.5: after so long without a segment the last timestamp says nothing any more."""


def is_timestamp_forgotten(subflow: Subflow, now_us: int) -> bool:
    return now_us - subflow.last_received_us >= TIMESTAMP_LIFETIME_US


def is_too_old(subflow: Subflow, segment: TcpSegment, sequence: int, now_us: int) -> bool:
    """PAWS (RFC 7323 §5.3), for a segment with an older timestamp than the last one.

    True when it is not to be looked at any further.
    """
    if segment.flags & RST or is_timestamp_forgotten(subflow, now_us):
        return False
    counters = subflow.environment.counters
    is_pure_acknowledgement = not segment.payload and segment.flags & (ACK | FIN | SYN) == ACK
    if is_pure_acknowledgement and _says_nothing_new(subflow, segment, sequence):
        return False
    counters.increment("StackDropPaws")
    if is_pure_acknowledgement and sequence < subflow.rcv_nxt:
        # Overtaken by data: common, and no reason to answer.
        counters.increment("TcpExtPAWSOldAck")
        return True
    counters.increment("TcpExtPAWSEstab")
    answer(subflow, segment, sequence, "TcpExtTCPACKSkippedPAWS", now_us)
    return True


def _says_nothing_new(subflow: Subflow, segment: TcpSegment, sequence: int) -> bool:
    """A duplicate that was overtaken by another acknowledgement lately (Linux's tcp_disordered_ack)."""
    if sequence != subflow.rcv_nxt or sequence > subflow.snd_wl1:
        return False
    if unwrap(segment.acknowledgement, subflow.snd_una) != subflow.snd_una:
        return False
    if sequence == subflow.snd_wl1 and not 0 < segment.window << subflow.snd_wnd_scale <= subflow.snd_wnd:
        return False
    timestamp = segment.options.timestamp_value or 0
    age_ms = subflow.timestamp_recent - unwrap(timestamp, subflow.timestamp_recent)
    return age_ms * 1000 <= subflow.round_trip.rto_us * 6 // 5


def answer(subflow: Subflow, segment: TcpSegment, sequence: int, skipped: str, now_us: int) -> None:
    """Tell the peer what is expected. ``skipped`` counts what is not answered because of the rate."""
    if segment.payload or segment.flags & FIN:
        if sequence < subflow.rcv_nxt:
            _tell_of_repetition(subflow, segment, sequence, now_us)
        subflow.want_acknowledgement(Acknowledge.NOW, now_us)
    elif now_us - subflow.last_answer_us >= ANSWER_INTERVAL_US:
        # A window probe, say (RFC 9293 §3.8.6.1).
        subflow.last_answer_us = now_us
        subflow.want_acknowledgement(Acknowledge.NOW, now_us)
    else:
        subflow.environment.counters.increment(skipped)


def challenge(subflow: Subflow, now_us: int) -> None:
    """A challenge ACK (RFC 5961 §5), at a bounded rate (§7)."""
    if now_us - subflow.last_challenge_us >= ANSWER_INTERVAL_US:
        subflow.last_challenge_us = now_us
        subflow.environment.counters.increment("TcpExtTCPChallengeACK")
        subflow.want_acknowledgement(Acknowledge.NOW, now_us)
    else:
        subflow.environment.counters.increment("TcpExtTCPACKSkippedChallenge")


def _tell_of_repetition(subflow: Subflow, segment: TcpSegment, sequence: int, now_us: int) -> None:
    """The peer missed our acknowledgement, so it gets one without delay."""
    subflow.environment.counters.increment("TcpExtDelayedACKLost")
    subflow.acknowledging.enter_quick_mode(subflow)
    end = sequence + len(segment.payload) + bool(segment.flags & FIN)
    duplicate_sack.tell(subflow, sequence, min(end, subflow.rcv_nxt), now_us)
