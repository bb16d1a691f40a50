"""The path manager that follows endpoints and limits, as ``ip mptcp`` means them.

An endpoint with ``signal`` is announced to the peer (ADD_ADDR), one address at a time: the next when the
echo came or the repetitions ended. One with ``subflow`` is used for a further subflow to the peer's initial
address; with ``fullmesh`` to every address of the peer that is in use or announced; one with ``laminar`` for
one address that the peer announces, in place of what the routes would choose. ``backup`` marks the subflows
made from an endpoint. Addresses that the peer announces are connected to while the limits allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.mptcp.interfaces import PathCounts
from mptcp_stack.mptcp.subflow import MptcpSubflow
from mptcp_stack.path_managers.announcing import (
    ADD_ADDR_RETRANSMISSIONS,
    Announcement,
    close_removed,
    close_subflows_to,
    send_announcement,
    signalling_subflow,
    signed_address,
)
from mptcp_stack.path_managers.ports import PortListeners
from mptcp_stack.path_managers.table import Endpoint, EndpointTable
from mptcp_stack.tcp.environment import Environment
from mptcp_stack.wire.addresses import is_link_local, is_multicast, unmap
from mptcp_stack.wire.mptcp_options import AddAddr, MpPrio, RemoveAddr

MAXIMUM_LIMIT = 8
"""That of Linux 6.18; later kernels take more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Extra subflows of a connection, and how many announced addresses it takes up. Linux's defaults."""

    subflows: int = 2
    add_addr_accepted: int = 0


@dataclass(slots=True)
class ConnectionPaths:
    """What the path manager knows of one connection; that without endpoints is little, and small."""

    extra_subflows: int = 0
    add_addr_accepted: int = 0
    used_endpoints: frozenset[int] = frozenset()
    announced: frozenset[int] = frozenset()
    announced_ends: frozenset[tuple[bytes, int]] = frozenset()
    accepted_ids: frozenset[int] = frozenset()
    announcement: Announcement | None = None
    initial_endpoint: int = 0
    """That of the first subflow: marked as announced, which it was not."""
    is_confirmed: bool = False


