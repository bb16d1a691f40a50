"""ECF: what waits is kept for the quicker subflow when that will be done with it before the slower one.

Lim, Nahum, Towsley, Gibbens, "ECF: An MPTCP Path Scheduler to Manage Heterogeneous Paths" (CoNEXT 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mptcp_stack.mptcp.subflow import MptcpSubflow
from mptcp_stack.schedulers.selection import candidates, has_room, quickest, round_trip_us

HYSTERESIS_DIVISOR = 4
"""The paper's beta of 0.25: who waits already goes on waiting a little longer."""


class EarliestCompletion:
    """Belongs to one connection: it knows whether it waits."""

    __slots__ = ("_is_waiting",)

    sends_copies: ClassVar[bool] = False

    def __init__(self) -> None:
        self._is_waiting = False

    def choose(self, subflows: Sequence[MptcpSubflow], for_reinjection: bool) -> MptcpSubflow | None:
        active = candidates(subflows)
        best = quickest([subflow for subflow in active if has_room(subflow, for_reinjection)])
        quick = quickest(active)
        if best is None or quick is None or best is quick or for_reinjection:
            return best
        if not quick.retransmission_queue.bytes_in_flight or quick.round_trip.srtt_us is None:
            return best
        return None if self._waits_for(quick, best) else best

    def _waits_for(self, quick: MptcpSubflow, slow: MptcpSubflow) -> bool:
        """The paper's algorithm 1, each comparison multiplied by the congestion window in it.

        What waits counts as a window at least: as in the authors' code, a part takes a round trip as well.
        """
        waiting = quick.connection.send_buffer.unsent.length
        quick_us, slow_us = round_trip_us(quick), round_trip_us(slow)
        variation_us = max(quick.round_trip.rttvar_us, slow.round_trip.rttvar_us)
        quick_window = quick.congestion.congestion_window
        patience_us = slow_us + variation_us
        if self._is_waiting:
            patience_us += patience_us // HYSTERESIS_DIVISOR
        slow_window = slow.congestion.congestion_window
        if (quick_window + max(waiting, quick_window)) * quick_us >= patience_us * quick_window:
            self._is_waiting = False
            return False
        if max(waiting, slow_window) * slow_us < (2 * quick_us + variation_us) * slow_window:
            return False
        self._is_waiting = True
        return True
