"""A host that uses the bundled stack, with a packet socket on each interface of the agent's namespace."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from mptcp_stack.device.packet_socket import PacketSocket
from mptcp_stack.errors import ConfigurationError, StackError
from mptcp_stack.ip.interface import Interface
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.mptcp.early_data import bytes_taken
from mptcp_stack.run_loop import RunLoop, keep_freed_memory
from mptcp_stack.sockets import options, queues
from mptcp_stack.sockets.common_options import INTEGER, set_common
from mptcp_stack.sockets.coroutines import ListeningSocket, StreamSocket
from mptcp_stack.sockets.reconnecting import reconnect
from mptcp_stack.stack import Stack
from mptcp_stack.tcp.socket_options import DEFAULT_SOCKET_OPTIONS, SocketOptions
from mptcp_stack.wire.addresses import format_address, is_link_local, parse_address, unmap
from testbed.host.data import Buffer
from testbed.host.host_stack import HostStackError
from testbed.host.kernel_host import read_endpoint
from testbed.host.messages import MessageError
from testbed.host.protocol import (
    AgentConfiguration,
    EndpointRequest,
    ListenerMatch,
    NetworkChange,
    SocketOption,
)
from testbed.host.streams import SubflowTraffic
from testbed.host.userspace_listing import matching_listeners
from testbed.host.userspace_paths import UserspacePaths
from testbed.host.userspace_reaching import reach
from testbed.host.userspace_set_up import InterfaceFields, add_interface, change_network, make_stack

_READ_BYTES = 1 << 20
_PEEKED_BYTES = 64 * 1024
_FAST_OPEN_QUEUE = 16

Answer = TypeVar("Answer")


class StackDriver(Protocol):
    """What gives the stack its packets and its time: a run loop, or a simulation."""

    @property
    def stack(self) -> Stack: ...

    def start(self) -> None: ...

    def wake(self) -> None: ...

    def close(self) -> None: ...


class UserspaceStream:
    """See :class:`testbed.host.streams.Stream`."""

    def __init__(
        self, socket: StreamSocket, stack: Stack, wake: Callable[[], None], bound: bytes | None = None
    ) -> None:
        """``bound`` is the address that the socket was bound to before it connected, or that of its link."""
        self._socket = socket
        self._stack = stack
        self._wake = wake
        self._bound = bound
        self.local = _format_end(socket.local)
        self.remote = _format_end(socket.remote)

    @property
    def is_mptcp(self) -> bool:
        return self._socket.is_mptcp

    async def read(self) -> Buffer:
        return await self._socket.read(_READ_BYTES)

    async def read_peeking(self, *, keep_first: bool) -> Buffer:
        seen = await self._socket.peek(_PEEKED_BYTES)
        read = await self._socket.read(len(seen)) if seen else b""
        return seen if keep_first else read

    async def read_telling(self, max_bytes: int) -> tuple[Buffer, int | None]:
        data = await self._socket.read(max_bytes)
        connection = self._connection()
        return data, queues.inq_hint(connection) if connection.socket_options.reports_unread else None

    def queued(self, request: int) -> int:
        return queues.ask(self._connection(), request)

    def set_way(self, way: str) -> None:
        """The bundled stack has one way only: it takes any buffer as it is."""

    async def write(self, data: Buffer) -> None:
        await self._socket.write(data)

    async def shutdown_write(self) -> None:
        self._socket.shutdown_write()

    async def reconnect(self, address: str, port: int) -> None:
        connection = self._connection()
        await self._socket.wait_until(lambda: connection.is_closed and not connection.subflows)
        remote = _parse(address.partition("%")[0])
        await reconnect(self._stack, self._socket, remote, port, local=self._bound)
        self.local = _format_end(self._socket.local)
        self.remote = _format_end(self._socket.remote)

    async def close(self) -> None:
        self._socket.close()

    def abort(self) -> None:
        self._socket.abort()

    def wake(self) -> None:
        self._wake()

    def get_option(self, level: int, option: int, length: int, request: bytes) -> bytes:
        return options.get_option(self._connection(), level, option, length, request)

    def set_option(self, level: int, option: int, value: bytes) -> bytes:
        return options.set_option(self._connection(), level, option, value)

    def _connection(self) -> Connection:
        connection = self._socket.connection
        if not isinstance(connection, Connection):
            raise OSError(errno.ENOTCONN, "no connection")
        return connection

    def describe(self) -> dict[str, object]:
        for connection in self._stack.connections():
            if connection is self._socket.connection:
                return describe(connection)
        ends: dict[str, object] = {"local": self.local, "remote": self.remote}
        return ends | {"is_mptcp": self.is_mptcp, "state": "forgotten by the stack"}

    def subflows(self) -> list[SubflowTraffic]:
        connection = self._socket.connection
        if not isinstance(connection, Connection):
            return []
        return [
            SubflowTraffic(
                _format_end((subflow.local, subflow.local_port)),
                _format_end((subflow.remote, subflow.remote_port)),
                max(0, subflow.snd_una - subflow.snd_iss - 1),
                max(0, subflow.rcv_nxt - subflow.irs - 1),
            )
            for subflow in connection.subflows
        ]


class UserspaceListener:
    """See :class:`testbed.host.streams.StreamListener`."""

    def __init__(self, socket: ListeningSocket, stack: Stack, wake: Callable[[], None]) -> None:
        self._socket = socket
        self._stack = stack
        self._wake = wake
        self.port = socket.port

    async def accept(self) -> UserspaceStream:
        return UserspaceStream(await self._socket.accept(), self._stack, self._wake)

    def close(self) -> None:
        self._socket.close()


class UserspaceNetwork:
    """See :class:`testbed.host.streams.StreamNetwork`."""

    def __init__(self, driver: StackDriver, stack: Stack) -> None:
        self._driver = driver
        self._stack = stack

    def listen(
        self,
        address: str,
        port: int,
        *,
        protocol: str,
        backlog: int,
        fast_open: bool = False,
        transparent: bool = False,
        options: Sequence[SocketOption] = (),
    ) -> UserspaceListener:
        chosen = SocketOptions(fast_open_queue=_FAST_OPEN_QUEUE if fast_open else 0, transparent=transparent)
        listener = self._stack.listen(
            self._parse_zoned(address)[0],
            port,
            protocol=protocol,
            backlog=backlog,
            options=self._with(options, chosen),
        )
        wake = self._driver.wake
        return UserspaceListener(ListeningSocket(listener, wake), self._stack, wake)

    async def connect(
        self,
        address: str,
        port: int,
        *,
        protocol: str,
        local: str | None,
        early: bytes | None = None,
        options: Sequence[SocketOption] = (),
    ) -> UserspaceStream:
        remote, source = self._parse_zoned(address)
        if local is not None:
            source = _parse(local)
        connection = self._stack.connect(
            remote,
            port,
            protocol=protocol,
            local=source,
            early=early,
            options=self._with(options, DEFAULT_SOCKET_OPTIONS),
        )
        socket = StreamSocket(connection, self._driver.wake)
        taken = bytes_taken(connection)
        self._driver.wake()
        try:
            await socket.wait_established()
            if early is not None and taken < len(early):
                await socket.write(early[taken:])
        except BaseException:
            socket.abort()
            raise
        return UserspaceStream(socket, self._stack, self._driver.wake, source)

    def _parse_zoned(self, address: str) -> tuple[bytes, bytes | None]:
        """An address, and our own on the link that it names ("fe80::1%eth0"). Raises OSError(EINVAL)."""
        text, sign, zone = address.partition("%")
        packed = _parse(text)
        if not sign:
            return packed, None
        for interface in self._stack.ip.interfaces:
            if interface.name == zone and len(packed) == 16 and is_link_local(packed):
                for own in interface.addresses_of_length(16):
                    if is_link_local(own.address):
                        return packed, own.address
        raise OSError(errno.EINVAL, f"{address!r} is no address of a link")

    def _with(self, options: Sequence[SocketOption], chosen: SocketOptions) -> SocketOptions:
        """Raises OSError for an option that does not exist."""
        for each in options:
            value = INTEGER.pack(each.value)
            chosen = set_common(chosen, self._stack.settings, each.level, each.option, value)
        return chosen


class UserspaceHost:
    """See :class:`testbed.host.host_stack.HostStack`."""

    def __init__(
        self,
        stack: Stack,
        driver: StackDriver,
        configuration: AgentConfiguration,
        devices: Sequence[PacketSocket] = (),
    ) -> None:
        """``devices`` are closed with the host. Raises HostStackError for impossible limits or endpoints."""
        self.stack = stack
        self._devices = devices
        self._driver = driver
        self.network = UserspaceNetwork(driver, stack)
        self.paths = UserspacePaths(stack, driver.wake)
        self.set_limits(configuration.subflows_limit, configuration.add_addr_accepted_limit)
        try:
            for endpoint in configuration.endpoints:
                self.add_endpoint(read_endpoint(endpoint))
        except MessageError as error:
            raise HostStackError(str(error)) from None

    @classmethod
    async def open(cls, configuration: AgentConfiguration) -> UserspaceHost:
        """Build the stack of a configuration and start it. Raises HostStackError."""
        keep_freed_memory()
        devices: dict[Interface, PacketSocket] = {}
        try:
            stack = make_stack(configuration, partial(_attach, devices))
            run_loop = RunLoop(stack, devices)
            host = cls(stack, run_loop, configuration, tuple(devices.values()))
        except (StackError, MessageError, ValueError, OSError, HostStackError) as error:
            for device in devices.values():
                device.close()
            raise HostStackError(str(error)) from None
        run_loop.start()
        return host

    def counters(self) -> dict[str, int]:
        return self.stack.counters.snapshot()

    async def sockets(self) -> str:
        lines = [
            f"LISTEN {format_address(listener.address) if listener.address else '*'} {listener.port}"
            for listener in self.stack.listeners()
        ]
        lines += [
            f"SYN-RECV {_format_end(request.four_tuple[:2])} {_format_end(request.four_tuple[2:])}"
            for request in self.stack.environment.requests.all()
        ]
        lines += [json.dumps(describe(connection), default=str) for connection in self.stack.connections()]
        return "".join(line + "\n" for line in lines)

    async def listeners(self, match: ListenerMatch) -> list[str]:
        return matching_listeners(self.stack, match)

    def sockets_in_use(self) -> int:
        return self.stack.mptcp_sockets_in_use()

    async def reach(self, address: str, timeout_us: int) -> int | None:
        return await reach(self.stack, self._driver.wake, address, timeout_us)

    def limits(self) -> tuple[int, int]:
        limits = self.stack.path_manager.limits
        return limits.subflows, limits.add_addr_accepted

    def set_limits(self, subflows: int, add_addr_accepted: int) -> None:
        self._change(lambda: self.stack.path_manager.set_limits(subflows, add_addr_accepted))

    def add_endpoint(self, endpoint: EndpointRequest) -> int:
        return self._change(
            lambda: self.stack.path_manager.add_endpoint(
                _parse(endpoint.address),
                flags=frozenset(endpoint.flags),
                interface=endpoint.interface,
                identifier=endpoint.identifier,
                port=endpoint.port,
            )
        )

    def delete_endpoint(self, identifier: int, address: str | None) -> None:
        packed = _parse(address) if address is not None else None
        self._change(lambda: self.stack.path_manager.delete_endpoint(identifier, packed))

    def flush_endpoints(self) -> None:
        self._change(self.stack.path_manager.flush_endpoints)

    def endpoints(self) -> list[EndpointRequest]:
        return [
            EndpointRequest(
                address=format_address(endpoint.address),
                flags=("implicit",) if endpoint.is_implicit else tuple(sorted(endpoint.flags)),
                interface=endpoint.interface,
                identifier=endpoint.identifier,
                port=endpoint.port,
            )
            for endpoint in self.stack.path_manager.endpoints()
        ]

    def set_endpoint_flags(self, flags: tuple[str, ...], identifier: int | None, address: str | None) -> None:
        number = identifier or self._identifier_of(address)
        self._change(lambda: self.stack.path_manager.set_flags(number, frozenset(flags)))

    def set_interface(self, name: str, up: bool) -> None:
        found = next((interface for interface in self.stack.ip.interfaces if interface.name == name), None)
        if found is None:
            raise HostStackError(f"no interface {name!r}")
        self._change(lambda: self.stack.ip.set_up(found, up))

    def change_network(self, change: NetworkChange) -> None:
        try:
            self._change(lambda: change_network(self.stack.ip, change))
        except ValueError as error:
            raise HostStackError(str(error)) from None

    def close(self) -> None:
        self.paths.close()
        self._driver.close()
        for device in self._devices:
            device.close()

    def _change(self, action: Callable[[], Answer]) -> Answer:
        """Change the stack from outside, and let it act on that."""
        try:
            return action()
        except (StackError, OSError) as error:
            raise HostStackError(str(error)) from None
        finally:
            self._driver.wake()

    def _identifier_of(self, address: str | None) -> int:
        if address is None:
            raise HostStackError("changing flags needs an identifier or an address")
        packed = _parse(address)
        for endpoint in self.stack.path_manager.endpoints():
            if endpoint.address == packed:
                return endpoint.identifier
        raise HostStackError(f"no endpoint {address}")


def describe(connection: Connection) -> dict[str, object]:
    """A connection's state with its ends."""
    ends: dict[str, object] = {
        "local": _format_end(connection.local),
        "remote": _format_end(connection.remote),
    }
    return ends | connection.describe()


def _attach(devices: dict[Interface, PacketSocket], stack: Stack, fields: InterfaceFields) -> Interface:
    """An interface on a packet socket, which is added to ``devices``."""
    device = PacketSocket.open(fields.name)
    try:
        interface = add_interface(
            stack,
            fields,
            mac=device.mac,
            mtu=device.mtu,
            checksum_offload=device.checksum_offload,
            gso_max_size=device.gso_max_size,
        )
    except BaseException:
        device.close()
        raise
    devices[interface] = device
    return interface


def _parse(address: str) -> bytes:
    """Raises OSError(EINVAL)."""
    try:
        return parse_address(address)
    except ConfigurationError as error:
        raise OSError(errno.EINVAL, str(error)) from None


def _format_end(end: tuple[bytes, int]) -> str:
    address, port = end
    return f"{format_address(unmap(address))} {port}"