class EndpointPathManager:
    """The ``PathManager`` that a stack has unless it is given another one."""

    __slots__ = ("_connections", "_environment", "_paths", "_table", "limits", "port_listeners")

    def __init__(self, environment: Environment, connections: Callable[[], Iterable[Connection]]) -> None:
        self._environment = environment
        self._connections = connections
        self._table = EndpointTable()
        self.port_listeners = PortListeners()
        self._paths: dict[Connection, ConnectionPaths] = {}
        self.limits = Limits()

    @property
    def known_connections(self) -> int:
        """Of how many connections something is kept."""
        return len(self._paths)

    # --- what users say ---

    def set_limits(self, subflows: int, add_addr_accepted: int) -> None:
        """Raises ConfigurationError for a number outside 0 to 8."""
        for name, value in (("subflows", subflows), ("add_addr_accepted", add_addr_accepted)):
            if not 0 <= value <= MAXIMUM_LIMIT:
                raise ConfigurationError(f"limit {name}: expected 0 to {MAXIMUM_LIMIT}, got {value}")
        self.limits = Limits(subflows, add_addr_accepted)
        for connection in self._open_connections():
            connection.request_path_review()

    def endpoints(self) -> list[Endpoint]:
        return self._table.all()

    def add_endpoint(
        self,
        address: bytes,
        *,
        flags: frozenset[str] = frozenset(),
        interface: str | None = None,
        identifier: int | None = None,
        port: int | None = None,
    ) -> int:
        """Returns the id. Raises ConfigurationError, with the kernel's rules for what goes together."""
        address = unmap(address)
        self._table.check(address, flags, identifier, port)
        listener = None if port is None else self.port_listeners.open(address, port)
        chosen = self._table.add(address, flags, interface, identifier, port)
        self.port_listeners.keep(chosen, listener)
        for connection in self._open_connections():
            connection.request_path_review()
        return chosen

    def delete_endpoint(self, identifier: int, address: bytes | None = None) -> None:
        """Withdraws the address everywhere and closes what runs over it.

        Id 0 with an address means the initial subflows from there. Raises ConfigurationError when unknown.
        """
        now_us = self._environment.timers.clock_us
        address = None if address is None else unmap(address)
        if identifier == 0:
            for connection in self._open_connections():
                if address is None or connection.local[0] == address:
                    self._withdraw(connection, 0, True, now_us)
            return
        endpoint = self._table.delete(identifier, address)
        self.port_listeners.close(endpoint)
        for connection in self._open_connections():
            self._forget_end(connection, endpoint)
            local_id = 0 if endpoint.is_at(*connection.local) else identifier
            self._withdraw(connection, local_id, not endpoint.is_implicit, now_us, identifier)

    def flush_endpoints(self) -> None:
        """As Linux has it: one REMOVE_ADDR for all that was announced, and the subflows close."""
        endpoints = self._table.flush()
        for endpoint in endpoints:
            self.port_listeners.close(endpoint)
        now_us = self._environment.timers.clock_us
        for connection in self._open_connections():
            paths = self._paths_of(connection)
            paths.announced_ends = frozenset()
            addresses = {endpoint.address for endpoint in endpoints}
            announced = tuple(
                endpoint.identifier
                for endpoint in endpoints
                if _forget(paths, endpoint.identifier) and not endpoint.is_at(*connection.local)
            )
            leaving = [subflow for subflow in connection.subflows if subflow.local in addresses]
            self._remove(connection, announced, leaving, now_us)

    def set_flags(self, identifier: int, flags: frozenset[str]) -> None:
        """Sets exactly these of backup and fullmesh. Raises ConfigurationError when that is not possible.

        The peers learn of backup by MP_PRIO; for fullmesh the subflows are made anew.
        """
        endpoint, changed = self._table.change(identifier, flags)
        is_backup = "backup" in endpoint.flags
        now_us = self._environment.timers.clock_us
        for connection in self._open_connections():
            own = [subflow for subflow in connection.subflows if subflow.local == endpoint.address]
            # Linux tells of the first only, and by the form that speaks of just that one.
            if own and "backup" in changed:
                self._set_priority(own[0], is_backup, now_us)
            if "fullmesh" in changed and "subflow" in endpoint.flags:
                self._paths_of(connection).used_endpoints -= {identifier}
                self._remove(connection, (), own, now_us)
                connection.request_path_review()

    def _set_priority(self, subflow: MptcpSubflow, is_backup: bool, now_us: int) -> None:
        subflow.is_backup = is_backup
        subflow.signal(MpPrio(is_backup, None), now_us)

    # --- what connections tell ---

    def _open_connections(self) -> list[Connection]:
        return [
            connection
            for connection in self._connections()
            if connection.path_manager is self and connection.is_open_for_joins
        ]

    def _paths_of(self, connection: Connection) -> ConnectionPaths:
        paths = self._paths.get(connection)
        if paths is None:
            paths = self._paths[connection] = ConnectionPaths()
        return paths

    def on_confirmed(self, connection: Connection, now_us: int) -> None:
        paths = self._paths_of(connection)
        endpoint = self._table.at(*connection.local)
        if endpoint is not None:
            # The initial subflow's address needs neither a subflow nor an announcement of its own.
            paths.used_endpoints |= {endpoint.identifier}
            paths.announced |= {endpoint.identifier}
            paths.initial_endpoint = endpoint.identifier
            if "backup" in endpoint.flags:
                for subflow in connection.subflows:
                    self._set_priority(subflow, True, now_us)
        if not connection.is_client:
            self._miss_subflows(connection, paths)
        paths.is_confirmed = True
        self._use_paths(connection, now_us)

    def _miss_subflows(self, connection: Connection, paths: ConnectionPaths) -> None:
        """A connection that nobody has accepted yet can't have a socket made for it: Linux misses these."""
        if connection.peer_denies_join_initial or not self.limits.subflows:
            return
        for endpoint in self._table.all():
            if "subflow" not in endpoint.flags or endpoint.identifier in paths.used_endpoints:
                continue
            paths.used_endpoints |= {endpoint.identifier}
            for _ in self._targets(connection, endpoint):
                self._environment.counters.increment("MPTcpExtMPJoinSynTxCreatSkErr")

    def review(self, connection: Connection, now_us: int) -> None:
        self._use_paths(connection, now_us)

    def on_connection_closed(self, connection: Connection) -> None:
        paths = self._paths.pop(connection, None)
        if paths is not None and paths.announcement is not None:
            paths.announcement.timer.cancel()

    def _use_paths(self, connection: Connection, now_us: int) -> None:
        """Announces the next address, then opens the subflows that the limits allow."""
        if not connection.is_open_for_joins:
            # Nor may a connection that is over be entered into the table again.
            return
        paths = self._paths_of(connection)
        if paths.is_confirmed:
            self._announce_next(connection, paths, now_us)
            self._open_subflows(connection, paths)

    # --- subflows from our own endpoints ---

    def _open_subflows(self, connection: Connection, paths: ConnectionPaths) -> None:
        if connection.peer_denies_join_initial:
            return
        for endpoint in self._table.all():
            if paths.extra_subflows >= self.limits.subflows:
                return
            if "subflow" not in endpoint.flags or endpoint.identifier in paths.used_endpoints:
                continue
            paths.used_endpoints |= {endpoint.identifier}
            for remote, remote_id in self._targets(connection, endpoint):
                if paths.extra_subflows < self.limits.subflows:
                    self._open(connection, paths, endpoint.address, endpoint, remote, remote_id)

    def _targets(self, connection: Connection, endpoint: Endpoint) -> list[tuple[tuple[bytes, int], int]]:
        """Where an endpoint's subflows go: the initial address or, with fullmesh, all that are in use."""
        candidates = [(connection.remote, 0)]
        if "fullmesh" in endpoint.flags:
            local_id = self.local_id_for(connection, endpoint.address)
            staying = [other for other in connection.subflows if not other.fin_wanted]
            reached = {other.remote_id for other in staying if other.local_id == local_id}
            ends = {
                other.remote_id: (other.remote, other.remote_port)
                for other in reversed(staying)
                if other.remote_id not in reached
            }
            candidates = [(remote, remote_id) for remote_id, remote in reversed(ends.items())]
        return [each for each in candidates if self._families_match(connection, endpoint.address, each[0][0])]

    def _families_match(self, connection: Connection, local: bytes, remote: bytes) -> bool:
        """One family in a subflow; an IPv4 socket has IPv4 subflows only (as Linux has it)."""
        return len(local) == len(remote) and (connection.is_ipv6_socket or len(local) == 4)

    def _open(
        self,
        connection: Connection,
        paths: ConnectionPaths,
        local: bytes,
        endpoint: Endpoint | None,
        remote: tuple[bytes, int],
        remote_id: int,
    ) -> bool:
        counters = self._environment.counters
        if not self._environment.ip.is_local(local):
            counters.increment("MPTcpExtMPJoinSynTxBindErr")
            return False
        if is_multicast(remote[0]) or self._environment.ip.route_for(remote[0], local) is None:
            counters.increment("MPTcpExtMPJoinSynTxConnectErr")
            return False
        port = connection.host.free_local_port(local, *remote)
        if port is None:
            counters.increment("MPTcpExtMPJoinSynTxBindErr")
            return False
        local_id = self.local_id_for(connection, local)
        paths.extra_subflows += 1
        is_backup = endpoint is not None and "backup" in endpoint.flags
        connection.open_join((local, port), local_id, remote, remote_id, is_backup)
        return True

    def on_subflow_closed(self, connection: Connection, subflow: MptcpSubflow, now_us: int) -> None:
        paths = self._paths.get(connection)
        if paths is None:
            return
        if subflow.is_join and (subflow.was_established or not subflow.is_passive):
            paths.extra_subflows -= 1
        # It leaves room for the next endpoint.
        self._use_paths(connection, now_us)

    # --- announcing ---

    def _announce_next(self, connection: Connection, paths: ConnectionPaths, now_us: int) -> None:
        if paths.announcement is not None:
            return
        for endpoint in self.endpoints():
            if "signal" in endpoint.flags and endpoint.identifier not in paths.announced:
                paths.announced |= {endpoint.identifier}
                if len(endpoint.address) == 16 and not connection.is_ipv6_socket:
                    continue
                if endpoint.port is not None:
                    paths.announced_ends |= {(endpoint.address, endpoint.port)}
                # The first subflow's address has the id 0, though it be added again (RFC 8684 §3.2).
                address_id = 0 if endpoint.is_at(*connection.local) else endpoint.identifier
                option = signed_address(connection, address_id, endpoint.address, endpoint.port)
                timer = self._environment.timers.timer(lambda at_us: self._repeat(connection, at_us))
                paths.announcement = Announcement(option, timer)
                send_announcement(connection, paths.announcement, now_us)
                return

    def _repeat(self, connection: Connection, now_us: int) -> None:
        """ADD_ADDR is repeated three times; then the next address has its turn."""
        paths = self._paths_of(connection)
        announcement = paths.announcement
        if announcement is None:
            return
        announcement.tries += 1
        if announcement.tries <= ADD_ADDR_RETRANSMISSIONS:
            send_announcement(connection, announcement, now_us)
        else:
            paths.announcement = None
            self._use_paths(connection, now_us)

    def on_echo(self, connection: Connection, address_id: int, now_us: int) -> None:
        paths = self._paths_of(connection)
        announcement = paths.announcement
        if announcement is not None and announcement.option.address_id == address_id:
            announcement.timer.cancel()
            paths.announcement = None
            self._use_paths(connection, now_us)

    def on_announcement_dropped(self, connection: Connection, address_id: int) -> None:
        paths = self._paths_of(connection)
        announcement = paths.announcement
        if announcement is not None and announcement.option.address_id == address_id:
            announcement.timer.cancel()
            paths.announcement = None
            connection.request_path_review()

    # --- addresses of the peer ---

    def takes_announcements(self, connection: Connection) -> bool:
        return True

    def on_address_announced(self, connection: Connection, option: AddAddr, now_us: int) -> None:
        paths = self._paths_of(connection)
        if not connection.is_open_for_joins or option.address_id in paths.accepted_ids:
            return
        # Linux may announce an address of IPv4 in the form of IPv6.
        address = unmap(option.address)
        own = self._endpoints_for_denying_peer(connection, paths, address)
        if not own and paths.add_addr_accepted >= self.limits.add_addr_accepted:
            return
        if paths.extra_subflows >= self.limits.subflows:
            return
        remote = (address, option.port if option.port is not None else connection.remote[1])
        if any((subflow.remote, subflow.remote_port) == remote for subflow in connection.subflows):
            return
        opened = [
            self._open(connection, paths, local, self._table.at(local, 0), remote, option.address_id)
            for local in own or self._sources_for(connection, paths, address)
            if paths.extra_subflows < self.limits.subflows
        ]
        # The initial address is none that was taken up in addition, though it be announced again.
        if any(opened) and option.address_id:
            paths.add_addr_accepted += 1
            paths.accepted_ids |= {option.address_id}

    def _endpoints_for_denying_peer(
        self, connection: Connection, paths: ConnectionPaths, remote: bytes
    ) -> list[bytes]:
        """Who may not join the initial address takes up one other, as in Linux, even if limits say none."""
        at_start = self._table.at(*connection.local)
        is_unused = paths.used_endpoints <= ({at_start.identifier} if at_start else set())
        if not connection.peer_denies_join_initial or self.limits.add_addr_accepted or not is_unused:
            return []
        own = [
            endpoint
            for endpoint in self._table.all()
            if "subflow" in endpoint.flags
            and endpoint is not at_start
            and self._families_match(connection, endpoint.address, remote)
        ]
        paths.used_endpoints |= {endpoint.identifier for endpoint in own}
        return [endpoint.address for endpoint in own]

    def _sources_for(self, connection: Connection, paths: ConnectionPaths, remote: bytes) -> list[bytes]:
        """Each fullmesh endpoint, else the next laminar one; without any of these, what the routes choose."""
        mesh = [
            endpoint.address
            for endpoint in self._table.all()
            if "fullmesh" in endpoint.flags and self._families_match(connection, endpoint.address, remote)
        ]
        if mesh:
            return mesh
        if self._table.count("laminar"):
            return self._next_laminar(connection, paths, remote)
        # An address of one link only, of which no interface is said, is no address to connect to.
        is_of_some_link = len(remote) == 16 and is_link_local(remote)
        local = None if is_of_some_link else self._environment.ip.select_source(remote)
        if local is not None and self._families_match(connection, local, remote):
            return [local]
        if len(remote) == 4 or connection.is_ipv6_socket:
            self._environment.counters.increment("MPTcpExtMPJoinSynTxConnectErr")
        return []

    def _next_laminar(self, connection: Connection, paths: ConnectionPaths, remote: bytes) -> list[bytes]:
        """The first that is not in use yet, if there is one: each serves one address of the peer."""
        for endpoint in self._table.all():
            if (
                "laminar" in endpoint.flags
                and endpoint.identifier not in paths.used_endpoints
                and self._families_match(connection, endpoint.address, remote)
            ):
                paths.used_endpoints |= {endpoint.identifier}
                return [endpoint.address]
        return []

    def on_address_removed(self, connection: Connection, address_id: int, now_us: int) -> None:
        paths = self._paths_of(connection)
        self._environment.counters.increment("MPTcpExtRmAddr")
        if address_id in paths.accepted_ids:
            paths.accepted_ids -= {address_id}
            paths.add_addr_accepted -= 1
        close_subflows_to(connection, address_id)

    # --- withdrawing ---

    def _withdraw(
        self,
        connection: Connection,
        local_id: int,
        is_forced: bool,
        now_us: int,
        endpoint_id: int | None = None,
    ) -> None:
        paths = self._paths_of(connection)
        was_announced = _forget(paths, local_id if endpoint_id is None else endpoint_id, local_id)
        leaving = [subflow for subflow in connection.subflows if subflow.local_id == local_id]
        is_told = (was_announced and local_id != 0) or (bool(leaving) and is_forced)
        self._remove(connection, (local_id,) if is_told else (), leaving, now_us)

    def _remove(
        self, connection: Connection, address_ids: tuple[int, ...], leaving: list[MptcpSubflow], now_us: int
    ) -> None:
        """Tells the peer of the addresses on what stays, if anything does, then closes what leaves."""
        carrier = signalling_subflow(connection, besides=leaving) if address_ids else None
        if carrier is not None:
            carrier.signal(RemoveAddr(address_ids), now_us)
            # Before the FINs: a Linux that sees these first does not count the address as given back.
            carrier.flush_acknowledgement(now_us)
        for subflow in leaving:
            self._environment.counters.increment("MPTcpExtRmSubflow")
            close_removed(connection, subflow)

    # --- the passive side ---

    def allow_join(self, connection: Connection, subflow: MptcpSubflow) -> bool:
        paths = self._paths_of(connection)
        if paths.extra_subflows >= self.limits.subflows:
            return False
        paths.extra_subflows += 1
        return True

    def has_announced(self, connection: Connection, address: bytes, port: int) -> bool:
        paths = self._paths.get(connection)
        return paths is not None and (address, port) in paths.announced_ends

    def _forget_end(self, connection: Connection, endpoint: Endpoint) -> None:
        if endpoint.port is not None:
            self._paths_of(connection).announced_ends -= {(endpoint.address, endpoint.port)}

    def local_id_for(self, connection: Connection, address: bytes, port: int = 0) -> int:
        """0 for the initial address; else the endpoint's id, of an implicit one if there is none."""
        if address == connection.local[0]:
            return 0
        endpoint = self._table.at(address, port)
        return (endpoint or self._table.add_implicit(address)).identifier

    def is_backup(self, address: bytes, port: int = 0) -> bool:
        endpoint = self._table.at(address, port)
        return endpoint is not None and "backup" in endpoint.flags

    def counts(self, connection: Connection) -> PathCounts:
        paths = self._paths.get(connection) or ConnectionPaths()

        return PathCounts(
            extra_subflows=paths.extra_subflows,
            add_addr_signal=len(paths.announced - {paths.initial_endpoint}),
            add_addr_accepted=paths.add_addr_accepted,
            local_addr_used=len(paths.used_endpoints),
            extra_subflows_limit=self.limits.subflows,
            add_addr_accepted_limit=self.limits.add_addr_accepted,
            signal_endpoints=self._table.count("signal"),
            subflow_endpoints=self._table.count("subflow"),
            laminar_endpoints=self._table.count("laminar"),
            fullmesh_endpoints=self._table.count("fullmesh"),
        )


def _forget(paths: ConnectionPaths, endpoint_id: int, address_id: int | None = None) -> bool:
    """Makes nothing of the endpoint's any more; returns whether it had been announced.

    ``address_id``: what it has on the connection, if that may be another.
    """
    was_announced = endpoint_id in paths.announced
    paths.announced -= {endpoint_id}
    paths.used_endpoints -= {endpoint_id}
    if paths.initial_endpoint == endpoint_id:
        paths.initial_endpoint = 0
    announcement = paths.announcement
    if announcement is not None and announcement.option.address_id in (endpoint_id, address_id):
        announcement.timer.cancel()
        paths.announcement = None
    return was_announced
