"""BLEST: a slow subflow gets data only if that will not block the quick one by the common window.

Ferlin, Alay, Mehani, Boreli, "BLEST: Blocking Estimation-based MPTCP Scheduler for Heterogeneous Networks"
(IFIP Networking 2016). What the quick subflow could send until an acknowledgement comes over the slow one is
estimated, and must still fit into the window that the slow one leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mptcp_stack.mptcp.subflow import MptcpSubflow
from mptcp_stack.schedulers.selection import candidates, has_room, quickest, round_trip_us

FIRST_SCALE_PERCENT = 120
SCALE_RANGE_PERCENT = (100, 130)
"""The paper's lambda corrects the estimate; its authors' kernel keeps it within these."""
GROWTH_PERCENT = 4
DECAY_PERCENT = 1


class Blest:
    """Belongs to one connection: the scale of its estimates follows what had to be sent again."""

    __slots__ = ("_latest_retransmissions", "_scale_at_us", "scale_percent")

    sends_copies: ClassVar[bool] = False

    def __init__(self) -> None:
        self.scale_percent = FIRST_SCALE_PERCENT
        self._scale_at_us = self._latest_retransmissions = 0

    def choose(self, subflows: Sequence[MptcpSubflow], for_reinjection: bool) -> MptcpSubflow | None:
        active = candidates(subflows)
        best = quickest([subflow for subflow in active if has_room(subflow, for_reinjection)])
        quick = quickest(active)
        if best is None or quick is None or best is quick or for_reinjection:
            return best
        self._adapt(best)
        if not quick.retransmission_queue.bytes_in_flight or quick.round_trip.srtt_us is None:
            return best
        window = best.connection.send_buffer.window_edge - best.connection.send_buffer.una
        slow_bytes = best.snd_nxt - best.snd_una + best.segment_bytes
        needed = self._bytes_meanwhile(quick, best) * self.scale_percent // 100
        return best if needed <= window - slow_bytes else None

    def _bytes_meanwhile(self, quick: MptcpSubflow, slow: MptcpSubflow) -> int:
        """What the quick subflow sends in a round trip of the slow one, growing as it does.

        The paper's X = MSS·(CWND + (ratio - 1)/2)·ratio.
        """
        quick_us, slow_us = round_trip_us(quick), round_trip_us(slow)
        window = quick.congestion.congestion_window * 2 * quick_us + quick.segment_bytes * (
            slow_us - quick_us
        )
        return window * slow_us // (2 * quick_us * quick_us)

    def _adapt(self, slow: MptcpSubflow) -> None:
        """Once in a round trip of the slow subflow."""
        now_us = slow.environment.timers.clock_us
        if now_us < self._scale_at_us:
            return
        self._scale_at_us = now_us + round_trip_us(slow)
        retransmissions = slow.connection.data_retransmissions
        change = GROWTH_PERCENT if retransmissions > self._latest_retransmissions else -DECAY_PERCENT
        self._latest_retransmissions = retransmissions
        lowest, highest = SCALE_RANGE_PERCENT
        self.scale_percent = min(highest, max(lowest, self.scale_percent + change))
