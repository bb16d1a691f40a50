"""Into loss recovery, through it, and out of it again.

``Recovery.NONE`` is Linux's Open and Disorder, FAST its Recovery, TIMEOUT its Loss. Every phase ends when
what was outstanding at its start is acknowledged, or when it turns out to have been needless.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mptcp_stack.tcp import retransmission_timer, spurious_timeout
from mptcp_stack.tcp.episode import LossEpisode
from mptcp_stack.tcp.explicit_congestion import is_window_held, reduce_for_loss
from mptcp_stack.tcp.proportional_rate_reduction import ProportionalRateReduction
from mptcp_stack.tcp.states import Recovery

if TYPE_CHECKING:
    from mptcp_stack.tcp.retransmission_queue import Acknowledged
    from mptcp_stack.tcp.subflow import Subflow

_LEAST_RENEGING_WAIT_US = 10_000


@dataclass(slots=True)
class Evidence:
    """What one acknowledgement tells of loss, and what was concluded from it."""

    result: Acknowledged
    una_before: int
    is_duplicate: bool
    """RFC 5681 §2."""
    echoed_ms: int | None
    now_us: int
    delivered_bytes: int = 0
    """What has left the network by this, as far as can be told."""
    lost_bytes: int = 0
    has_lost_again: bool = False
    has_set_timer: bool = False

    @property
    def has_progress(self) -> bool:
        return self.result.cumulative_bytes > 0


def segments_in(subflow: Subflow, length: int) -> int:
    return -(-length // subflow.segment_bytes)


def respond(subflow: Subflow, evidence: Evidence) -> None:
    """Takes an acknowledgement that is not just progress, or any while there is something to recover from."""
    if evidence.has_progress and not subflow.sack_enabled:
        _settle_duplicates(subflow, evidence)
    if evidence.has_progress and _is_reneging(subflow, evidence):
        return
    if subflow.recovery is Recovery.FAST and subflow.snd_una >= subflow.recovery_point:
        if _stays_after_recovery(subflow, evidence):
            return
        _end_fast_recovery(subflow)
    if subflow.recovery is Recovery.FAST:
        _go_on_with_fast_recovery(subflow, evidence)
    elif subflow.recovery is Recovery.TIMEOUT:
        _go_on_after_timeout(subflow, evidence)
    else:
        _look_for_loss(subflow, evidence)


def _is_reneging(subflow: Subflow, evidence: Evidence) -> bool:
    """The next byte was acknowledged selectively, and is not cumulatively: give the peer a moment only."""
    queue = subflow.retransmission_queue
    if not len(queue) or not queue.chunks[0].is_sacked:
        return False
    wait_us = max((subflow.round_trip.srtt_us or 0) >> 1, _LEAST_RENEGING_WAIT_US)
    retransmission_timer.fire_in(subflow, wait_us, evidence.now_us)
    evidence.has_set_timer = True
    return True


def _look_for_loss(subflow: Subflow, evidence: Evidence) -> None:
    """In order, or with something missing that may still come."""
    if not subflow.sack_enabled:
        if evidence.has_progress:
            subflow.duplicate_acknowledgements = 0
        _count_duplicate(subflow, evidence)
    _undo_by_duplicates(subflow)
    identify_loss(subflow, evidence)
    if not subflow.retransmission_queue.lost_count:
        _note_disorder(subflow)
    elif subflow.mtu_probing is not None and subflow.mtu_probing.has_failed(subflow):
        send_again_without_reduction(subflow)
    else:
        enter_fast_recovery(subflow)


def _count_duplicate(subflow: Subflow, evidence: Evidence) -> None:
    """Without SACK each duplicate says that a segment has left the network; at most all but one."""
    if evidence.is_duplicate:
        outstanding = segments_in(subflow, subflow.snd_nxt - subflow.snd_una)
        missing = max(1, subflow.retransmission_queue.lost_count)
        if subflow.duplicate_acknowledgements < outstanding - missing:
            subflow.duplicate_acknowledgements += 1
            evidence.delivered_bytes += subflow.segment_bytes


def _settle_duplicates(subflow: Subflow, evidence: Evidence) -> None:
    """Without SACK: one acknowledged segment was missing, the others had been told of by duplicates."""
    acknowledged = segments_in(subflow, evidence.result.cumulative_bytes)
    told = max(0, min(subflow.duplicate_acknowledgements, acknowledged - 1))
    subflow.duplicate_acknowledgements -= told
    evidence.delivered_bytes -= told * subflow.segment_bytes


def _note_disorder(subflow: Subflow) -> None:
    queue = subflow.retransmission_queue
    subflow.is_disordered = bool(
        queue.sacked_bytes
        or queue.lost_count
        or subflow.duplicate_acknowledgements
        or (len(queue) and queue.chunks[0].transmissions > 1)
    )


def identify_loss(subflow: Subflow, evidence: Evidence) -> None:
    """Marks what is lost, by time with SACK, else by duplicates and partial acknowledgements."""
    queue = subflow.retransmission_queue
    if not len(queue):
        return
    if subflow.sack_enabled:
        if subflow.rack.has_advanced:
            subflow.rack.has_advanced = False
            _detect_by_time(subflow, evidence)
        return
    is_lost = (
        subflow.duplicate_acknowledgements >= subflow.rack.reordering
        if subflow.recovery is Recovery.NONE
        else subflow.recovery is Recovery.FAST and evidence.has_progress
    )
    if is_lost:
        evidence.lost_bytes += queue.mark_first_lost(subflow.segment_bytes)


def reordering_window_us(subflow: Subflow) -> int:
    return subflow.rack.window_us(
        subflow.round_trip.minimum_us,
        subflow.round_trip.srtt_us,
        segments_in(subflow, subflow.retransmission_queue.sacked_bytes),
        subflow.recovery is not Recovery.NONE,
    )


def _detect_by_time(subflow: Subflow, evidence: Evidence) -> None:
    lost, lost_again, wait_us = subflow.rack.detect(
        subflow.retransmission_queue, reordering_window_us(subflow), evidence.now_us
    )
    evidence.lost_bytes += lost + lost_again
    if lost_again:
        evidence.has_lost_again = True
        count_lost_again(subflow, lost_again)
    if wait_us:
        retransmission_timer.wait_for_reordering(subflow, wait_us, evidence.now_us)
        evidence.has_set_timer = True


def count_lost_again(subflow: Subflow, length: int) -> None:
    subflow.environment.counters.increment("TcpExtTCPLostRetransmit", segments_in(subflow, length))


# --- fast recovery ---


def enter_fast_recovery(subflow: Subflow) -> None:
    """RFC 5681 §3.2, RFC 6937 §3: the window goes to the threshold that the controller names."""
    name = "TcpExtTCPSackRecovery" if subflow.sack_enabled else "TcpExtTCPRenoRecovery"
    subflow.environment.counters.increment(name)
    episode = begin_episode(subflow)
    episode.reduction = ProportionalRateReduction(subflow.congestion.congestion_window)
    subflow.recovery = Recovery.FAST
    subflow.recovery_point = subflow.snd_nxt
    reduce_for_loss(subflow)
    subflow.congestion.congestion_window = subflow.bytes_on_the_way() + subflow.segment_bytes
    subflow.tail_probe = None
    subflow.request_output()


def begin_episode(subflow: Subflow) -> LossEpisode:
    """Remembers what would have to be restored."""
    queue, before = subflow.retransmission_queue, subflow.episode
    episode = LossEpisode(subflow.snd_una)
    on_the_way_again = segments_in(subflow, queue.again_bytes)
    if subflow.tail_probe is not None and subflow.tail_probe.is_retransmission:
        on_the_way_again += 1
    episode.unconfirmed_segments = on_the_way_again or None
    if before is not None and queue.again_bytes:
        episode.first_again_ms = before.first_again_ms
    subflow.episode = episode
    return episode


def reduce_window(subflow: Subflow, evidence: Evidence) -> None:
    """RFC 6937 §3, for each acknowledgement in fast recovery."""
    is_good_progress = evidence.has_progress and not evidence.lost_bytes
    _reduce_window(subflow, evidence.delivered_bytes, is_good_progress=is_good_progress)


def _reduce_window(subflow: Subflow, delivered: int, *, is_good_progress: bool) -> None:
    episode = subflow.episode
    if episode is None or episode.reduction is None or delivered <= 0:
        return
    subflow.congestion.congestion_window = episode.reduction.window(
        threshold=subflow.congestion.slow_start_threshold,
        in_flight=subflow.bytes_on_the_way(),
        delivered=delivered,
        segment_bytes=subflow.segment_bytes,
        is_good_progress=is_good_progress,
    )


def _stays_after_recovery(subflow: Subflow, evidence: Evidence) -> bool:
    """RFC 6582 §3.2, step 1: without SACK, duplicates of the last acknowledgement start no new recovery."""
    episode = subflow.episode
    if not subflow.sack_enabled:
        subflow.duplicate_acknowledgements = 0
    if episode is not None and (episode.all_were_needless or episode.first_was_needless(evidence.echoed_ms)):
        undo(subflow, "TcpExtTCPFullUndo", forgets_losses=False)
    else:
        subflow.rack.on_recovery_end()
    return not subflow.sack_enabled and subflow.snd_una == subflow.recovery_point


def _end_fast_recovery(subflow: Subflow) -> None:
    episode = subflow.episode
    if episode is not None:
        episode.reduction = None
        if episode.can_undo:
            subflow.congestion.congestion_window = subflow.congestion.slow_start_threshold
            subflow.congestion.on_recovery_end()
    subflow.recovery = Recovery.NONE


def _go_on_with_fast_recovery(subflow: Subflow, evidence: Evidence) -> None:
    if not evidence.has_progress:
        if not subflow.sack_enabled:
            _count_duplicate(subflow, evidence)
    elif _undo_partially(subflow, evidence):
        return
    if _undo_by_duplicates(subflow):
        _leave(subflow)
    identify_loss(subflow, evidence)
    if subflow.recovery is not Recovery.FAST:
        if subflow.retransmission_queue.lost_count:
            enter_fast_recovery(subflow)
        return
    subflow.request_output()


def _undo_partially(subflow: Subflow, evidence: Evidence) -> bool:
    """A partial acknowledgement of what was sent before the first retransmission: a late segment, no loss."""
    episode = subflow.episode
    if episode is None or not episode.first_was_needless(evidence.echoed_ms):
        return False
    _note_late_segment(subflow, evidence.una_before)
    if subflow.retransmission_queue.again_bytes:
        # New data may go, but nothing more counts as lost until the retransmissions are back.
        return True
    undo(subflow, "TcpExtTCPPartialUndo", forgets_losses=True)
    _leave(subflow)
    return False


def _note_late_segment(subflow: Subflow, position: int) -> None:
    queue = subflow.retransmission_queue
    distance = (queue.highest_sacked if queue.sacked_bytes else subflow.snd_una) - position
    if distance > 0:
        subflow.rack.on_reordering(distance, subflow.segment_bytes)
        subflow.environment.counters.increment("TcpExtTCPTSReorder")


def _undo_by_duplicates(subflow: Subflow) -> bool:
    """RFC 3708 §2: D-SACK has told of each retransmission that it was needless."""
    episode = subflow.episode
    if episode is None or not episode.all_were_needless:
        return False
    subflow.rack.on_undone_by_duplicates()
    undo(subflow, "TcpExtTCPDSACKUndo", forgets_losses=False)
    return True


def undo(subflow: Subflow, counter: str, *, forgets_losses: bool) -> None:
    """Takes the reduction back (RFC 4015 §3.2)."""
    subflow.environment.counters.increment(counter)
    if forgets_losses:
        subflow.retransmission_queue.restore_lost()
    if subflow.episode is not None:
        subflow.episode.can_undo = False
    subflow.congestion.on_spurious_loss()
    subflow.rack.has_advanced = True


def _leave(subflow: Subflow) -> None:
    """Recovery ends without what it usually ends with."""
    if subflow.episode is not None:
        subflow.episode.reduction = None
    subflow.recovery = Recovery.NONE
    subflow.recovery_point = subflow.snd_nxt
    _note_disorder(subflow)


# --- after a timeout ---


def _go_on_after_timeout(subflow: Subflow, evidence: Evidence) -> None:
    _process_timeout_phase(subflow, evidence)
    identify_loss(subflow, evidence)
    if subflow.recovery is Recovery.NONE or evidence.has_lost_again:
        if subflow.recovery is Recovery.NONE:
            _note_disorder(subflow)
        if subflow.retransmission_queue.lost_count:
            enter_fast_recovery(subflow)


def _process_timeout_phase(subflow: Subflow, evidence: Evidence) -> None:
    has_recovered = subflow.snd_una >= subflow.recovery_point
    if evidence.has_progress and _undo_timeout(subflow, evidence):
        return
    verdict = spurious_timeout.judge(subflow, evidence, has_recovered)
    if verdict is spurious_timeout.Verdict.SPURIOUS:
        _undo_timeout(subflow, evidence, is_certain=True)
    if verdict is not spurious_timeout.Verdict.UNDECIDED:
        return
    if has_recovered:
        _end_timeout_phase(subflow)
    elif subflow.sack_enabled or evidence.has_progress:
        subflow.duplicate_acknowledgements = 0
    elif subflow.snd_nxt > subflow.recovery_point:
        _count_duplicate(subflow, evidence)


def _end_timeout_phase(subflow: Subflow) -> None:
    subflow.rack.on_recovery_end()
    if subflow.sack_enabled or subflow.snd_una > subflow.recovery_point:
        subflow.recovery = Recovery.NONE
        subflow.congestion.on_recovery_end()
        subflow.duplicate_acknowledgements = 0
        _note_disorder(subflow)


def _undo_timeout(subflow: Subflow, evidence: Evidence, *, is_certain: bool = False) -> bool:
    """RFC 4015 §3.2, RFC 5682 §3.1."""
    episode = subflow.episode
    if episode is None or not (
        is_certain or episode.all_were_needless or episode.first_was_needless(evidence.echoed_ms)
    ):
        return False
    undo(subflow, "TcpExtTCPLossUndo", forgets_losses=True)
    if is_certain:
        subflow.environment.counters.increment("TcpExtTCPSpuriousRTOs")
    subflow.consecutive_timeouts = 0
    if is_certain or subflow.sack_enabled:
        _leave(subflow)
    return True


def send_again_without_reduction(subflow: Subflow) -> None:
    """What was too long for the path is marked lost: it goes out as after a timeout, without congestion.

    There is no reduction to take back, so no acknowledgement can show that one was needless.
    """
    if subflow.recovery is not Recovery.TIMEOUT:
        begin_episode(subflow).can_undo = False
        subflow.recovery = Recovery.TIMEOUT
        subflow.recovery_point = subflow.snd_nxt
        subflow.tail_probe = None
    elif subflow.episode is not None:
        subflow.episode.holds_retransmissions = False
    subflow.request_output()


# --- when a timer says so ---


def on_reordering_timer(subflow: Subflow, now_us: int) -> None:
    """RFC 8985 §6.3: what was only late counts as lost now."""
    lost, lost_again, _ = subflow.rack.detect(
        subflow.retransmission_queue, reordering_window_us(subflow), now_us
    )
    if lost_again:
        count_lost_again(subflow, lost_again)
    if not lost and not lost_again:
        return
    if subflow.recovery is not Recovery.FAST:
        enter_fast_recovery(subflow)
        _reduce_window(subflow, subflow.segment_bytes, is_good_progress=False)
    subflow.request_output()


def on_timeout(subflow: Subflow, now_us: int) -> None:
    """RFC 5681 §3.1, RFC 6675 §5.1: start again from one segment, ready to find that it was needless."""
    queue, congestion = subflow.retransmission_queue, subflow.congestion
    is_new = subflow.recovery is Recovery.NONE
    was_marked = is_window_held(subflow)
    is_first = not was_marked and (
        is_new
        or subflow.snd_una >= subflow.recovery_point
        or (subflow.recovery is Recovery.TIMEOUT and not subflow.consecutive_timeouts)
    )
    if len(queue) and queue.chunks[0].is_sacked:
        subflow.environment.counters.increment("TcpExtTCPSACKReneging")
    subflow.duplicate_acknowledgements = 0
    episode = subflow.episode
    if episode is None or is_first or was_marked:
        episode = begin_episode(subflow)
        # A reduction for marks stands, whatever becomes of the timeout.
        episode.can_undo = not was_marked
    if subflow.sack_enabled:
        queue.mark_timed_out(subflow.rack.spared_after_us(now_us))
    else:
        queue.mark_timed_out()
    congestion.on_timeout(is_first)
    congestion.congestion_window = subflow.bytes_on_the_way() + subflow.segment_bytes
    episode.reduction = None
    episode.holds_retransmissions = False
    # RFC 5682 §3.1, step 1, and for the same data again (§3.2).
    episode.may_be_spurious_timeout = (
        is_new or subflow.consecutive_timeouts > 0
    ) and subflow.environment.settings.tcp_frto
    subflow.recovery = Recovery.TIMEOUT
    subflow.recovery_point = subflow.snd_nxt
    subflow.tail_probe = None
