"""Streams over the kernel's sockets: MPTCP (``IPPROTO_MPTCP``) or plain TCP."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any, Final

from testbed.host.data import Buffer
from testbed.host.kernel_disconnecting import disconnect
from testbed.host.kernel_moving import KernelMover
from testbed.host.kernel_traffic import mptcp_subflows, plain_subflow
from testbed.host.protocol import SocketOption
from testbed.host.socket_options import get_kernel_option
from testbed.host.streams import SubflowTraffic

IPPROTO_MPTCP: Final = 262
SOL_MPTCP: Final = 284
MPTCP_INFO: Final = 1
TCP_IS_MPTCP: Final = 43
_MPTCP_INFO_BYTES = 96
_LINGER_RESET = struct.pack("=ii", 1, 0)

_INTEGER = struct.Struct("=i")
_CONTROL_INQ = (int(socket.IPPROTO_TCP), 36)
"""TCP_CM_INQ, the control message of TCP_INQ."""
_CONTROL_BYTES = socket.CMSG_SPACE(_INTEGER.size)
_READ_BYTES = 512 * 1024
_PEEKED_BYTES = 64 * 1024
_FAST_OPEN_QUEUE = 16
_TCP_FASTOPEN_CONNECT = 30
_TRANSPARENT = {
    socket.AF_INET: (socket.IPPROTO_IP, 19),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 75),
}
"""IP_TRANSPARENT and IPV6_TRANSPARENT, which need the privilege to administrate the network."""
_YIELD_BYTES = 4 * 1024 * 1024
"""A stream that never has to wait lets others run after this much."""

_TCP_STATES = (
    "unknown established syn-sent syn-recv fin-wait-1 fin-wait-2 time-wait close close-wait last-ack listen"
    " closing"
).split()

_MPTCP_INFO_FIELDS = (
    ("extra_subflows", 0, "B"),
    ("add_addr_signal", 1, "B"),
    ("add_addr_accepted", 2, "B"),
    ("flags", 8, "I"),
    ("token", 12, "I"),
    ("write_seq", 16, "Q"),
    ("snd_una", 24, "Q"),
    ("rcv_nxt", 32, "Q"),
    ("checksum_enabled", 42, "B"),
    ("retransmits", 44, "I"),
    ("bytes_retransmitted", 48, "Q"),
    ("bytes_sent", 56, "Q"),
    ("bytes_received", 64, "Q"),
    ("bytes_acked", 72, "Q"),
    ("subflows_total", 80, "B"),
    ("last_data_sent_ms", 84, "I"),
    ("last_data_received_ms", 88, "I"),
    ("last_ack_received_ms", 92, "I"),
)


class KernelStream:
    """See :class:`testbed.host.streams.Stream`."""

    # One buffer serves all streams of an agent: it is filled and consumed between two waits.
    _buffer = memoryview(bytearray(_READ_BYTES))

    def __init__(self, connection: socket.socket, remote_name: Any) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._since_yield = 0
        self._last_is_mptcp = False
        self._is_open = True
        self._mover: KernelMover | None = None
        self.local = _format_name(connection.getsockname())
        self.remote = _format_name(remote_name)

    @property
    def is_mptcp(self) -> bool:
        if self._is_open:
            self._last_is_mptcp = is_mptcp(self._socket)
        return self._last_is_mptcp

    def set_way(self, way: str) -> None:
        if self._mover is not None:
            self._mover.close()
            self._mover = None
        if way != "write":
            self._mover = KernelMover(self._socket, way, _readable, _writable)

    async def read(self) -> Buffer:
        if self._mover is not None and self._mover.reads:
            return await self._mover.read()
        await self._yield_sometimes()
        while True:
            try:
                count = self._socket.recv_into(self._buffer)
            except BlockingIOError:
                await _readable(self._socket)
                self._since_yield = 0
            else:
                self._since_yield += count
                return self._buffer[:count]

    async def read_peeking(self, *, keep_first: bool) -> Buffer:
        while True:
            try:
                seen = self._socket.recv(_PEEKED_BYTES, socket.MSG_PEEK)
            except BlockingIOError:
                await _readable(self._socket)
            else:
                read = self._socket.recv(len(seen)) if seen else b""
                return seen if keep_first else read

    async def read_telling(self, max_bytes: int) -> tuple[Buffer, int | None]:
        while True:
            try:
                data, messages, _flags, _name = self._socket.recvmsg(max_bytes, _CONTROL_BYTES)
            except BlockingIOError:
                await _readable(self._socket)
            else:
                told = [value for level, kind, value in messages if (level, kind) == _CONTROL_INQ]
                return data, _INTEGER.unpack(told[0])[0] if told else None

    def queued(self, request: int) -> int:
        answer: int = _INTEGER.unpack(fcntl.ioctl(self._socket, request, bytes(_INTEGER.size)))[0]
        return answer

    async def write(self, data: Buffer) -> None:
        if self._mover is not None:
            await self._mover.write(data)
            return
        await self._yield_sometimes()
        remaining = memoryview(data)
        while remaining:
            try:
                count = self._socket.send(remaining)
            except BlockingIOError:
                await _writable(self._socket)
                self._since_yield = 0
            else:
                self._since_yield += count
                remaining = remaining[count:]

    async def shutdown_write(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            # The peer reset the connection meanwhile, which no call of ours has been told yet.
            number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNRESET
            raise OSError(number, os.strerror(number)) from None

    async def reconnect(self, address: str, port: int) -> None:
        await disconnect(self._socket)
        _, name = _resolve(address, port)
        await _connect(self._socket, name)
        self.local, self.remote = _format_name(self._socket.getsockname()), _format_name(name)

    async def close(self) -> None:
        self._end()

    def abort(self) -> None:
        if self._is_open:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
            self._end()

    def wake(self) -> None:
        """The kernel knows the time."""

    def get_option(self, level: int, option: int, length: int, request: bytes) -> bytes:
        return get_kernel_option(self._socket, level, option, length, request)

    def set_option(self, level: int, option: int, value: bytes) -> bytes:
        self._socket.setsockopt(level, option, value)
        return b""

    def describe(self) -> dict[str, object]:
        state: dict[str, object] = {"local": self.local, "remote": self.remote, "is_mptcp": self.is_mptcp}
        if self._is_open:
            state["tcp_state"] = _tcp_state(self._socket)
            if self._last_is_mptcp:
                state.update(mptcp_info(self._socket))
        else:
            state["tcp_state"] = "closed by the agent"
        return state

    def subflows(self) -> list[SubflowTraffic]:
        if not self._is_open:
            return []
        if self.is_mptcp:
            return mptcp_subflows(self._socket)
        return plain_subflow(self._socket, self.local, self.remote)

    def _end(self) -> None:
        if self._is_open:
            self._last_is_mptcp = is_mptcp(self._socket)
            self._is_open = False
            self._socket.close()
            if self._mover is not None:
                self._mover.close()

    async def _yield_sometimes(self) -> None:
        if self._since_yield >= _YIELD_BYTES:
            self._since_yield = 0
            await asyncio.sleep(0)


class KernelListener:
    """See :class:`testbed.host.streams.StreamListener`."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening
        self.port: int = listening.getsockname()[1]

    async def accept(self) -> KernelStream:
        while True:
            try:
                connection, name = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                await _readable(self._socket)
            else:
                return KernelStream(connection, name)

    def close(self) -> None:
        self._socket.close()


