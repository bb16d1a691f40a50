"""The path manager that does as it is told, connection by connection (``net.mptcp.path_manager=userspace``).

Whoever decides listens to ``mptcp.path_events`` and gives the commands of Linux's netlink family mptcp_pm,
by a connection's token. Joins of the peer and its addresses are taken only while somebody listens. Commands
raise OSError as Linux has it: EINVAL for what can't be, ESRCH for a connection or subflow that is not there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from errno import EINVAL, ESRCH
from typing import NamedTuple

from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.mptcp.interfaces import PathCounts
from mptcp_stack.mptcp.path_events import PathEvents
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
from mptcp_stack.tcp.environment import Environment
from mptcp_stack.wire.addresses import is_multicast
from mptcp_stack.wire.mptcp_options import AddAddr, MpPrio, RemoveAddr

LARGEST_IDENTIFIER = 255


class LocalAddress(NamedTuple):
    """One that a connection uses or has announced. ``port`` None: any."""

    address: bytes
    port: int | None = None


@dataclass(slots=True)
class ManagedPaths:
    """What is known of one connection."""

    extra_subflows: int = 0
    addresses: dict[int, LocalAddress] = field(default_factory=dict)
    announcements: dict[int, Announcement] = field(default_factory=dict)
    announced: dict[int, LocalAddress] = field(default_factory=dict)

    def use(self, identifier: int, wanted: LocalAddress) -> None:
        """Raises OSError(EINVAL) when the address has another id, or the id another address."""
        if self.addresses.get(identifier, wanted) != wanted:
            raise OSError(EINVAL, f"id {identifier} is that of another address")
        if any(known == wanted and number != identifier for number, known in self.addresses.items()):
            raise OSError(EINVAL, "the address has another id")
        self.addresses[identifier] = wanted


class UserspacePathManager:
    """The ``PathManager`` of the connections that begin while the setting says so."""

    __slots__ = ("_connection_of", "_environment", "_events", "_paths")

    def __init__(
        self,
        environment: Environment,
        events: PathEvents,
        connection_of: Callable[[int], Connection | None],
    ) -> None:
        self._environment = environment
        self._events = events
        self._connection_of = connection_of
        self._paths: dict[Connection, ManagedPaths] = {}

    @property
    def known_connections(self) -> int:
        """Of how many connections something is kept."""
        return len(self._paths)

    # --- commands ---

    def announce(self, token: int, identifier: int, address: bytes, port: int | None = None) -> None:
        """Tells the peer of an address; who listens at a port of its own is the caller's affair."""
        connection, paths = self._managed(token)
        _check_identifier(identifier, 1)
        if port is not None and not 1 <= port <= 65535:
            raise OSError(EINVAL, f"port: expected 1 to 65535, got {port}")
        local = LocalAddress(address, port)
        paths.use(identifier, local)
        paths.announced[identifier] = local
        known = paths.announcements.pop(identifier, None)
        if known is not None:
            known.timer.cancel()
        option = signed_address(connection, identifier, address, port)
        timer = self._environment.timers.timer(lambda now_us: self._repeat(connection, identifier, now_us))
        paths.announcements[identifier] = announcement = Announcement(option, timer)
        send_announcement(connection, announcement, self._environment.timers.clock_us)

    def _repeat(self, connection: Connection, identifier: int, now_us: int) -> None:
        paths = self._paths.get(connection)
        announcement = None if paths is None else paths.announcements.get(identifier)
        if paths is None or announcement is None:
            return
        announcement.tries += 1
        if announcement.tries <= ADD_ADDR_RETRANSMISSIONS:
            send_announcement(connection, announcement, now_us)
        else:
            del paths.announcements[identifier]

    def remove(self, token: int, identifier: int) -> None:
        """REMOVE_ADDR; subflows stay until the peer closes them."""
        connection, paths = self._managed(token)
        _check_identifier(identifier, 0)
        is_used = any(subflow.local_id == identifier for subflow in connection.subflows)
        if identifier not in paths.addresses and not (identifier == 0 and is_used):
            raise OSError(EINVAL, f"the connection has no address with id {identifier}")
        paths.addresses.pop(identifier, None)
        was_announced = paths.announced.pop(identifier, None) is not None
        announcement = paths.announcements.pop(identifier, None)
        if announcement is not None:
            announcement.timer.cancel()
        carrier = signalling_subflow(connection)
        if carrier is not None and (was_announced or is_used):
            carrier.signal(RemoveAddr((identifier,)), self._environment.timers.clock_us)

    def create_subflow(
        self,
        token: int,
        identifier: int,
        local: bytes,
        remote: tuple[bytes, int],
        *,
        remote_id: int = 0,
        backup: bool = False,
    ) -> None:
        """From a local address with that id to an address of the peer."""
        connection, paths = self._managed(token)
        _check_identifier(identifier, 0)
        _check_identifier(remote_id, 0)
        self._check_ends(connection, local, remote)
        port = connection.host.free_local_port(local, *remote)
        if port is None:
            raise OSError(EINVAL, "no local port is free")
        paths.use(identifier, LocalAddress(local))
        paths.extra_subflows += 1
        connection.open_join((local, port), identifier, remote, remote_id, backup)

    def _check_ends(self, connection: Connection, local: bytes, remote: tuple[bytes, int]) -> None:
        if len(local) != len(remote[0]) or (len(local) == 16 and not connection.is_ipv6_socket):
            raise OSError(EINVAL, "the addresses are of another family than the connection or one another")
        if not 1 <= remote[1] <= 65535 or is_multicast(remote[0]):
            raise OSError(EINVAL, "not an address that one can connect to")
        ip = self._environment.ip
        if not ip.is_local(local) or ip.route_for(remote[0], local) is None:
            raise OSError(EINVAL, "no interface has this address, or no route leads there")

    def destroy_subflow(self, token: int, local: tuple[bytes, int], remote: tuple[bytes, int]) -> None:
        connection, paths = self._managed(token)
        subflow = self._subflow(connection, local, remote)
        self._environment.counters.increment("MPTcpExtRmSubflow")
        if subflow.local_id not in paths.announced:
            paths.addresses.pop(subflow.local_id, None)
        close_removed(connection, subflow)

    def set_backup(
        self, token: int, local: tuple[bytes, int], remote: tuple[bytes, int], *, backup: bool
    ) -> None:
        """MP_PRIO on one subflow; ports may be 0 for any."""
        connection, _ = self._managed(token)
        subflow = self._subflow(connection, local, remote)
        subflow.is_backup = backup
        subflow.signal(MpPrio(backup, None), self._environment.timers.clock_us)

    def addresses(self, token: int) -> dict[int, LocalAddress]:
        """Those that the connection was told to use, by their ids."""
        return dict(self._managed(token)[1].addresses)

    def _managed(self, token: int) -> tuple[Connection, ManagedPaths]:
        connection = self._connection_of(token)
        if connection is None:
            raise OSError(ESRCH, f"no connection has the token {token}")
        if connection.path_manager is not self:
            raise OSError(EINVAL, "the connection has another path manager")
        if not connection.is_open_for_joins:
            raise OSError(EINVAL, "the connection takes no more paths")
        return connection, self._paths.setdefault(connection, ManagedPaths())

    def _subflow(
        self, connection: Connection, local: tuple[bytes, int], remote: tuple[bytes, int]
    ) -> MptcpSubflow:
        for subflow in connection.subflows:
            if (
                (subflow.local, subflow.remote) == (local[0], remote[0])
                and local[1] in (0, subflow.local_port)
                and remote[1] in (0, subflow.remote_port)
            ):
                return subflow
        raise OSError(ESRCH, "the connection has no such subflow")

    # --- what connections tell (PathManager) ---

    def on_confirmed(self, connection: Connection, now_us: int) -> None:
        self._paths.setdefault(connection, ManagedPaths())

    def review(self, connection: Connection, now_us: int) -> None:
        """Nothing happens by itself."""

    def takes_announcements(self, connection: Connection) -> bool:
        return bool(self._events.subscriptions)

    def on_address_announced(self, connection: Connection, option: AddAddr, now_us: int) -> None:
        """The event tells of it."""

    def on_echo(self, connection: Connection, address_id: int, now_us: int) -> None:
        paths = self._paths.get(connection)
        announcement = None if paths is None else paths.announcements.pop(address_id, None)
        if announcement is not None:
            announcement.timer.cancel()

    def on_announcement_dropped(self, connection: Connection, address_id: int) -> None:
        self.on_echo(connection, address_id, self._environment.timers.clock_us)

    def on_address_removed(self, connection: Connection, address_id: int, now_us: int) -> None:
        self._environment.counters.increment("MPTcpExtRmAddr")
        close_subflows_to(connection, address_id)

    def on_subflow_closed(self, connection: Connection, subflow: MptcpSubflow, now_us: int) -> None:
        paths = self._paths.get(connection)
        if paths is not None and subflow.is_join and (subflow.was_established or not subflow.is_passive):
            paths.extra_subflows -= 1

    def on_connection_closed(self, connection: Connection) -> None:
        paths = self._paths.pop(connection, None)
        for announcement in () if paths is None else paths.announcements.values():
            announcement.timer.cancel()

    def allow_join(self, connection: Connection, subflow: MptcpSubflow) -> bool:
        if not self._events.subscriptions:
            return False
        self._paths.setdefault(connection, ManagedPaths()).extra_subflows += 1
        return True

    def has_announced(self, connection: Connection, address: bytes, port: int) -> bool:
        paths = self._paths.get(connection)
        return paths is not None and LocalAddress(address, port) in paths.announced.values()

    def local_id_for(self, connection: Connection, address: bytes, port: int = 0) -> int:
        """0 for the initial address; else that of a known one, or the next free one from now on."""
        if address == connection.local[0]:
            return 0
        paths = self._paths.setdefault(connection, ManagedPaths())
        for identifier, known in paths.addresses.items():
            if known.address == address and known.port in (None, port):
                return identifier
        free = next(
            (number for number in range(1, LARGEST_IDENTIFIER + 1) if number not in paths.addresses), 0
        )
        paths.addresses[free] = LocalAddress(address)
        return free

    def is_backup(self, address: bytes, port: int = 0) -> bool:
        """Who manages the paths sets the priority of a subflow when it is there."""
        return False

    def counts(self, connection: Connection) -> PathCounts:
        paths = self._paths.get(connection) or ManagedPaths()
        return PathCounts(
            extra_subflows=paths.extra_subflows,
            add_addr_signal=len(paths.announced),
            local_addr_used=len(paths.addresses),
        )


def _check_identifier(identifier: int, smallest: int) -> None:
    if not smallest <= identifier <= LARGEST_IDENTIFIER:
        raise OSError(EINVAL, f"id: expected {smallest} to {LARGEST_IDENTIFIER}, got {identifier}")
