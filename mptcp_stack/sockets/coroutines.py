"""Stream sockets for asyncio programs over a stack that a run loop drives.

Errors are OSError with the errno that the kernel's sockets would give. All of it runs on the run loop's
event loop and belongs to one thread.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from mptcp_stack.driver import SocketStack, StreamConnection, StreamListener
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.frame import Buffer


class SocketDriver(Protocol):
    """What sockets need of a run loop."""

    @property
    def stack(self) -> SocketStack: ...

    def wake(self) -> None:
        """Work was queued in the stack."""
        ...


class _Change:
    """Wakes every task that waits for a connection or listener to change."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    def notify(self) -> None:
        """Called from within the stack: only schedules the waiting tasks."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class StreamSocket:
    """One end of a connection. As an async context manager it closes itself at the end."""

    __slots__ = ("_change", "_connection", "_is_closed_locally", "_wake")

    def __init__(self, connection: StreamConnection, wake: Callable[[], None]) -> None:
        self._connection = connection
        self._wake = wake
        self._change = _Change()
        self._is_closed_locally = False
        connection.on_change = self._change.notify

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def connection(self) -> StreamConnection:
        """The stack's side of the socket, for diagnostics."""
        return self._connection

    @property
    def is_mptcp(self) -> bool:
        """False for plain TCP, and after a fallback to it."""
        return self._connection.is_mptcp

    @property
    def local(self) -> tuple[bytes, int]:
        """Packed address and port."""
        return self._connection.local

    @property
    def remote(self) -> tuple[bytes, int]:
        """Packed address and port."""
        return self._connection.remote

    @property
    def error(self) -> int | None:
        """The errno that ended the connection, None while there is none."""
        return self._connection.error

    @property
    def is_closed(self) -> bool:
        """Whether nothing is left of the connection in the stack."""
        return self._connection.is_closed

    async def read(self, max_bytes: int) -> bytes:
        """Wait for data and return up to ``max_bytes``; ``b""`` at the end of the stream.

        Data that came before an error is given first, as the kernel does. Raises OSError, ValueError.
        """
        while (data := self.read_now(max_bytes)) is None:
            await self._change.wait()
        return data

    def read_now(self, max_bytes: int) -> bytes | None:
        """As ``read``, but None where that would wait."""
        if max_bytes < 1:
            raise ValueError(f"max_bytes is {max_bytes}, expected at least 1")
        self._check_open()
        connection = self._connection
        data = connection.read(max_bytes)
        if data:
            # The window that this opens may be worth an announcement.
            if connection.wants_output:
                self._wake()
            return data
        if connection.error is not None:
            raise _os_error(connection.error)
        return b"" if connection.end_of_stream or connection.is_closed else None

    async def peek(self, max_bytes: int) -> bytes:
        """As ``read``, but what it gives stays to be read (MSG_PEEK)."""
        if max_bytes < 1:
            raise ValueError(f"max_bytes is {max_bytes}, expected at least 1")
        while True:
            self._check_open()
            connection = self._connection
            if data := connection.peek(max_bytes):
                return data
            if connection.error is not None:
                raise _os_error(connection.error)
            if connection.end_of_stream or connection.is_closed:
                return b""
            await self._change.wait()

    async def read_exactly(self, byte_count: int) -> bytes:
        """Wait for exactly so many bytes. Raises asyncio.IncompleteReadError when the stream ends before."""
        parts: list[bytes] = []
        missing = byte_count
        while missing:
            part = await self.read(missing)
            if not part:
                raise asyncio.IncompleteReadError(b"".join(parts), byte_count)
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    async def write(self, data: Buffer) -> None:
        """Queue all of ``data``, waiting for room as often as needed.

        Immutable memory is not copied on its way into the stack. Raises OSError.
        """
        rest = memoryview(data)
        while True:
            accepted = self.write_now(rest)
            rest = rest[accepted:]
            if not rest:
                return
            if not accepted:
                await self._change.wait()
                while not self._connection.check_writable():
                    await self._change.wait()

    def write_now(self, data: Buffer, *, urgent: bool = False) -> int:
        """Queues what there is room for, maybe nothing. Raises OSError.

        With ``urgent`` (MSG_OOB) the last byte of it is urgent to TCP.
        """
        self._check_writable()
        accepted = self._connection.write(data, urgent=True) if urgent else self._connection.write(data)
        if accepted:
            self._wake()
        return accepted

    async def drain(self) -> None:
        """Wait until the peer has acknowledged everything written. Raises OSError."""
        connection = self._connection
        while connection.unacknowledged_bytes:
            if connection.error is not None:
                raise _os_error(connection.error)
            if connection.is_closed:
                raise _os_error(errno.EPIPE)
            await self._change.wait()

    def shutdown_write(self) -> None:
        """End the outgoing stream behind what was written."""
        self._check_open()
        self._connection.shutdown_write()
        self._wake()

    def close(self) -> None:
        """Close in order: what was written is still delivered. Closing twice is harmless."""
        if self._is_closed_locally:
            return
        self._is_closed_locally = True
        self._connection.close()
        self._wake()
        self._change.notify()

    def abort(self) -> None:
        """Drop everything and tell the peer: MP_FASTCLOSE on MPTCP, RST on TCP."""
        self._is_closed_locally = True
        self._connection.abort()
        self._wake()
        self._change.notify()

    def disconnect(self) -> int:
        """What connect(2) with AF_UNSPEC does: ends the connection at once, and the socket has none.

        The peer is told as by ``abort``, and what was not read is gone. Harmless on a socket without a
        connection. Returns what SO_ERROR tells next: an errno, or 0.
        """
        self._check_open()
        told = self._connection.disconnect()
        self._wake()
        self._change.notify()
        return told

    def renew(self, connection: StreamConnection) -> None:
        """After ``disconnect``: the socket is of this connection. Raises OSError(EISCONN)."""
        self._check_open()
        if not self._connection.is_closed:
            raise _os_error(errno.EISCONN)
        self._connection.on_change = None
        self._connection = connection
        connection.on_change = self._change.notify

    async def wait_closed(self) -> None:
        """Wait until the stack has forgotten the connection, after ``close``, ``abort`` or an error."""
        await self.wait_until(lambda: self._connection.is_closed)

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Until something holds of the connection; it is asked after each change."""
        while not condition():
            await self._change.wait()

    async def wait_established(self) -> None:
        """Wait for the handshake. Raises OSError when it fails."""
        connection = self._connection
        while not connection.is_established:
            if connection.error is not None:
                raise _os_error(connection.error)
            if connection.is_closed or self._is_closed_locally:
                raise _os_error(errno.ECONNABORTED)
            await self._change.wait()

    def _check_open(self) -> None:
        if self._is_closed_locally:
            raise _os_error(errno.EBADF)

    def _check_writable(self) -> None:
        self._check_open()
        if self._connection.error not in (None, errno.ENOTCONN):
            raise _os_error(self._connection.error)
        if self._connection.is_closed:
            raise _os_error(errno.EPIPE)


async def open_connection(
    driver: SocketDriver,
    host: bytes | str,
    port: int,
    *,
    protocol: str = "mptcp",
    local: bytes | str | None = None,
    local_port: int = 0,
) -> StreamSocket:
    """Connect to ``host`` (packed or text) and wait for the handshake.

    ``protocol`` is "mptcp" or "tcp". Raises OSError (ECONNREFUSED, ETIMEDOUT, ENETUNREACH …), and
    ConfigurationError for text that is no address. Cancelling it aborts the attempt.
    """
    connection = driver.stack.connect(
        _packed(host),
        port,
        protocol=protocol,
        local=None if local is None else _packed(local),
        local_port=local_port,
    )
    stream = StreamSocket(connection, driver.wake)
    driver.wake()
    try:
        await stream.wait_established()
    except BaseException:
        stream.abort()
        raise
    return stream


class ListeningSocket:
    """A listening port. As an async context manager it closes itself at the end."""

    __slots__ = ("_change", "_is_closed", "_listener", "_wake")

    def __init__(self, listener: StreamListener, wake: Callable[[], None]) -> None:
        self._listener = listener
        self._wake = wake
        self._change = _Change()
        self._is_closed = False
        listener.on_change = self._change.notify

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> bytes | None:
        """Packed; None for any address of both families."""
        return self._listener.address

    @property
    def port(self) -> int:
        return self._listener.port

    async def accept(self) -> StreamSocket:
        """Wait for a connection. Raises OSError(EBADF) once the socket is closed."""
        while True:
            if self._is_closed:
                raise _os_error(errno.EBADF)
            connection = self._listener.accept()
            if connection is not None:
                return StreamSocket(connection, self._wake)
            await self._change.wait()

    def close(self) -> None:
        """Accept no more; connections that were not accepted yet are reset. Closing twice is harmless."""
        if self._is_closed:
            return
        self._is_closed = True
        self._listener.close()
        self._wake()
        self._change.notify()


def listen(
    driver: SocketDriver,
    address: bytes | str | None = None,
    port: int = 0,
    *,
    protocol: str = "mptcp",
    backlog: int = 128,
) -> ListeningSocket:
    """Listen on ``address`` (packed or text; None: any, both families); port 0 lets the stack choose.

    Raises OSError (EADDRINUSE …), and ConfigurationError for text that is no address.
    """
    packed = None if address is None else _packed(address)
    listener = driver.stack.listen(packed, port, protocol=protocol, backlog=backlog)
    return ListeningSocket(listener, driver.wake)


def _packed(address: bytes | str) -> bytes:
    return parse_address(address) if isinstance(address, str) else address