class KernelNetwork:
    """See :class:`testbed.host.streams.StreamNetwork`."""

    def __init__(self, *, speaks_mptcp: bool) -> None:
        """Without ``speaks_mptcp`` every socket is plain TCP, whatever is asked for."""
        self._speaks_mptcp = speaks_mptcp

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
    ) -> KernelListener:
        family, name = _resolve(address, port)
        listening = self._socket(family, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            if fast_open:
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, _FAST_OPEN_QUEUE)
            _set_options(listening, options)
            if transparent:
                listening.setsockopt(*_TRANSPARENT[family], 1)
            listening.bind(name)
            listening.listen(backlog)
            return KernelListener(listening)
        except BaseException:
            listening.close()
            raise

    async def connect(
        self,
        address: str,
        port: int,
        *,
        protocol: str,
        local: str | None,
        early: bytes | None = None,
        options: Sequence[SocketOption] = (),
    ) -> KernelStream:
        family, name = _resolve(address, port)
        connection = self._socket(family, protocol)
        try:
            _set_options(connection, options)
            if local is not None:
                _, local_name = _resolve(local, 0)
                connection.bind(local_name)
            if early is not None:
                connection.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN_CONNECT, 1)
            await _connect(connection, name)
            if early is not None:
                await _write_early(connection, early)
            return KernelStream(connection, name)
        except BaseException:
            connection.close()
            raise

    def _socket(self, family: socket.AddressFamily, protocol: str) -> socket.socket:
        number = IPPROTO_MPTCP if protocol == "mptcp" and self._speaks_mptcp else socket.IPPROTO_TCP
        created = socket.socket(family, socket.SOCK_STREAM, number)
        created.setblocking(False)
        return created


