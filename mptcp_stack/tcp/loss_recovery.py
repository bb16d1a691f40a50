"""What an acknowledgement means: delivery, round-trip samples, loss, and the way out of it.

The order of steps and the choices are Linux's: RACK with SACK (RFC 8985), NewReno without (RFC 6582), PRR
while the window is reduced (RFC 6937), F-RTO after a timeout (RFC 5682), and reductions taken back when they
turn out needless (RFC 4015).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.tcp import duplicate_sack, recovery_phases, retransmission_timer, tail_loss_probe
from mptcp_stack.tcp.explicit_congestion import is_window_held
from mptcp_stack.tcp.output import SEQUENCE_MASK, timestamp_now
from mptcp_stack.tcp.recovery_phases import Evidence, segments_in
from mptcp_stack.tcp.states import Recovery
from mptcp_stack.wire.tcp_options import TcpOptions

if TYPE_CHECKING:
    from mptcp_stack.tcp.duplicate_sack import DuplicateReport
    from mptcp_stack.tcp.retransmission_queue import Acknowledged
    from mptcp_stack.tcp.subflow import Subflow

_LONGEST_SAMPLE_US = 120_000_000
"""An echoed timestamp that gives more than this is not ours."""


def on_acknowledgement(
    subflow: Subflow, acknowledgement: int, options: TcpOptions, is_duplicate: bool, now_us: int
) -> None:
    """Takes an acknowledgement number that can be ours, and the SACK blocks beside it."""
    queue = subflow.retransmission_queue
    duplicates = None
    blocks: list[tuple[int, int]] = []
    if options.sack_blocks and subflow.sack_enabled:
        duplicates, blocks = duplicate_sack.read_blocks(subflow, acknowledgement, options.sack_blocks)
    echoed_ms = _echoed_ms(subflow, options, now_us)
    # Without progress the echo is of the segment before a hole (RFC 7323 §4.3), not of what came after it.
    latest_echoed_ms = echoed_ms if acknowledgement > subflow.snd_una else None
    result = queue.acknowledge(acknowledgement, blocks, _credible_us(subflow, latest_echoed_ms, now_us))
    una_before = subflow.snd_una
    if result.cumulative_bytes:
        subflow.snd_una = acknowledgement
        subflow.consecutive_timeouts = 0
        if subflow.mtu_probing is not None:
            subflow.mtu_probing.on_acknowledged(subflow)
    subflow.rack.on_delivered(result, now_us)
    _take_round_trip_sample(subflow, result, echoed_ms, now_us)
    if subflow.sack_enabled:
        _note_reordering(subflow, result)
        subflow.rack.update_steps(subflow.snd_una, subflow.snd_nxt)
    segments = max(segments_in(subflow, result.newly_delivered_bytes), result.newly_delivered_chunks)
    subflow.environment.counters.increment("TcpExtTCPDelivered", segments)
    if subflow.explicit_congestion is not None:
        subflow.explicit_congestion.on_delivered(subflow, segments)
    if (
        is_duplicate
        or result.newly_sacked
        or duplicates is not None
        or subflow.recovery is not Recovery.NONE
        or subflow.is_disordered
        or subflow.tail_probe is not None
    ):
        evidence = Evidence(result, una_before, is_duplicate, echoed_ms, now_us)
        _take_evidence(subflow, evidence, acknowledgement, duplicates)
    elif result.cumulative_bytes:
        retransmission_timer.on_progress(subflow, now_us)
        if not is_window_held(subflow):
            subflow.congestion.on_acknowledged(_growth_bytes(subflow, result), now_us)


def _take_evidence(
    subflow: Subflow,
    evidence: Evidence,
    acknowledgement: int,
    duplicates: DuplicateReport | None,
) -> None:
    """The way of acknowledgements that tell more than progress."""
    result = evidence.result
    evidence.delivered_bytes = result.newly_delivered_bytes
    if duplicates is not None:
        evidence.delivered_bytes += duplicates.segments * subflow.segment_bytes
    if subflow.tail_probe is not None:
        tail_loss_probe.on_acknowledgement(subflow, acknowledgement, evidence, duplicates)
    recovery_phases.respond(subflow, evidence)
    if result.cumulative_bytes and not evidence.has_set_timer:
        retransmission_timer.on_progress(subflow, evidence.now_us)
    if subflow.recovery is Recovery.FAST:
        recovery_phases.reduce_window(subflow, evidence)
    elif _may_grow(subflow, result):
        subflow.congestion.on_acknowledged(_growth_bytes(subflow, result), evidence.now_us)
    subflow.request_output()


def _growth_bytes(subflow: Subflow, result: Acknowledged) -> int:
    """A small segment took the place of a full one in the window, as in Linux's, which is one of packets."""
    return max(result.newly_delivered_bytes, result.newly_delivered_chunks * subflow.segment_bytes)


def _may_grow(subflow: Subflow, result: Acknowledged) -> bool:
    """As in Linux what comes out of order lets a window grow only if the path is known to reorder."""
    if not result.newly_delivered_bytes or is_window_held(subflow):
        return False
    return result.cumulative_bytes > 0 or subflow.rack.is_tolerant


def _echoed_ms(subflow: Subflow, options: TcpOptions, now_us: int) -> int | None:
    """The time that the peer echoes, on our own clock without its offset."""
    if not subflow.timestamps_enabled or options.timestamp_value is None or not options.timestamp_echo:
        return None
    elapsed_ms = (timestamp_now(subflow, now_us) - options.timestamp_echo) & SEQUENCE_MASK
    return now_us // 1000 - elapsed_ms if elapsed_ms * 1000 < _LONGEST_SAMPLE_US else None


def _credible_us(subflow: Subflow, echoed_ms: int | None, now_us: int) -> int:
    """RFC 8985 §6.2, step 2: an acknowledgement for an earlier transmission says nothing of the last one."""
    limit_us = now_us - (subflow.round_trip.minimum_us or 0)
    if echoed_ms is not None:
        limit_us = min(limit_us, echoed_ms * 1000 + 999)
    return limit_us


def _take_round_trip_sample(
    subflow: Subflow, result: Acknowledged, echoed_ms: int | None, now_us: int
) -> None:
    """RFC 6298 §3 (Karn's rule), RFC 7323 §4; as in Linux SACK gives samples too."""
    sample_us: int | None = None
    latest_us = result.last_sent_us
    if result.first_sent_us is not None and not result.has_retransmitted:
        sample_us = now_us - result.first_sent_us
    elif result.first_sacked_sent_us is not None:
        sample_us = now_us - result.first_sacked_sent_us
    elif result.cumulative_bytes and echoed_ms is not None:
        # RFC 7323 §4.1: the echo tells which transmission arrived, so Karn's rule is not needed.
        sample_us = max(0, now_us // 1000 - echoed_ms) * 1000
    if sample_us is None:
        return
    if result.last_sacked_sent_us is not None:
        latest_us = result.last_sacked_sent_us
    shortest_us = sample_us if latest_us is None else now_us - latest_us
    subflow.round_trip.note_minimum(shortest_us, now_us)
    subflow.round_trip.on_sample(sample_us, subflow.snd_una, subflow.snd_nxt)


def _note_reordering(subflow: Subflow, result: Acknowledged) -> None:
    """RFC 8985 §6.2, step 3: what was sent once arrived after something above it."""
    distance = subflow.retransmission_queue.highest_sacked - result.lowest_reordered
    if distance > 0:
        subflow.rack.on_reordering(distance, subflow.segment_bytes)
        subflow.environment.counters.increment("TcpExtTCPSACKReorder")
