"""Of the subflows with room, the one with the lowest round-trip time.

The default of the MPTCP implementations before the one in Linux 5.6; see Paasch et al., "Experimental
Evaluation of Multipath TCP Schedulers" (2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mptcp_stack.mptcp.subflow import MptcpSubflow
from mptcp_stack.schedulers.selection import candidates, has_room, quickest


class LowestRtt:
    """Has no state: the same subflows give the same choice."""

    __slots__ = ()

    sends_copies: ClassVar[bool] = False

    def choose(self, subflows: Sequence[MptcpSubflow], for_reinjection: bool) -> MptcpSubflow | None:
        return quickest([subflow for subflow in candidates(subflows) if has_room(subflow, for_reinjection)])
