"""When a sender's timer has run out: a probe, a verdict on what was late, or a retransmission."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.tcp import (
    fast_open,
    giving_up,
    mtu_probing,
    output,
    recovery_phases,
    retransmission_timer,
    tail_loss_probe,
)
from mptcp_stack.tcp.fast_open import BLACKHOLE_TIMEOUTS
from mptcp_stack.tcp.retransmission_timer import Purpose
from mptcp_stack.tcp.states import Recovery, State

if TYPE_CHECKING:
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
    if giving_up.is_enough(subflow, now_us):
        counters.increment("TcpExtTCPAbortOnTimeout")
        subflow.time_out(now_us)
        return
    linear_timeouts = subflow.environment.settings.tcp_syn_linear_timeouts
    is_handshake = subflow.state in (State.SYN_SENT, State.SYN_RECEIVED)
    if is_handshake:
        subflow.syn_retransmissions += 1
        queue.mark_timed_out()
    else:
        if giving_up.is_path_in_doubt(subflow, now_us):
            mtu_probing.on_path_in_doubt(subflow, now_us)
        _count_failure(subflow)
        recovery_phases.on_timeout(subflow, now_us)
    if not subflow.consecutive_timeouts:
        # As for Linux an attempt to connect began with its SYN, other waiting with the first repetition.
        subflow.first_timeout_us = queue.chunks[0].sent_us if subflow.state is State.SYN_SENT else now_us
    subflow.consecutive_timeouts += 1
    if subflow.fast_open is not None and subflow.consecutive_timeouts == BLACKHOLE_TIMEOUTS:
        fast_open.on_timeout(subflow, subflow.fast_open, now_us)
    first = queue.next_lost(subflow.segment_bytes, subflow.segment_bytes)
    if first is not None:
        output.send_again(subflow, first, now_us)
    if subflow.state is not State.SYN_SENT or subflow.syn_retransmissions > linear_timeouts:
        subflow.round_trip.back_off()
    wait_us = giving_up.clamp_wait_us(subflow, subflow.round_trip.rto_us, now_us)
    retransmission_timer.fire_in(subflow, wait_us, now_us)


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
