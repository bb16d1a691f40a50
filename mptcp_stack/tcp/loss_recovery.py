"""What an acknowledgement means: delivery, round-trip samples, loss (RFC 5681, 6582, 6675, 6298)."""

from __future__ import annotations

from mptcp_stack.tcp.explicit_congestion import is_window_held, reduce_for_loss
from mptcp_stack.tcp.output import SEQUENCE_MASK, timestamp_now
from mptcp_stack.tcp.retransmission_queue import DUPLICATE_THRESHOLD, Acknowledged
from mptcp_stack.tcp.states import Recovery
from mptcp_stack.tcp.subflow import Subflow
from mptcp_stack.wire.sequence import unwrap
from mptcp_stack.wire.tcp_options import TcpOptions

_LONGEST_SAMPLE_US = 120_000_000
"""An echoed timestamp that gives more than this is not ours."""


def on_acknowledgement(
    subflow: Subflow, acknowledgement: int, options: TcpOptions, is_duplicate: bool, now_us: int
) -> None:
    """Takes an acceptable acknowledgement number and the SACK blocks beside it."""
    queue = subflow.retransmission_queue
    result = queue.acknowledge(acknowledgement, _sack_blocks(subflow, options))
    _take_round_trip_sample(subflow, result, options, now_us)
    segments = -(-result.newly_delivered_bytes // subflow.segment_bytes)
    subflow.environment.counters.increment("TcpExtTCPDelivered", segments)
    if subflow.explicit_congestion is not None:
        subflow.explicit_congestion.on_delivered(subflow, segments)
    if result.cumulative_bytes:
        subflow.snd_una = acknowledgement
        subflow.duplicate_acknowledgements = 0
        subflow.consecutive_timeouts = 0
    elif is_duplicate:
        subflow.duplicate_acknowledgements += 1
    _detect_lost_retransmissions(subflow, result, now_us)
    _detect_loss(subflow, result, is_duplicate)
    if subflow.recovery is not Recovery.NONE and subflow.snd_una >= subflow.recovery_point:
        subflow.recovery = Recovery.NONE
        subflow.congestion.on_recovery_end()
    elif result.cumulative_bytes and subflow.recovery is not Recovery.FAST and not is_window_held(subflow):
        subflow.congestion.on_acknowledged(result.newly_delivered_bytes, now_us)
    if not len(queue):
        subflow.retransmission_timer.cancel()
    elif result.cumulative_bytes:
        # RFC 6298 §5.3: the timer starts again when new data is acknowledged.
        subflow.retransmission_timer.set(now_us + subflow.round_trip.rto_us)


def _sack_blocks(subflow: Subflow, options: TcpOptions) -> list[tuple[int, int]]:
    """The blocks that lie within what is outstanding; others are ignored (RFC 2018 §5, hostile or stale)."""
    blocks: list[tuple[int, int]] = []
    if subflow.sack_enabled:
        for left, right in options.sack_blocks:
            start, end = unwrap(left, subflow.snd_una), unwrap(right, subflow.snd_una)
            if subflow.snd_una <= start < end <= subflow.snd_nxt:
                blocks.append((start, end))
    return blocks


def _take_round_trip_sample(subflow: Subflow, result: Acknowledged, options: TcpOptions, now_us: int) -> None:
    if result.latest_sent_us is not None and not result.has_retransmitted:
        subflow.round_trip.on_sample(now_us - result.latest_sent_us)
    elif result.cumulative_bytes and subflow.timestamps_enabled and options.timestamp_value is not None:
        # RFC 7323 §4.1: the echo tells which transmission arrived, so Karn's rule is not needed.
        elapsed_us = ((timestamp_now(subflow, now_us) - options.timestamp_echo) & SEQUENCE_MASK) * 1000
        if options.timestamp_echo and elapsed_us < _LONGEST_SAMPLE_US:
            subflow.round_trip.on_sample(elapsed_us)


def _detect_lost_retransmissions(subflow: Subflow, result: Acknowledged, now_us: int) -> None:
    """RFC 8985 §6.2, for what was sent more than once: a time-out would cost the whole flight."""
    round_trip_us = subflow.round_trip.srtt_us
    if not subflow.sack_enabled or not subflow.retransmission_queue.lost_count or round_trip_us is None:
        return
    evidence_us = result.latest_sent_us or 0
    again_us = result.latest_sent_again_us
    if again_us is not None and now_us - again_us >= round_trip_us // 2:
        # Else the acknowledgement is rather for an earlier transmission.
        evidence_us = max(evidence_us, again_us)
    lost_bytes = subflow.retransmission_queue.mark_lost_retransmissions(evidence_us - round_trip_us // 4)
    if lost_bytes:
        segments = -(-lost_bytes // subflow.segment_bytes)
        subflow.environment.counters.increment("TcpExtTCPLostRetransmit", segments)


def _detect_loss(subflow: Subflow, result: Acknowledged, is_duplicate: bool) -> None:
    queue = subflow.retransmission_queue
    lost_bytes = 0
    if subflow.sack_enabled:
        if queue.sacked_bytes:
            lost_bytes = queue.mark_lost_by_sack(subflow.segment_bytes)
    elif subflow.recovery is Recovery.FAST and result.cumulative_bytes:
        # RFC 6582 §3.2: a partial acknowledgement says that the next segment is lost too.
        if subflow.snd_una < subflow.recovery_point:
            lost_bytes = queue.mark_first_lost(subflow.segment_bytes)
    elif is_duplicate and subflow.duplicate_acknowledgements == DUPLICATE_THRESHOLD:
        lost_bytes = queue.mark_first_lost(subflow.segment_bytes)
    if lost_bytes and (subflow.recovery is Recovery.NONE or not subflow.sack_enabled):
        # The first one goes out whatever the window says (RFC 6675 §5, step 4.3; RFC 6582 §3.2, step 3).
        subflow.must_retransmit = True
    if lost_bytes and subflow.recovery is Recovery.NONE:
        subflow.recovery = Recovery.FAST
        subflow.recovery_point = subflow.snd_nxt
        reduce_for_loss(subflow)
        name = "TcpExtTCPSackRecovery" if subflow.sack_enabled else "TcpExtTCPRenoRecovery"
        subflow.environment.counters.increment(name)
    if queue.lost_count or is_duplicate:
        subflow.request_output()
