"""A probe when the end of a flight stays unacknowledged for two round trips (TLP, RFC 8985 §7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.tcp import output
from mptcp_stack.tcp.explicit_congestion import is_window_held
from mptcp_stack.tcp.round_trip import INITIAL_RTO_US
from mptcp_stack.tcp.states import Recovery, State

if TYPE_CHECKING:
    from mptcp_stack.tcp.duplicate_sack import DuplicateReport
    from mptcp_stack.tcp.recovery_phases import Evidence
    from mptcp_stack.tcp.subflow import Subflow

TIMER_SLACK_US = 2_000
"""Linux's TCP_TIMEOUT_MIN_US at its usual 1000 ticks a second."""


class TailProbe:
    """A probe on its way. ``end`` was the next sequence number when it was sent."""

    __slots__ = ("end", "is_retransmission")

    def __init__(self, end: int, *, is_retransmission: bool) -> None:
        self.end = end
        self.is_retransmission = is_retransmission


def timeout_us(subflow: Subflow) -> int | None:
    """How long to wait for an acknowledgement before probing; None when no probe is due (§7.2)."""
    queue = subflow.retransmission_queue
    if (
        not subflow.sack_enabled
        or not len(queue)
        or subflow.recovery is not Recovery.NONE
        or subflow.is_disordered
        or not subflow.environment.settings.tcp_early_retrans
    ):
        return None
    srtt_us = subflow.round_trip.srtt_us
    if srtt_us is None:
        # Before the third packet came, what was lost is the SYN/ACK (RFC 7413 §4.2.2).
        return None if subflow.state is State.SYN_RECEIVED else INITIAL_RTO_US
    is_single = len(queue) == 1 and queue.chunks[0].data_length <= subflow.segment_bytes
    # A single segment may be acknowledged late by rule.
    return 2 * srtt_us + (subflow.round_trip.minimum_rto_us if is_single else TIMER_SLACK_US)


def send(subflow: Subflow, now_us: int) -> bool:
    """§7.3: new data if there is any and the peer's window takes it, else the last segment once more.

    False when there was nothing to do: one probe at a time.
    """
    queue = subflow.retransmission_queue
    if subflow.tail_probe is not None or not len(queue):
        return False
    nxt = subflow.snd_nxt
    if subflow.has_unsent_data() and subflow.window_edge() > nxt:
        if not subflow.send_beyond_window(now_us):
            return False
    else:
        last = queue.last_segment(subflow.segment_bytes)
        if last is None:
            return False
        output.send_again(subflow, last, now_us, is_probe=True)
    subflow.tail_probe = TailProbe(subflow.snd_nxt, is_retransmission=subflow.snd_nxt == nxt)
    subflow.environment.counters.increment("TcpExtTCPLossProbes")
    return True


def on_acknowledgement(
    subflow: Subflow, acknowledgement: int, evidence: Evidence, duplicates: DuplicateReport | None
) -> None:
    """§7.4: what the answer to the probe says. When the probe repaired a loss the window is reduced once."""
    probe = subflow.tail_probe
    if probe is None or acknowledgement < probe.end:
        return
    if not probe.is_retransmission or (duplicates is not None and duplicates.is_of_tail_probe):
        subflow.tail_probe = None
    elif acknowledgement > probe.end:
        subflow.tail_probe = None
        if subflow.recovery is Recovery.NONE and not is_window_held(subflow):
            subflow.congestion.on_loss()
            subflow.congestion.congestion_window = subflow.congestion.slow_start_threshold
            subflow.congestion.on_recovery_end()
        subflow.environment.counters.increment("TcpExtTCPLossProbeRecovery")
    elif not evidence.has_progress and evidence.is_duplicate and not evidence.result.newly_sacked:
        subflow.tail_probe = None
