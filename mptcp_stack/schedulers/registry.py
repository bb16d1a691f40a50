"""The schedulers by name."""

from __future__ import annotations

from collections.abc import Callable

from mptcp_stack.mptcp.interfaces import Scheduler
from mptcp_stack.schedulers.lowest_rtt import LowestRtt
from mptcp_stack.schedulers.redundant import Redundant
from mptcp_stack.schedulers.round_robin import RoundRobin

_FACTORIES: dict[str, Callable[[], Scheduler]] = {
    "default": LowestRtt,
    "roundrobin": RoundRobin,
    "redundant": Redundant,
}


def create_scheduler(name: str) -> Scheduler:
    """For one connection. Raises KeyError for a name that is not in ``settings.SCHEDULERS``."""
    return _FACTORIES[name]()
