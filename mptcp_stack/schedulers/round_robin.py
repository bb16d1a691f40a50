"""Round robin: one run of data each, in turn, of the subflows that have room.

As in Paasch et al., "Experimental Evaluation of Multipath TCP Schedulers" (2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mptcp_stack.mptcp.subflow import MptcpSubflow
from mptcp_stack.schedulers.selection import candidates, has_room


class RoundRobin:
    """Belongs to one connection: it knows whose turn it was."""

    __slots__ = ("_latest_identifier",)

    sends_copies: ClassVar[bool] = False

    def __init__(self) -> None:
        self._latest_identifier = -1

    def choose(self, subflows: Sequence[MptcpSubflow], for_reinjection: bool) -> MptcpSubflow | None:
        ready = [subflow for subflow in candidates(subflows) if has_room(subflow, for_reinjection)]
        if not ready:
            return None
        # Those after the latest come first, then those before it.
        latest = self._latest_identifier
        chosen = min(ready, key=lambda subflow: (subflow.identifier <= latest, subflow.identifier))
        self._latest_identifier = chosen.identifier
        return chosen
