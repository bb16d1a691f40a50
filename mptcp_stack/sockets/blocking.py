"""Blocking sockets over the stack, for programs that know nothing of asyncio: the calls of ``socket.socket``.

The stack runs on an event loop in a thread of its own; the sockets may be used from any thread, one thread at
a time for each direction.
"""

from __future__ import annotations

import asyncio
import io
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from errno import EAGAIN, EINPROGRESS, EINVAL, EISCONN, ENOTCONN, EOPNOTSUPP
from types import TracebackType
from typing import Any, Self, TypeVar

from mptcp_stack.device.interface import Device
from mptcp_stack.errors import ConfigurationError
from mptcp_stack.ip.interface import Interface
from mptcp_stack.listener import Listener
from mptcp_stack.mptcp import urgent_reading
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.mptcp.early_data import bytes_taken
from mptcp_stack.run_loop import RunLoop, monotonic_us
from mptcp_stack.sockets import lingering, options, queues
from mptcp_stack.sockets.common_options import (
    INTEGER,
    IPPROTO_TCP,
    SOL_SOCKET,
    TCP_INQ,
    get_common,
    refuse_for_mptcp,
    set_common,
)
from mptcp_stack.sockets.coroutines import StreamSocket
from mptcp_stack.sockets.readable_event import ReadableEvent, is_readable
from mptcp_stack.sockets.transports import SocketName, socket_name
from mptcp_stack.stack import Stack
from mptcp_stack.tcp.fast_open import Mode
from mptcp_stack.tcp.socket_options import DEFAULT_SOCKET_OPTIONS
from mptcp_stack.wire.addresses import parse_address

Result = TypeVar("Result")
Address = tuple[str, int]
START_LIMIT_S = 10.0
MSG_FASTOPEN = 0x20000000
MSG_OOB = int(socket.MSG_OOB)


class StackThread:
    """A stack with its devices, served by an event loop in a thread. Use as a context manager.

    The stack belongs to that thread from ``start`` on: configure it before, or by ``call``.
    """

    def __init__(self, stack: Stack, devices: Mapping[Interface, Device]) -> None:
        self.stack = stack
        self._devices = dict(devices)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="mptcp-stack", daemon=True)
        self._driver: RunLoop[Stack] | None = None
        self._is_ready = threading.Event()
        self._stop: asyncio.Event | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Returns when the stack is being served."""
        self._thread.start()
        if not self._is_ready.wait(START_LIMIT_S):
            raise RuntimeError(f"the stack's thread did not start within {START_LIMIT_S} s")

    def close(self) -> None:
        """Stops serving. Open sockets are of no use any more; the devices stay the caller's to close."""
        if self._thread.is_alive() and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        self._loop.close()

    def socket(self, *, protocol: str = "mptcp") -> BlockingSocket:
        """A new socket; ``protocol`` is "mptcp" or "tcp"."""
        return BlockingSocket(self, protocol)

    def create_connection(
        self, address: Address, timeout: float | None = None, *, protocol: str = "mptcp"
    ) -> BlockingSocket:
        """As ``socket.create_connection``. Raises OSError and TimeoutError."""
        new = self.socket(protocol=protocol)
        try:
            new.settimeout(timeout)
            new.connect(address)
        except BaseException:
            new.close()
            raise
        return new

    def create_server(
        self, address: Address, *, protocol: str = "mptcp", backlog: int = 128
    ) -> BlockingSocket:
        """As ``socket.create_server``; the host "" is any address of both families."""
        new = self.socket(protocol=protocol)
        new.bind(address)
        new.listen(backlog)
        return new

    def call(self, function: Callable[[], Result]) -> Result:
        """Has ``function`` called in the stack's thread, and gives what it gives or raises."""

        async def once() -> Result:
            return function()

        return self.wait(once(), None)

    def wait(self, work: Coroutine[Any, Any, Result], timeout: float | None) -> Result:
        """Runs a coroutine in the stack's thread. Raises TimeoutError, and what the coroutine raises."""
        limited = work if timeout is None else asyncio.wait_for(work, timeout)
        future: Future[Result] = asyncio.run_coroutine_threadsafe(limited, self._loop)
        try:
            return future.result()
        except TimeoutError as error:
            if error.errno is not None:
                # Not our limit: the peer did not answer.
                raise
            raise TimeoutError("timed out") from None
        except BaseException:
            future.cancel()
            raise

    def wake(self) -> None:
        """In the stack's thread: there is work."""
        if self._driver is not None:
            self._driver.wake()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve_until_stopped())

    async def _serve_until_stopped(self) -> None:
        self._stop = asyncio.Event()
        async with RunLoop(self.stack, self._devices) as driver:
            self._driver = driver
            self._is_ready.set()
            await self._stop.wait()
        self._driver = None
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()