def _set_options(created: socket.socket, options: Sequence[SocketOption]) -> None:
    for each in options:
        created.setsockopt(each.level, each.option, each.value)


def _resolve(address: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """The socket address of a numeric address, "fe80::1%eth0" included. Raises OSError."""
    try:
        found = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        )
    except socket.gaierror:
        raise OSError(errno.EINVAL, f"{address!r} is not an IP address") from None
    family, _, _, _, name = found[0]
    return family, name


async def _connect(connection: socket.socket, name: Any) -> None:
    # Not asyncio's: it looks the address up again, for a protocol that getaddrinfo(3) does not know.
    try:
        connection.connect(name)
    except BlockingIOError:
        await _writable(connection)
        number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number)) from None


async def _write_early(connection: socket.socket, data: bytes) -> None:
    """The first write, which is what connects if there is a cookie; all of it, once connected."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[connection.send(rest) :]
        except BlockingIOError:
            # EINPROGRESS too: without a cookie the SYN goes alone
            await _writable(connection)
            if number := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(number, os.strerror(number)) from None
    await _writable(connection)


async def _readable(waited_for: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(waited_for, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(waited_for)


async def _writable(waited_for: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(waited_for, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_writer(waited_for)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _format_name(name: Any) -> str:
    address: str = name[0]
    if "." in address:
        # An IPv6 socket names an IPv4 peer as ::ffff:10.0.0.1; the peer itself does not.
        address = address.removeprefix("::ffff:")
    return f"{address} {name[1]}"


def is_mptcp(connection: socket.socket) -> bool:
    try:
        return connection.getsockopt(socket.IPPROTO_TCP, TCP_IS_MPTCP) != 0
    except OSError:
        # Linux 6.1 does not know it for MPTCP sockets, which answer another one that TCP does not know.
        return bool(mptcp_info(connection))


def _tcp_state(connection: socket.socket) -> str:
    try:
        number = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError as error:
        return f"unknown: {error.strerror}"
    return _TCP_STATES[number] if number < len(_TCP_STATES) else f"state {number}"


def mptcp_info(connection: socket.socket) -> dict[str, object]:
    """The main fields of ``struct mptcp_info`` (linux/mptcp.h); empty when the connection has fallen back."""
    try:
        raw = connection.getsockopt(SOL_MPTCP, MPTCP_INFO, _MPTCP_INFO_BYTES)
    except OSError:
        return {}
    raw = raw.ljust(_MPTCP_INFO_BYTES, b"\0")
    return {name: struct.unpack_from("=" + kind, raw, offset)[0] for name, offset, kind in _MPTCP_INFO_FIELDS}
