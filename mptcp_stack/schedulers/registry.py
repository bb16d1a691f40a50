"""The schedulers by name."""

from __future__ import annotations

from collections.abc import Callable

from mptcp_stack.mptcp.interfaces import Scheduler
from mptcp_stack.schedulers.blest import Blest
from mptcp_stack.schedulers.earliest_completion import EarliestCompletion
from mptcp_stack.schedulers.lowest_rtt import LowestRtt
from mptcp_stack.schedulers.redundant import Redundant
from mptcp_stack.schedulers.round_robin import RoundRobin
from mptcp_stack.schedulers.time_to_empty import TimeToEmpty

_FACTORIES: dict[str, Callable[[], Scheduler]] = {
    "default": TimeToEmpty,
    "lowestrtt": LowestRtt,
    "roundrobin": RoundRobin,
    "redundant": Redundant,
    "blest": Blest,
    "ecf": EarliestCompletion,
}


def create_scheduler(name: str) -> Scheduler:
    """For one connection. Raises KeyError for a name that is not in ``settings.SCHEDULERS``."""
    return _FACTORIES[name]()