class BlockingSocket:
    """One socket, as ``socket.socket`` is used. Errors are OSError with the kernel's errno."""

    def __init__(self, thread: StackThread, protocol: str, connection: Connection | None = None) -> None:
        self._thread = thread
        self._protocol = protocol
        self._connection: Connection | None = None
        self._stream: StreamSocket | None = None
        self._listener: Listener | None = None
        self._local: tuple[bytes | None, int] = (None, 0)
        self._options = DEFAULT_SOCKET_OPTIONS
        self._deferred: Address | None = None
        """Where the first write is to connect to (TCP_FASTOPEN_CONNECT)."""
        self._timeout: float | None = None
        self._readable = ReadableEvent()
        self._was_error_told = False
        self._error_of_disconnect = 0
        if connection is not None:
            thread.call(lambda: self._take(connection))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- opening ---

    def bind(self, address: Address) -> None:
        """Where to listen, or where to connect from; the stack checks it then."""
        host, port = address
        self._local = (parse_address(host) if host else None, port)

    def listen(self, backlog: int = 128) -> None:
        host, port = self._local

        def begin() -> Listener:
            listener = self._thread.stack.listen(host, port, protocol=self._protocol, backlog=backlog)
            listener.on_change = self._update_event
            listener.socket_options = self._options
            return listener

        self._listener = self._thread.call(begin)

    def accept(self) -> tuple[BlockingSocket, SocketName]:
        listener = self._listener
        if listener is None:
            raise OSError(EINVAL, "the socket does not listen")
        connection = self._thread.wait(self._accepted(listener), self._waiting_time())
        accepted = BlockingSocket(self._thread, self._protocol, connection)
        return accepted, accepted.getpeername()

    async def _accepted(self, listener: Listener) -> Connection:
        changed = asyncio.Event()
        before = listener.on_change
        listener.on_change = changed.set
        try:
            while (connection := listener.accept()) is None:
                if listener.is_closed:
                    raise OSError(EINVAL, "the socket was closed")
                if self._timeout == 0:
                    raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))
                await changed.wait()
                changed.clear()
        finally:
            listener.on_change = before
            self._update_event()
        return connection

    def _take(self, connection: Connection) -> None:
        """In the stack's thread: the socket is this connection's from now on."""
        self._connection = connection
        self._stream = StreamSocket(connection, self._thread.wake)
        wake_readers = connection.on_change

        def on_change() -> None:
            if wake_readers is not None:
                wake_readers()
            self._update_event()

        connection.on_change = on_change

    def connect(self, address: Address) -> None:
        """Waits for the handshake. Without blocking it is BlockingIOError(EINPROGRESS), and goes on."""
        if self._stream is not None or self._deferred is not None:
            raise OSError(EISCONN, os.strerror(EISCONN))
        if self._options.fast_open_connect:
            remote, local, options = parse_address(address[0]), self._local[0], self._options
            if self._thread.call(lambda: self._thread.stack.may_begin_early(remote, local, options)):
                self._deferred = address
                return
        self._begin(address, b"" if self._options.fast_open_connect else None)
        self._finish_connecting()

    def disconnect(self) -> None:
        """What connect(2) with AF_UNSPEC does: the socket is as new, but for its options and its binding.

        A connection ends as by closing with unread data (MP_FASTCLOSE, RST), and a listener listens no more.
        """
        self._deferred = None
        self._thread.call(self._disconnect)

    def _disconnect(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._options = self._listener.socket_options
            self._listener = None
            self._thread.wake()
        if self._connection is None or self._stream is None:
            return
        # Times of what is sent are of the clock, which stands still while nothing happens.
        self._thread.stack.environment.timers.clock_us = monotonic_us()
        self._options = self._connection.socket_options
        self._error_of_disconnect = self._stream.disconnect()
        self._connection = self._stream = None
        self._was_error_told = False
        self._update_event()

    def _begin(self, address: Address, early: bytes | None) -> int:
        """The bytes that go with the SYN."""
        host, port = address
        remote = parse_address(host)
        local, local_port = self._local

        def begin() -> int:
            connection = self._thread.stack.connect(
                remote,
                port,
                protocol=self._protocol,
                local=local,
                local_port=local_port,
                early=early,
                options=self._options,
            )
            self._take(connection)
            self._error_of_disconnect = 0
            self._thread.wake()
            return bytes_taken(connection)

        return self._thread.call(begin)

    def _finish_connecting(self) -> None:
        if self._timeout == 0:
            raise BlockingIOError(EINPROGRESS, os.strerror(EINPROGRESS))
        self._thread.wait(self._connected().wait_established(), self._timeout)

    # --- data ---

    def recv(self, max_bytes: int, flags: int = 0) -> bytes:
        """b"" at the end of the stream. With MSG_OOB TCP's urgent byte; MPTCP has none, and reads on."""
        stream = self._connected()
        if flags & MSG_OOB and urgent_reading.knows_urgency(self.connection):
            return self._thread.call(lambda: urgent_reading.read_apart(self.connection))
        return self._thread.wait(self._receive(stream, max_bytes), self._waiting_time())

    async def _receive(self, stream: StreamSocket, max_bytes: int) -> bytes:
        try:
            if self._timeout != 0:
                return await stream.read(max_bytes)
            data = stream.read_now(max_bytes)
            if data is None:
                raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))
            return data
        finally:
            self._update_event()

    def recvmsg(self, max_bytes: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, None]:
        """As ``recv``; with TCP_INQ the control messages say how much is left to be read."""
        data = self.recv(max_bytes)
        return data, self._thread.call(self._control_messages), 0, None

    def _control_messages(self) -> list[tuple[int, int, bytes]]:
        if not self.connection.socket_options.reports_unread:
            return []
        return [(IPPROTO_TCP, TCP_INQ, INTEGER.pack(queues.inq_hint(self.connection)))]

    def ioctl(self, request: int) -> int:
        """What waits in the queues: FIONREAD, SIOCOUTQ, SIOCOUTQNSD; and SIOCATMARK."""
        if self._listener is not None:
            raise OSError(EINVAL, "the socket listens")
        if self._stream is None:
            return 0
        return self._thread.call(lambda: queues.ask(self.connection, request))

    def recv_into(self, buffer: bytearray | memoryview) -> int:
        view = memoryview(buffer)
        data = self.recv(len(view))
        view[: len(data)] = data
        return len(data)

    def sendto(self, data: bytes, flags: int, address: Address) -> int:
        """Begins the connection with data, as far as it may go with the SYN: MSG_FASTOPEN (RFC 7413).

        Without blocking the result is what went, or BlockingIOError(EINPROGRESS); else everything is sent.
        """
        if flags != MSG_FASTOPEN:
            raise OSError(EOPNOTSUPP, "the flags have to be MSG_FASTOPEN")
        if self._stream is not None or self._deferred is not None:
            raise OSError(EISCONN, os.strerror(EISCONN))
        if not self._thread.call(lambda: self._thread.stack.settings.tcp_fastopen & Mode.CLIENT):
            raise OSError(EOPNOTSUPP, "net.ipv4.tcp_fastopen")
        return self._send_first(address, bytes(data))

    def _send_first(self, address: Address, data: bytes) -> int:
        taken = self._begin(address, data)
        if taken and self._timeout == 0:
            return taken
        self._finish_connecting()
        if taken < len(data):
            self.sendall(data[taken:])
        return len(data)

    def send(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:
        """At least one byte, or BlockingIOError when there is no room and the socket does not block.

        With MSG_OOB the last byte is urgent to TCP.
        """
        if self._deferred is not None:
            address, self._deferred = self._deferred, None
            return self._send_first(address, bytes(data))
        stream = self._connected()
        is_urgent = bool(flags & MSG_OOB)
        accepted = self._thread.call(lambda: stream.write_now(bytes(data), urgent=is_urgent))
        if accepted or not len(data):
            return accepted
        if self._timeout == 0:
            raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))
        self._thread.wait(stream.write(bytes(data[:1])), self._timeout)
        return 1

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        if self._deferred is not None:
            data = data[self.send(data) :]
        self._thread.wait(self._connected().write(bytes(data)), self._waiting_time())

    def shutdown(self, how: int) -> None:
        """SHUT_WR and SHUT_RDWR end what is sent."""
        stream = self._connected()
        if how != socket.SHUT_RD:
            self._thread.call(stream.shutdown_write)

    def close(self) -> None:
        """Closing twice is harmless. With SO_LINGER it waits for the peer to have everything."""
        stream, listener = self._stream, self._listener
        if stream is not None:
            self._thread.wait(lingering.close(stream, self.connection), None)
        if listener is not None and not listener.is_closed:
            self._thread.call(listener.close)
            self._thread.call(self._thread.wake)
        self._readable.close()

    def makefile(self, mode: str = "rb", buffering: int = io.DEFAULT_BUFFER_SIZE) -> io.BufferedIOBase:
        """A binary file over the socket, for "rb", "wb" and "rwb"; closing it leaves the socket open."""
        raw = _SocketFile(self)
        if mode == "rb":
            return io.BufferedReader(raw, buffering)
        if mode == "wb":
            return io.BufferedWriter(raw, buffering)
        if mode == "rwb":
            return io.BufferedRWPair(raw, raw, buffering)
        raise ConfigurationError(f"makefile mode: expected rb, wb or rwb, got {mode!r}")

    # --- waiting ---

    def settimeout(self, timeout: float | None) -> None:
        """None waits for ever, 0 never."""
        if timeout is not None and timeout < 0:
            raise ValueError(f"timeout: expected None or at least 0, got {timeout}")
        self._timeout = timeout

    def gettimeout(self) -> float | None:
        return self._timeout

    def setblocking(self, is_blocking: bool) -> None:
        self.settimeout(None if is_blocking else 0.0)

    def fileno(self) -> int:
        """For select and poll: readable while a read, or an accept, would not block."""
        return self._thread.call(self._open_event)

    def _open_event(self) -> int:
        descriptor = self._readable.open()
        self._update_event()
        return descriptor

    def _update_event(self) -> None:
        if self._connection is not None:
            self._readable.set_to(is_readable(self._connection))
        elif self._listener is not None:
            self._readable.set_to(self._listener.has_ready)
        else:
            self._readable.set_to(False)

    def _waiting_time(self) -> float | None:
        return None if self._timeout == 0 else self._timeout

    # --- names and options ---

    @property
    def connection(self) -> Connection:
        """The stack's side, to be touched in its thread only. Raises OSError(ENOTCONN)."""
        if self._connection is None:
            raise OSError(ENOTCONN, os.strerror(ENOTCONN))
        return self._connection

    def getsockname(self) -> SocketName:
        if self._connection is not None:
            connection = self._connection
            return socket_name(connection.local, connection.is_ipv6_socket)
        if self._listener is not None:
            return socket_name(
                (self._listener.address or bytes(16), self._listener.port), self._listener.is_ipv6
            )
        return socket_name((self._local[0] or bytes(4), self._local[1]), False)

    def getpeername(self) -> SocketName:
        connection = self.connection
        return socket_name(connection.remote, connection.is_ipv6_socket)

    def getsockopt(self, level: int, option: int, length: int = 0, *, request: bytes = b"") -> int | bytes:
        """An int without a length, as with ``socket.socket``; ``request`` is the buffer on its way in."""
        data = self._thread.call(lambda: self._get_option(level, option, length or 4, request))
        return data if length else int.from_bytes(data, "little", signed=True)

    def _get_option(self, level: int, option: int, length: int, request: bytes) -> bytes:
        if (level, option) == (SOL_SOCKET, int(socket.SO_ERROR)):
            return INTEGER.pack(self._take_error())
        if self._stream is None:
            return get_common(self._options, self._thread.stack.settings, level, option, length)
        # Times since something happened are told by a clock that stands still while nothing does.
        self._thread.stack.environment.timers.clock_us = monotonic_us()
        return options.get_option(self.connection, level, option, length, request)

    def _take_error(self) -> int:
        """Reading SO_ERROR clears it."""
        if self._stream is None:
            told, self._error_of_disconnect = self._error_of_disconnect, 0
            return told
        error = None if self._was_error_told else self._stream.error
        if error == ENOTCONN:
            # It was lost without an error, as for Linux; only reading tells.
            return 0
        if error is None:
            return options.take_soft_error(self.connection)
        self._was_error_told = True
        return error

    def setsockopt(self, level: int, option: int, value: int | bytes) -> bytes:
        packed = INTEGER.pack(value) if isinstance(value, int) else bytes(value)
        return self._thread.call(lambda: self._set_option(level, option, packed))

    def _set_option(self, level: int, option: int, value: bytes) -> bytes:
        if self._stream is None:
            if self._protocol == "mptcp":
                refuse_for_mptcp(level, option)
            self._options = set_common(self._options, self._thread.stack.settings, level, option, value)
            return b""
        answer = options.set_option(self.connection, level, option, value)
        self._thread.wake()
        return answer

    def _connected(self) -> StreamSocket:
        if self._stream is None:
            error, self._error_of_disconnect = self._error_of_disconnect or ENOTCONN, 0
            raise OSError(error, os.strerror(error))
        return self._stream


class _SocketFile(io.RawIOBase):
    def __init__(self, owner: BlockingSocket) -> None:
        self._owner = owner

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._owner.recv_into(buffer)

    def write(self, data: Any) -> int:
        return self._owner.send(bytes(data))
