"""Ports that a host announces for joins (RFC 8684 §3.4.1), which it listens at for nothing else."""

from __future__ import annotations

from collections.abc import Callable
from errno import EADDRNOTAVAIL
from typing import Protocol

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.path_managers.table import Endpoint
from mptcp_stack.wire.addresses import format_address


class JoinListener(Protocol):
    def close(self) -> None: ...


class PortListeners:
    """The listeners of endpoints with a port, by the endpoint's id. None are made until there is one."""

    __slots__ = ("_listeners", "open_listener")

    def __init__(self) -> None:
        self.open_listener: Callable[[bytes, int], JoinListener] | None = None
        """The host's: raises OSError when it can't listen there."""
        self._listeners: dict[int, JoinListener] = {}

    def open(self, address: bytes, port: int) -> JoinListener:
        """Raises ConfigurationError when the port is taken or the address is none of this host."""
        if self.open_listener is None:
            raise RuntimeError("the path manager belongs to no host")
        try:
            return self.open_listener(address, port)
        except OSError as error:
            reason = "no interface has it" if error.errno == EADDRNOTAVAIL else "the port is taken"
            raise ConfigurationError(f"endpoint {format_address(address)} port {port}: {reason}") from None

    def keep(self, identifier: int, listener: JoinListener | None) -> None:
        """Belongs to the endpoint from now on."""
        if listener is not None:
            self._listeners[identifier] = listener

    def close(self, endpoint: Endpoint) -> None:
        listener = self._listeners.pop(endpoint.identifier, None)
        if listener is not None:
            listener.close()
