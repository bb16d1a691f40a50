"""A host that uses the bundled stack, with a packet socket on each interface of the agent's namespace."""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from ipaddress import ip_address, ip_interface, ip_network
from typing import TypeVar

from mptcp_stack.device.packet_socket import PacketSocket
from mptcp_stack.errors import ConfigurationError, StackError
from mptcp_stack.ip.interface import Interface, InterfaceAddress, LinkType
from mptcp_stack.ip.routing import Route
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.run_loop import RunLoop, keep_freed_memory
from mptcp_stack.settings import StackSettings, apply_sysctl
from mptcp_stack.sockets.coroutines import ListeningSocket, StreamSocket, listen, open_connection
from mptcp_stack.stack import Stack
from mptcp_stack.wire.addresses import format_address, parse_address, unmap
from testbed.host.data import Buffer
from testbed.host.host_stack import HostStackError
from testbed.host.kernel_host import read_endpoint
from testbed.host.messages import MessageError, from_json
from testbed.host.protocol import AgentConfiguration, EndpointRequest

_READ_BYTES = 1 << 20

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class _InterfaceFields:
    """``AgentConfiguration.interfaces``."""

    name: str
    mac: str = ""
    mtu: int = 0
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _RouteFields:
    """``AgentConfiguration.routes``."""

    destination: str
    interface: str
    gateway: str | None = None
    source: str | None = None
    metric: int = 0


class UserspaceStream:
    """See :class:`testbed.host.streams.Stream`."""

    def __init__(self, socket: StreamSocket, stack: Stack) -> None:
        self._socket = socket
        self._stack = stack
        self.local = _format_end(socket.local)
        self.remote = _format_end(socket.remote)

    @property
    def is_mptcp(self) -> bool:
        return self._socket.is_mptcp

    async def read(self) -> Buffer:
        return await self._socket.read(_READ_BYTES)

    async def write(self, data: Buffer) -> None:
        await self._socket.write(data)

    async def shutdown_write(self) -> None:
        self._socket.shutdown_write()

    async def close(self) -> None:
        self._socket.close()

    def abort(self) -> None:
        self._socket.abort()

    def describe(self) -> dict[str, object]:
        for connection in self._stack.connections():
            if connection is self._socket.connection:
                return describe(connection)
        ends: dict[str, object] = {"local": self.local, "remote": self.remote}
        return ends | {"is_mptcp": self.is_mptcp, "state": "forgotten by the stack"}


class UserspaceListener:
    """See :class:`testbed.host.streams.StreamListener`."""

    def __init__(self, socket: ListeningSocket, stack: Stack) -> None:
        self._socket = socket
        self._stack = stack
        self.port = socket.port

    async def accept(self) -> UserspaceStream:
        return UserspaceStream(await self._socket.accept(), self._stack)

    def close(self) -> None:
        self._socket.close()


class UserspaceNetwork:
    """See :class:`testbed.host.streams.StreamNetwork`."""

    def __init__(self, run_loop: RunLoop[Stack], stack: Stack) -> None:
        self._run_loop = run_loop
        self._stack = stack

    def listen(self, address: str, port: int, *, protocol: str, backlog: int) -> UserspaceListener:
        socket = listen(self._run_loop, _parse(address), port, protocol=protocol, backlog=backlog)
        return UserspaceListener(socket, self._stack)

    async def connect(self, address: str, port: int, *, protocol: str, local: str | None) -> UserspaceStream:
        socket = await open_connection(
            self._run_loop,
            _parse(address),
            port,
            protocol=protocol,
            local=_parse(local) if local is not None else None,
        )
        return UserspaceStream(socket, self._stack)


