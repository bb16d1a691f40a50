"""What an agent asks of its host's stack, whichever kind it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from testbed.host.protocol import EndpointRequest, ListenerMatch, NetworkChange
from testbed.host.streams import StreamNetwork

if TYPE_CHECKING:
    from testbed.host.path_control import PathControl


class HostStackError(Exception):
    """The stack refused; the message is for the user."""


class HostStack(Protocol):
    """Every method may raise HostStackError."""

    @property
    def network(self) -> StreamNetwork: ...

    def counters(self) -> dict[str, int]:
        """Every counter under nstat's names, zeros included."""

    async def sockets(self) -> str:
        """The states of all sockets, for diagnostics."""

    async def listeners(self, match: ListenerMatch) -> list[str]:
        """The MPTCP listeners that match, one line for each."""

    def sockets_in_use(self) -> int:
        """MPTCP sockets that listen or have a token: the column "sockets" of /proc/net/protocols."""

    async def reach(self, address: str, timeout_us: int) -> int | None:
        """The microseconds until an echo request is answered; None when it is not in time."""

    def limits(self) -> tuple[int, int]:
        """(subflows, add_addr_accepted)."""

    def set_limits(self, subflows: int, add_addr_accepted: int) -> None: ...

    def add_endpoint(self, endpoint: EndpointRequest) -> int:
        """Returns the identifier."""

    def delete_endpoint(self, identifier: int, address: str | None) -> None: ...

    def flush_endpoints(self) -> None: ...

    def endpoints(self) -> list[EndpointRequest]: ...

    def set_endpoint_flags(self, flags: tuple[str, ...], identifier: int | None, address: str | None) -> None:
        """Sets exactly these of "backup" and "fullmesh"."""

    def set_interface(self, name: str, up: bool) -> None: ...

    def change_network(self, change: NetworkChange) -> None:
        """Addresses and routes of a stack that has its own."""

    @property
    def paths(self) -> PathControl: ...

    def close(self) -> None: ...
