"""What a sender may do when a slow subflow keeps the window of the connection closed for a quick one.

Mechanisms 1 and 2 of Raiciu et al., "How Hard Can It Be? Designing and Implementing a Deployable Multipath
TCP" (NSDI 2012): the data at the window's left edge goes out once more on the quick subflow, and the subflow
that holds it up has its congestion window halved, once in a round trip of the quick one at most. Linux has
neither; each has a setting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.mptcp.states import Mode

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.mptcp.subflow import MptcpSubflow


def unblock(connection: Connection, ready: MptcpSubflow, now_us: int) -> bool:
    """A subflow has room, but nothing leaves. True when there is data to be sent again for that."""
    settings, buffer = connection.environment.settings, connection.send_buffer
    if not (settings.opportunistic_retransmission or settings.penalise_slow_subflows):
        return False
    if buffer.window_edge - buffer.nxt >= ready.segment_bytes:
        # It isn't the window that keeps it.
        return False
    blocking = buffer.blocking_run()
    if connection.mode is not Mode.MPTCP or blocking is None or blocking.is_queued_again:
        return False
    slow = blocking.carrier
    quick = connection.scheduler.choose(connection.subflows, for_reinjection=True)
    if quick is None or quick is slow or not _is_quicker(quick, slow):
        return False
    if settings.penalise_slow_subflows:
        _penalise(slow, quick, now_us)
    if settings.opportunistic_retransmission:
        connection.send_buffer.queue_blocking_run()
    return settings.opportunistic_retransmission


def _is_quicker(quick: MptcpSubflow, slow: MptcpSubflow) -> bool:
    quick_us, slow_us = quick.round_trip.srtt_us, slow.round_trip.srtt_us
    return quick_us is not None and slow_us is not None and quick_us < slow_us


def _penalise(slow: MptcpSubflow, quick: MptcpSubflow, now_us: int) -> None:
    if now_us - slow.penalised_at_us < (quick.round_trip.srtt_us or 0):
        return
    slow.penalised_at_us = now_us
    congestion = slow.congestion
    if not congestion.is_in_slow_start:
        least = 2 * slow.segment_bytes
        congestion.slow_start_threshold = max(congestion.slow_start_threshold // 2, least)
    congestion.congestion_window = max(congestion.congestion_window // 2, slow.segment_bytes)