class UserspaceHost:
    """See :class:`testbed.host.host_stack.HostStack`."""

    def __init__(self, stack: Stack, devices: Mapping[Interface, PacketSocket]) -> None:
        self._stack = stack
        self._devices = devices
        self._run_loop = RunLoop(stack, devices)
        self.network = UserspaceNetwork(self._run_loop, stack)

    @classmethod
    async def open(cls, configuration: AgentConfiguration) -> UserspaceHost:
        """Build the stack of a configuration and start it. Raises HostStackError."""
        keep_freed_memory()
        devices: dict[Interface, PacketSocket] = {}
        try:
            settings = reduce(
                lambda settings, sysctl: apply_sysctl(settings, *sysctl),
                configuration.sysctls,
                StackSettings(),
            )
            stack = Stack(settings, random_bytes=_randomness(configuration.seed))
            for interface_fields in configuration.interfaces:
                _add_interface(stack, devices, from_json(_InterfaceFields, interface_fields))
            for route_fields in configuration.routes:
                _add_route(stack, from_json(_RouteFields, route_fields))
            host = cls(stack, devices)
            host.set_limits(configuration.subflows_limit, configuration.add_addr_accepted_limit)
            for endpoint in configuration.endpoints:
                host.add_endpoint(read_endpoint(endpoint))
        except (StackError, MessageError, ValueError, OSError, HostStackError) as error:
            for device in devices.values():
                device.close()
            raise HostStackError(str(error)) from None
        host._run_loop.start()
        return host

    def counters(self) -> dict[str, int]:
        return self._stack.counters.snapshot()

    async def sockets(self) -> str:
        lines = [
            f"LISTEN {format_address(listener.address) if listener.address else '*'} {listener.port}"
            for listener in self._stack.listeners()
        ]
        lines += [json.dumps(describe(connection), default=str) for connection in self._stack.connections()]
        return "".join(line + "\n" for line in lines)

    def limits(self) -> tuple[int, int]:
        limits = self._stack.path_manager.limits
        return limits.subflows, limits.add_addr_accepted

    def set_limits(self, subflows: int, add_addr_accepted: int) -> None:
        self._change(lambda: self._stack.path_manager.set_limits(subflows, add_addr_accepted))

    def add_endpoint(self, endpoint: EndpointRequest) -> int:
        return self._change(
            lambda: self._stack.path_manager.add_endpoint(
                _parse(endpoint.address),
                flags=frozenset(endpoint.flags),
                interface=endpoint.interface,
                identifier=endpoint.identifier,
                port=endpoint.port,
            )
        )

    def delete_endpoint(self, identifier: int, address: str | None) -> None:
        packed = _parse(address) if address is not None else None
        self._change(lambda: self._stack.path_manager.delete_endpoint(identifier, packed))

    def flush_endpoints(self) -> None:
        self._change(self._stack.path_manager.flush_endpoints)

    def endpoints(self) -> list[EndpointRequest]:
        return [
            EndpointRequest(
                address=format_address(endpoint.address),
                flags=("implicit",) if endpoint.is_implicit else tuple(sorted(endpoint.flags)),
                interface=endpoint.interface,
                identifier=endpoint.identifier,
                port=endpoint.port,
            )
            for endpoint in self._stack.path_manager.endpoints()
        ]

    def set_endpoint_flags(self, flags: tuple[str, ...], identifier: int | None, address: str | None) -> None:
        number = identifier or self._identifier_of(address)
        self._change(lambda: self._stack.path_manager.set_flags(number, frozenset(flags)))

    def set_interface(self, name: str, up: bool) -> None:
        found = next((interface for interface in self._devices if interface.name == name), None)
        if found is None:
            raise HostStackError(f"no interface {name!r}")
        self._change(lambda: self._stack.ip.set_up(found, up))

    def close(self) -> None:
        self._run_loop.close()
        for device in self._devices.values():
            device.close()

    def _change(self, action: Callable[[], Answer]) -> Answer:
        """Change the stack from outside, and let it act on that."""
        try:
            return action()
        except (StackError, OSError) as error:
            raise HostStackError(str(error)) from None
        finally:
            self._run_loop.wake()

    def _identifier_of(self, address: str | None) -> int:
        if address is None:
            raise HostStackError("changing flags needs an identifier or an address")
        packed = _parse(address)
        for endpoint in self._stack.path_manager.endpoints():
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


def _add_interface(stack: Stack, devices: dict[Interface, PacketSocket], fields: _InterfaceFields) -> None:
    device = PacketSocket.open(fields.name)
    try:
        addresses = [ip_interface(text) for text in fields.addresses]
        interface = stack.ip.add_interface(
            fields.name,
            link_type=LinkType.ETHERNET,
            mac=bytes.fromhex(fields.mac.replace(":", "")) or device.mac,
            mtu=fields.mtu or device.mtu,
            addresses=[
                InterfaceAddress(address.ip.packed, address.network.prefixlen) for address in addresses
            ],
            checksum_offload=device.checksum_offload,
            gso_max_size=device.gso_max_size,
        )
    except BaseException:
        device.close()
        raise
    devices[interface] = device


def _add_route(stack: Stack, fields: _RouteFields) -> None:
    network = ip_network(fields.destination)
    stack.ip.routes.add(
        Route(
            destination=network.network_address.packed,
            prefix_length=network.prefixlen,
            interface=stack.ip.interface(fields.interface),
            gateway=_packed_or_none(fields.gateway),
            source=_packed_or_none(fields.source),
            metric=fields.metric,
        )
    )


def _packed_or_none(text: str | None) -> bytes | None:
    return ip_address(text).packed if text is not None else None


def _randomness(seed: int | None) -> Callable[[int], bytes]:
    return os.urandom if seed is None else random.Random(seed).randbytes


def _parse(address: str) -> bytes:
    """Raises OSError(EINVAL)."""
    try:
        return parse_address(address)
    except ConfigurationError as error:
        raise OSError(errno.EINVAL, str(error)) from None


def _format_end(end: tuple[bytes, int]) -> str:
    address, port = end
    return f"{format_address(unmap(address))} {port}"
