"""asyncio transports over the stack: what was made for asyncio runs on them unchanged, its TLS included."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.sockets.options import get_option, set_option
from mptcp_stack.wire.addresses import format_address, unmap

READ_BYTES = 256 * 1024
"""Read at a time, so that one busy connection does not keep the event loop from the others."""
HIGH_WATER_BYTES = 64 * 1024
"""asyncio's own default for what may wait in a transport before it asks its protocol to pause."""

SocketName = tuple[str, int] | tuple[str, int, int, int]


def socket_name(end: tuple[bytes, int], is_ipv6: bool) -> SocketName:
    """As getsockname(2) in Python: (host, port), or with flow label and scope for an IPv6 socket."""
    packed, port = end
    if not is_ipv6:
        return format_address(unmap(packed)), port
    mapped = packed if len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed
    return format_address(mapped), port, 0, 0


class TransportSocket:
    """What ``get_extra_info("socket")`` gives: names and options, but no way around the transport."""

    __slots__ = ("_connection", "_wake")

    def __init__(self, connection: Connection, wake: Callable[[], None]) -> None:
        self._connection = connection
        self._wake = wake

    def getsockname(self) -> SocketName:
        return socket_name(self._connection.local, self._connection.is_ipv6_socket)

    def getpeername(self) -> SocketName:
        return socket_name(self._connection.remote, self._connection.is_ipv6_socket)

    def getsockopt(self, level: int, option: int, length: int = 0, *, request: bytes = b"") -> int | bytes:
        """As ``socket.getsockopt``: an int without a length. ``request`` is the buffer on its way in."""
        if length:
            return get_option(self._connection, level, option, length, request)
        return int.from_bytes(get_option(self._connection, level, option, 4), "little", signed=True)

    def setsockopt(self, level: int, option: int, value: int | bytes) -> bytes:
        """Gives what an option that answers has put into the buffer."""
        packed = value.to_bytes(4, "little", signed=True) if isinstance(value, int) else bytes(value)
        answer = set_option(self._connection, level, option, packed)
        self._wake()
        return answer


