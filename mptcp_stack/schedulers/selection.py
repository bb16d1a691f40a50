"""What schedulers have in common: who may carry data, who has room, how quick a subflow is.

Backup subflows carry data only when no other lives (RFC 8684 §3.3.8), and one whose retransmission timer
has fired only when there is no better.
"""

from __future__ import annotations

from collections.abc import Sequence

from mptcp_stack.mptcp.subflow import MptcpSubflow

UNKNOWN_ROUND_TRIP_US = 1 << 40


def candidates(subflows: Sequence[MptcpSubflow]) -> Sequence[MptcpSubflow]:
    """The best class of subflows that has any member, whether it has room or not."""
    usable = [subflow for subflow in subflows if subflow.is_usable]
    if len(usable) < 2:
        return usable
    living = [subflow for subflow in usable if not subflow.is_stale]
    regular = [subflow for subflow in living if not subflow.counts_as_backup]
    answering = [subflow for subflow in regular if not subflow.consecutive_timeouts]
    return answering or regular or living or usable


def has_room(subflow: MptcpSubflow, for_reinjection: bool) -> bool:
    """For a full segment or all that waits, or for anything when nothing is in flight."""
    room = subflow.sendable_bytes()
    if room >= subflow.segment_bytes or (room > 0 and not subflow.retransmission_queue.bytes_in_flight):
        return True
    return not for_reinjection and 0 < subflow.connection.send_buffer.unsent.length <= room


def round_trip_us(subflow: MptcpSubflow) -> int:
    estimate = subflow.round_trip.srtt_us
    return UNKNOWN_ROUND_TRIP_US if estimate is None else estimate


def quickest(subflows: Sequence[MptcpSubflow]) -> MptcpSubflow | None:
    """The first of those with the lowest round-trip time."""
    return min(subflows, key=round_trip_us, default=None)
