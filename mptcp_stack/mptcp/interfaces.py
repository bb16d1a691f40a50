"""What a connection asks of its host: the stack, the path manager and the scheduler implement these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mptcp_stack.tcp.fast_open import FastOpenQueue
from mptcp_stack.tcp.socket_options import SocketOptions
from mptcp_stack.wire.mptcp_options import AddAddr

if TYPE_CHECKING:
    from mptcp_stack.mptcp.blackholes import BlackholeMemory
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.mptcp.path_events import PathEvents
    from mptcp_stack.mptcp.subflow import MptcpSubflow


class Acceptor(Protocol):
    """A listener, as a connection sees it that came to it."""

    fast_open: FastOpenQueue | None
    backlog: int
    is_mptcp: bool
    socket_options: SocketOptions

    def on_ready(self, connection: Connection) -> None:
        """It is established and may be handed out."""

    def is_waiting(self, connection: Connection) -> bool:
        """It is ready, and has not been handed out yet."""


class ConnectionHost(Protocol):
    """The stack, as a connection sees it."""

    @property
    def blackholes(self) -> BlackholeMemory:
        """What is known of paths that drop MP_CAPABLE."""

    @property
    def path_events(self) -> PathEvents:
        """Who is told of what happens to connections and subflows."""

    def schedule(self, connection: Connection) -> None:
        """Have ``connection.dispatch`` called soon."""

    def forget(self, connection: Connection) -> None:
        """The connection is over."""

    def free_local_port(self, local: bytes, remote: bytes, remote_port: int) -> int | None:
        """A port for an active open; None when all are taken."""


class PathCounts(NamedTuple):
    """How many paths a connection uses and may use, as ``struct mptcp_info`` tells it."""

    extra_subflows: int = 0
    add_addr_signal: int = 0
    add_addr_accepted: int = 0
    local_addr_used: int = 0
    extra_subflows_limit: int = 0
    add_addr_accepted_limit: int = 0
    signal_endpoints: int = 0
    subflow_endpoints: int = 0
    laminar_endpoints: int = 0
    fullmesh_endpoints: int = 0


class PathManager(Protocol):
    """Decides on addresses and subflows. Counters are the caller's, except for what only it decides."""

    def on_confirmed(self, connection: Connection, now_us: int) -> None:
        """The connection may have more subflows now."""

    def review(self, connection: Connection, now_us: int) -> None:
        """Endpoints or limits have changed since the connection was looked at."""

    def takes_announcements(self, connection: Connection) -> bool:
        """Whether somebody is there to take up ADD_ADDR."""

    def on_address_announced(self, connection: Connection, option: AddAddr, now_us: int) -> None:
        """A genuine ADD_ADDR came in."""

    def on_echo(self, connection: Connection, address_id: int, now_us: int) -> None:
        """The peer has our ADD_ADDR."""

    def on_announcement_dropped(self, connection: Connection, address_id: int) -> None:
        """There is no room for our ADD_ADDR beside TCP's own options, nor will there be."""

    def on_address_removed(self, connection: Connection, address_id: int, now_us: int) -> None:
        """REMOVE_ADDR came in."""

    def on_subflow_closed(self, connection: Connection, subflow: MptcpSubflow, now_us: int) -> None:
        """A join failed or an established one ended."""

    def on_connection_closed(self, connection: Connection) -> None:
        """No more subflows are wanted: the connection is over or has fallen back."""

    def allow_join(self, connection: Connection, subflow: MptcpSubflow) -> bool:
        """Whether a join that has proven itself is taken."""

    def counts(self, connection: Connection) -> PathCounts:
        """For diagnostics."""

    def has_announced(self, connection: Connection, address: bytes, port: int) -> bool:
        """Whether the peer was invited to join at that port."""

    def local_id_for(self, connection: Connection, address: bytes, port: int = 0) -> int:
        """The address id that a local address has on this connection; that of a port, if it has its own."""

    def is_backup(self, address: bytes, port: int = 0) -> bool:
        """Whether subflows that are joined at a local address are to be backups."""


class Scheduler(Protocol):
    """Chooses the subflow for the next run of data (RFC 8684 §3.3.5)."""

    @property
    def sends_copies(self) -> bool:
        """Whether every other subflow with room carries new data as well."""

    def choose(self, subflows: Sequence[MptcpSubflow], for_reinjection: bool) -> MptcpSubflow | None:
        """One that has room now; None when it is better to wait."""
