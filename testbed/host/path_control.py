"""Paths of single connections: what may be asked of a host whose path manager is "userspace", and its events.

The words are those of Linux's netlink family mptcp_pm, for every kind of stack. Tokens name connections;
they come with the events.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

from testbed.host.host_stack import HostStackError
from testbed.host.messages import from_json

EventFields = dict[str, object]
"""``event`` (its name) and those of token, family, saddr, sport, daddr, dport, loc_id, rem_id, backup, error,
server_side, deny_join_id0, reset_reason and reset_flags that it has."""


@dataclass(frozen=True, slots=True)
class Announce:
    """ADD_ADDR. Who listens at a port of its own is the caller's affair."""

    token: int
    identifier: int
    address: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Remove:
    """REMOVE_ADDR; the peer closes what uses the address."""

    token: int
    identifier: int


@dataclass(frozen=True, slots=True)
class CreateSubflow:
    token: int
    identifier: int
    local: str
    remote: str
    remote_port: int
    backup: bool = False


@dataclass(frozen=True, slots=True)
class DestroySubflow:
    token: int
    local: str
    local_port: int
    remote: str
    remote_port: int


@dataclass(frozen=True, slots=True)
class SetSubflowFlags:
    """MP_PRIO on one subflow. Ports may be 0, for any."""

    token: int
    local: str
    local_port: int
    remote: str
    remote_port: int
    backup: bool


PathCommand = Announce | Remove | CreateSubflow | DestroySubflow | SetSubflowFlags

COMMANDS: dict[str, type[PathCommand]] = {
    "announce": Announce,
    "remove": Remove,
    "create_subflow": CreateSubflow,
    "destroy_subflow": DestroySubflow,
    "set_subflow_flags": SetSubflowFlags,
}


class PathControl(Protocol):
    """A host's stack, as far as single paths go. Methods raise HostStackError."""

    def carry_out(self, command: PathCommand) -> None: ...

    def watch(self) -> None:
        """From now on events are kept until they are taken, and the peers' joins are let in."""

    def take_events(self) -> list[EventFields]:
        """In their order. Raises when some were lost."""

    def close(self) -> None: ...


class PathRequests:
    """The methods of an agent that are about paths."""

    def __init__(self, control: PathControl) -> None:
        self._control = control

    def methods(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[object]]]:
        return {
            "watch_paths": self._watch,
            "path_events": self._take_events,
            **{name: self._method(kind) for name, kind in COMMANDS.items()},
        }

    def _method(self, kind: type[PathCommand]) -> Callable[[dict[str, Any]], Awaitable[object]]:
        async def carry_out(parameters: dict[str, Any]) -> object:
            command = from_json(kind, parameters)
            check_numbers(command)
            self._control.carry_out(command)
            return {}

        return carry_out

    async def _watch(self, parameters: dict[str, Any]) -> object:
        self._control.watch()
        return {}

    async def _take_events(self, parameters: dict[str, Any]) -> object:
        return self._control.take_events()


_LARGEST = {
    "token": 0xFFFFFFFF,
    "identifier": 255,
    "port": 0xFFFF,
    "local_port": 0xFFFF,
    "remote_port": 0xFFFF,
}


def check_numbers(command: PathCommand) -> None:
    """Raises HostStackError for what no field of a packet could hold."""
    for field in fields(command):
        value, largest = getattr(command, field.name), _LARGEST.get(field.name)
        if largest is not None and value is not None and not 0 <= value <= largest:
            raise HostStackError(f"{field.name}: expected 0 to {largest}, got {value}")