class StreamTransport(asyncio.Transport):
    """One connection of the stack. ``wake`` tells the driver that there is work.

    An error of the connection ends in ``connection_lost`` with the OSError that a kernel socket would give.
    """

    _start_tls_compatible = True
    """What ``loop.start_tls`` asks of a transport."""

    def __init__(
        self,
        connection: Connection,
        protocol: asyncio.BaseProtocol,
        wake: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        extra: dict[str, Any] | None = None,
    ) -> None:
        names = {
            "socket": TransportSocket(connection, wake),
            "sockname": socket_name(connection.local, connection.is_ipv6_socket),
            "peername": socket_name(connection.remote, connection.is_ipv6_socket),
            "connection": connection,
        }
        super().__init__({**names, **(extra or {})})
        self._connection = connection
        self._protocol = protocol
        self._wake = wake
        self._loop = loop
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._low_bytes, self._high_bytes = HIGH_WATER_BYTES // 4, HIGH_WATER_BYTES
        self._is_protocol_paused = False
        self._is_reading = True
        self._is_closing = self._is_lost = False
        self._eof_was_told = self._wants_eof = False
        self._is_scheduled = False
        connection.on_change = self._schedule

    def start(self) -> None:
        """Tells the protocol of its connection, and begins to read."""
        self._protocol.connection_made(self)
        self._schedule()

    # --- what protocols ask ---

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def is_reading(self) -> bool:
        return self._is_reading and not self._is_closing

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        self._schedule()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Takes all of it; what the stack has no room for waits here, and the protocol is asked to pause."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data: expected bytes, a bytearray or a memoryview, got {type(data).__name__}")
        if self._wants_eof:
            raise RuntimeError("write() after write_eof()")
        if not len(data) or self._is_lost:
            return
        accepted = 0 if self._unsent else self._try_write(data)
        if accepted == len(data):
            return
        self._unsent.append(bytes(memoryview(data)[accepted:]))
        self._unsent_bytes += len(data) - accepted
        if self._unsent_bytes > self._high_bytes and not self._is_protocol_paused:
            self._is_protocol_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Ends the outgoing stream behind what was written."""
        self._wants_eof = True
        self._schedule()

    def get_write_buffer_size(self) -> int:
        return self._unsent_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low_bytes, self._high_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Raises ValueError for limits that are not 0 ≤ low ≤ high."""
        if high is None:
            high = HIGH_WATER_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not 0 <= low <= high:
            raise ValueError(f"write buffer limits: expected 0 <= low <= high, got low {low}, high {high}")
        self._low_bytes, self._high_bytes = low, high

    def close(self) -> None:
        """Closes in order, behind everything that was written."""
        if not self._is_closing:
            self._is_closing = True
            self._schedule()

    def abort(self) -> None:
        """Drops everything and tells the peer: MP_FASTCLOSE on MPTCP, RST on TCP."""
        if not self._is_lost:
            self._connection.abort()
            self._wake()
            self._lose(None)

    def _force_close(self, error: BaseException | None) -> None:
        """What asyncio's TLS calls on a transport when its handshake fails: no more waiting for anybody."""
        if not self._is_lost:
            self._connection.close()
            self._wake()
            self._lose(error if isinstance(error, Exception) else None)

    # --- driven by the stack's changes ---

    def _schedule(self) -> None:
        """Within the stack nothing may call back into it, so the work is done soon after."""
        if not self._is_scheduled and not self._is_lost:
            self._is_scheduled = True
            self._loop.call_soon(self._service)

    def _service(self) -> None:
        self._is_scheduled = False
        if self._is_lost:
            return
        self._flush()
        self._read()
        if self._connection.error is not None and not self._is_lost and not self._may_read():
            self._lose(OSError(self._connection.error, os.strerror(self._connection.error)))
        elif self._is_closing and not self._unsent and not self._is_lost:
            self._connection.close()
            self._wake()
            self._lose(None)

    def _may_read(self) -> bool:
        """Data that came before an error is given first, as the kernel does."""
        return bool(self._connection.readable_bytes) and self._is_reading and not self._is_closing

    def _try_write(self, data: bytes | bytearray | memoryview[Any]) -> int:
        try:
            accepted = self._connection.write(data)
        except OSError:
            # ``_service`` finds out how the connection ended; to the kernel's sockets it is the same.
            self._schedule()
            return len(data)
        if accepted:
            self._wake()
        return accepted

    def _flush(self) -> None:
        while self._unsent and self._connection.check_writable():
            part = self._unsent[0]
            accepted = self._try_write(part)
            self._unsent_bytes -= accepted
            if accepted < len(part):
                self._unsent[0] = part[accepted:]
                break
            self._unsent.popleft()
        if self._is_protocol_paused and self._unsent_bytes <= self._low_bytes:
            self._is_protocol_paused = False
            self._protocol.resume_writing()
        if self._wants_eof and not self._unsent and self._connection.error is None:
            self._connection.shutdown_write()
            self._wake()

    def _read(self) -> None:
        """One bounded helping; the rest has its turn after the event loop's other work."""
        given = 0
        while self._may_read() and given < READ_BYTES:
            given += self._give_some()
        if given:
            # The window that this opens may be worth an announcement.
            self._wake()
        if self._may_read():
            self._schedule()
        elif self.is_reading() and self._connection.end_of_stream and not self._eof_was_told:
            self._eof_was_told = True
            if not self._tell_eof():
                self.close()

    def _give_some(self) -> int:
        protocol = self._protocol
        if isinstance(protocol, asyncio.BufferedProtocol):
            space = memoryview(protocol.get_buffer(READ_BYTES))
            data = self._connection.read(min(len(space), READ_BYTES))
            space[: len(data)] = data
            protocol.buffer_updated(len(data))
            return len(data)
        data = self._connection.read(READ_BYTES)
        if isinstance(protocol, asyncio.Protocol):
            protocol.data_received(data)
        return len(data)

    def _tell_eof(self) -> bool:
        protocol = self._protocol
        if isinstance(protocol, asyncio.Protocol | asyncio.BufferedProtocol):
            return bool(protocol.eof_received())
        return False

    def _lose(self, error: Exception | None) -> None:
        self._is_closing = self._is_lost = True
        self._connection.on_change = None
        self._unsent.clear()
        self._unsent_bytes = 0
        self._loop.call_soon(self._protocol.connection_lost, error)
