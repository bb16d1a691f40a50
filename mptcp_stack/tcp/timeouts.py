"""When a sender's timer has run out: a probe, a verdict on what was late, or a retransmission."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.tcp import output, recovery_phases, retransmission_timer, tail_loss_probe
from mptcp_stack.tcp.retransmission_timer import Purpose
from mptcp_stack.tcp.states import Recovery, State

if TYPE_CHECKING:
    from mptcp_stack.settings import StackSettings
    from mptcp_stack.tcp.subflow import Subflow


def on_fired(subflow: Subflow, now_us: int) -> None:
    """Called when the timer has run out."""
    if not len(subflow.retransmission_queue):
        return
    if subflow.timer_purpose is Purpose.LOSS_PROBE:
        if tail_loss_probe.send(subflow, now_us):
            retransmission_timer.start(subflow, now_us)
        else:
            retransmission_timer.wait_for_head(subflow, now_us)
    elif subflow.timer_purpose is Purpose.REORDERING:
        # Retransmissions follow, which give the first chunk its time.
        retransmission_timer.wait_for_head(subflow, now_us)
        recovery_phases.on_reordering_timer(subflow, now_us)
    else:
        _on_timeout(subflow, now_us)


def _on_timeout(subflow: Subflow, now_us: int) -> None:
    """RFC 6298 §5.4 to §5.7; gives up after the number of tries that the settings allow."""
    queue = subflow.retransmission_queue
    counters = subflow.environment.counters
    counters.increment("TcpExtTCPTimeouts")
    if _is_enough(subflow, now_us):
        if subflow.state is not State.SYN_RECEIVED or not subflow.is_passive:
            counters.increment("TcpExtTCPAbortOnTimeout")
        subflow.time_out(now_us)
        return
    is_handshake = subflow.state in (State.SYN_SENT, State.SYN_RECEIVED)
    if is_handshake:
        subflow.syn_retransmissions += 1
        queue.mark_timed_out()
    else:
        _count_failure(subflow)
        recovery_phases.on_timeout(subflow, now_us)
    subflow.consecutive_timeouts += 1
    first = queue.next_lost(subflow.segment_bytes, subflow.segment_bytes)
    if first is not None:
        output.send_again(subflow, first, now_us)
    if subflow.state is not State.SYN_SENT or subflow.syn_retransmissions > output.LINEAR_SYN_TIMEOUTS:
        subflow.round_trip.back_off()
    retransmission_timer.start(subflow, now_us)
    subflow.on_timeout(now_us)


def _count_failure(subflow: Subflow) -> None:
    """What the timeout came after, when it is the first for its data."""
    if subflow.consecutive_timeouts:
        return
    kind = "Sack" if subflow.sack_enabled else "Reno"
    if subflow.recovery is Recovery.FAST:
        name = f"TcpExtTCP{kind}RecoveryFail"
    elif subflow.recovery is Recovery.TIMEOUT:
        name = "TcpExtTCPLossFailures"
    elif subflow.is_disordered:
        name = f"TcpExtTCP{kind}Failures"
    else:
        return
    subflow.environment.counters.increment(name)


def _is_enough(subflow: Subflow, now_us: int) -> bool:
    """Whether to give up: a handshake by its number of tries, a connection by the time they have taken."""
    settings = subflow.environment.settings
    if subflow.state is State.SYN_SENT:
        return subflow.consecutive_timeouts >= settings.tcp_syn_retries
    if subflow.state is State.SYN_RECEIVED:
        return subflow.consecutive_timeouts >= subflow.answers_to_send()
    retries = settings.tcp_retries2
    if subflow.is_orphan:
        retries = output.orphan_limit(settings, subflow.round_trip.rto_us < settings.maximum_rto_us)
    first_again_ms = subflow.episode.first_again_ms if subflow.episode is not None else None
    if not subflow.consecutive_timeouts or first_again_ms is None:
        return False
    return now_us // 1000 - first_again_ms >= _patience_us(settings, retries) // 1000


def _patience_us(settings: StackSettings, retries: int) -> int:
    """How long so many retransmissions take on the fastest path: Linux waits as long on every one."""
    shortest_us, longest_us = settings.minimum_rto_us, settings.maximum_rto_us
    doublings = (longest_us // shortest_us).bit_length() - 1
    if retries <= doublings:
        return ((2 << retries) - 1) * shortest_us
    return ((2 << doublings) - 1) * shortest_us + (retries - doublings) * longest_us
