"""What a host tells of its MPTCP sockets: listeners that match, as ss(8) filters; how many are in use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from testbed.host.host_stack import HostStack
from testbed.host.messages import from_json
from testbed.host.protocol import ListenerMatch
from testbed.host.rpc_server import RequestError


@dataclass(frozen=True, slots=True)
class _Nothing:
    """A method without parameters."""


class ListingRequests:
    """The methods of an agent that are about its MPTCP sockets as a whole."""

    def __init__(self, stack: HostStack) -> None:
        self._stack = stack

    def methods(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[object]]]:
        return {"listeners": self._listeners, "sockets_in_use": self._sockets_in_use}

    async def _listeners(self, parameters: dict[str, Any]) -> object:
        match = from_json(ListenerMatch, parameters)
        if match.local_address is not None:
            try:
                ip_address(match.local_address)
            except ValueError as error:
                raise RequestError(f"local_address: {error}") from None
        return await self._stack.listeners(match)

    async def _sockets_in_use(self, parameters: dict[str, Any]) -> object:
        from_json(_Nothing, parameters)
        return self._stack.sockets_in_use()
