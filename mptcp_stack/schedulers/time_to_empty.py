"""The default scheduler: the subflow that will be done soonest with what it carries, as in Linux.

Linux hands it a burst of what waits, beyond the congestion window if need be. A subflow holds nothing unsent
here, so the rest of its burst waits for it, and so does what it would be given until the first subflow with
room would be done. Without anything on its way anywhere the first subflow is the one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mptcp_stack.mptcp.subflow import MptcpSubflow
from mptcp_stack.schedulers.selection import candidates, has_room, quickest
from mptcp_stack.tcp import pacing

SECOND_US = 1_000_000
BURST_BYTES = 65428


class TimeToEmpty:
    """Belongs to one connection: it knows whose burst is being sent."""

    __slots__ = ("_burst_end", "_owner")

    sends_copies: ClassVar[bool] = False

    def __init__(self) -> None:
        self._owner: MptcpSubflow | None = None
        self._burst_end = 0
        """The owner's sequence number after its burst."""

    def choose(self, subflows: Sequence[MptcpSubflow], for_reinjection: bool) -> MptcpSubflow | None:
        active = candidates(subflows)
        ready = [subflow for subflow in active if has_room(subflow, for_reinjection)]
        if len(active) < 2 or not ready:
            return ready[0] if ready else None
        if for_reinjection:
            return quickest(ready)
        waiting = active[0].connection.send_buffer.unsent.length
        owner, burst_left = self._owner, 0
        if owner is not None and owner in active:
            burst_left = min(waiting, self._burst_end - owner.snd_nxt)
        if burst_left > 0 and owner in ready:
            return owner
        return self._next(active, ready, waiting, max(0, burst_left))

    def _next(
        self, active: Sequence[MptcpSubflow], ready: list[MptcpSubflow], waiting: int, burst_left: int
    ) -> MptcpSubflow | None:
        """The owner, if its burst is not over, is not among the ready."""
        best = min(ready, key=_time_to_empty_us)
        limit_us = _time_to_empty_us(best)
        sooner_bytes = burst_left
        for other in active:
            if not other.retransmission_queue.bytes_in_flight:
                continue
            sooner_us = limit_us - _time_to_empty_us(other, burst_left if other is self._owner else 0)
            sooner_bytes += max(0, sooner_us) * pacing_rate(other) // SECOND_US
        if waiting <= sooner_bytes:
            return None
        if not burst_left:
            self._owner = best
            self._burst_end = best.snd_nxt + min(BURST_BYTES, waiting)
        return best


def pacing_rate(subflow: MptcpSubflow) -> int:
    """Bytes per second, as Linux paces; 0 while no round trip is known."""
    return pacing.rate(subflow) if subflow.round_trip.srtt_us else 0


def _time_to_empty_us(subflow: MptcpSubflow, waiting_bytes: int = 0) -> int:
    held_bytes = subflow.snd_nxt - subflow.snd_una + waiting_bytes
    rate = pacing_rate(subflow)
    return held_bytes * SECOND_US // rate if rate else 0
