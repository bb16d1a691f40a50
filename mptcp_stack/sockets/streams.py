"""asyncio's streams, clients and servers over the stack: the calls of asyncio with the driver in front."""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.listener import Listener
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.mptcp.early_data import bytes_taken
from mptcp_stack.sockets.coroutines import StreamSocket
from mptcp_stack.sockets.transports import SocketName, StreamTransport, socket_name
from mptcp_stack.stack import Stack
from mptcp_stack.wire.addresses import parse_address

STREAM_LIMIT_BYTES = 64 * 1024
"""asyncio's own default for a StreamReader."""

AnyProtocol = TypeVar("AnyProtocol", bound=asyncio.BaseProtocol)
ClientConnected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]


class StackDriver(Protocol):
    """What streams need of a run loop."""

    @property
    def stack(self) -> Stack: ...

    def wake(self) -> None:
        """Work was queued in the stack."""
        ...


async def create_connection(
    driver: StackDriver,
    protocol_factory: Callable[[], AnyProtocol],
    host: bytes | str,
    port: int,
    *,
    ssl: tls.SSLContext | None = None,
    server_hostname: str | None = None,
    protocol: str = "mptcp",
    local: bytes | str | None = None,
    local_port: int = 0,
    early_data: bytes | None = None,
) -> tuple[asyncio.Transport, AnyProtocol]:
    """As ``loop.create_connection``; ``host`` is an address and ``protocol`` "mptcp" or "tcp".

    ``early_data`` comes before all else that is written. What may of it goes with the SYN (RFC 7413), so that
    the server may see it twice. Empty data asks for the cookie that the next connection needs.

    Raises OSError (ECONNREFUSED, ETIMEDOUT, ENETUNREACH …), ssl.SSLError, and ConfigurationError for
    text that is no address. Cancelling it aborts the attempt.
    """
    loop = asyncio.get_running_loop()
    if ssl is not None and server_hostname is None:
        if not isinstance(host, str):
            raise ConfigurationError("server_hostname: needed to check the certificate of a packed address")
        server_hostname = host
    if ssl is not None and early_data is not None:
        raise ConfigurationError("early_data: TLS has to begin the stream")
    connection = driver.stack.connect(
        _packed(host),
        port,
        protocol=protocol,
        local=None if local is None else _packed(local),
        local_port=local_port,
        early=early_data,
    )
    taken = bytes_taken(connection)
    await _established(connection, driver, loop)
    if early_data is not None and taken < len(early_data):
        await StreamSocket(connection, driver.wake).write(early_data[taken:])
    application = protocol_factory()
    transport = await _start(connection, application, driver, loop, ssl, server_hostname=server_hostname)
    return transport, application


async def open_connection(
    driver: StackDriver,
    host: bytes | str,
    port: int,
    *,
    limit: int = STREAM_LIMIT_BYTES,
    ssl: tls.SSLContext | None = None,
    server_hostname: str | None = None,
    protocol: str = "mptcp",
    local: bytes | str | None = None,
    local_port: int = 0,
    early_data: bytes | None = None,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As ``asyncio.open_connection``. Raises what ``create_connection`` raises."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    transport, stream_protocol = await create_connection(
        driver,
        lambda: asyncio.StreamReaderProtocol(reader, loop=loop),
        host,
        port,
        ssl=ssl,
        server_hostname=server_hostname,
        protocol=protocol,
        local=local,
        local_port=local_port,
        early_data=early_data,
    )
    return reader, asyncio.StreamWriter(transport, stream_protocol, reader, loop)


async def create_server(
    driver: StackDriver,
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    host: bytes | str | None = None,
    port: int = 0,
    *,
    ssl: tls.SSLContext | None = None,
    protocol: str = "mptcp",
    backlog: int = 128,
    fast_open: int = 0,
) -> StackServer:
    """As ``loop.create_server``: serves at once; ``host`` None is any address of both families.

    With ``fast_open``, so many connections may be pending that began with data in their SYN (RFC 7413).
    Raises OSError (EADDRINUSE …), and ConfigurationError for text that is no address.
    """
    packed = None if host is None else _packed(host)
    listener = driver.stack.listen(packed, port, protocol=protocol, backlog=backlog)
    listener.socket_options = replace(listener.socket_options, fast_open_queue=fast_open)
    server = StackServer(listener, protocol_factory, driver, asyncio.get_running_loop(), ssl)
    await server.start_serving()
    return server


async def start_server(
    driver: StackDriver,
    client_connected_cb: ClientConnected,
    host: bytes | str | None = None,
    port: int = 0,
    *,
    limit: int = STREAM_LIMIT_BYTES,
    ssl: tls.SSLContext | None = None,
    protocol: str = "mptcp",
    backlog: int = 128,
    fast_open: int = 0,
) -> StackServer:
    """As ``asyncio.start_server``: the callback gets a reader and a writer for each client."""
    loop = asyncio.get_running_loop()

    def stream_protocol() -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        return asyncio.StreamReaderProtocol(reader, client_connected_cb, loop=loop)

    return await create_server(
        driver, stream_protocol, host, port, ssl=ssl, protocol=protocol, backlog=backlog, fast_open=fast_open
    )


class StackServer(asyncio.AbstractServer):
    """A listening port whose connections each get a protocol. An async context manager, as asyncio's is."""

    def __init__(
        self,
        listener: Listener,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        driver: StackDriver,
        loop: asyncio.AbstractEventLoop,
        ssl: tls.SSLContext | None,
    ) -> None:
        self._listener = listener
        self._protocol_factory = protocol_factory
        self._driver = driver
        self._loop = loop
        self._ssl = ssl
        self._is_serving = False
        self._is_scheduled = False
        self._handshakes: set[asyncio.Task[None]] = set()
        self._closed = loop.create_future()

    @property
    def name(self) -> SocketName:
        """Where it listens."""
        return socket_name((self._listener.address or bytes(16), self._listener.port), self._listener.is_ipv6)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def is_serving(self) -> bool:
        return self._is_serving

    async def start_serving(self) -> None:
        self._is_serving = True
        self._listener.on_change = self._schedule
        self._schedule()

    async def serve_forever(self) -> None:
        """Until it is closed; cancelling it closes it."""
        await self.start_serving()
        try:
            await asyncio.shield(self._closed)
        finally:
            self.close()

    def close(self) -> None:
        """Accepts no more; connections that were accepted live on."""
        self._is_serving = False
        self._listener.close()
        self._driver.wake()
        if not self._closed.done():
            self._closed.set_result(None)

    async def wait_closed(self) -> None:
        """Until it is closed and no TLS handshake is under way."""
        await asyncio.shield(self._closed)
        if self._handshakes:
            await asyncio.wait(self._handshakes)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._accept)

    def _accept(self) -> None:
        self._is_scheduled = False
        while self._is_serving and (connection := self._listener.accept()) is not None:
            application = self._protocol_factory()
            if self._ssl is None:
                StreamTransport(connection, application, self._driver.wake, self._loop).start()
                continue
            task = self._loop.create_task(self._accept_tls(connection, application))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _accept_tls(self, connection: Connection, application: asyncio.BaseProtocol) -> None:
        try:
            await _start(connection, application, self._driver, self._loop, self._ssl, server_side=True)
        except (OSError, tls.SSLError) as error:
            # The client's own fault: as with asyncio's server the loop's handler is told, and it serves on.
            self._loop.call_exception_handler({"message": "TLS handshake failed", "exception": error})


async def _established(connection: Connection, driver: StackDriver, loop: asyncio.AbstractEventLoop) -> None:
    """Waits for the handshake. Raises OSError when it fails; cancelling aborts it."""
    attempt = StreamSocket(connection, driver.wake)
    driver.wake()
    try:
        await attempt.wait_established()
    except BaseException:
        attempt.abort()
        raise


class _HandshakeGate(asyncio.Protocol):
    """Stands in for the application until the TLS handshake is over, and keeps what comes too early."""

    def __init__(self) -> None:
        self.early: list[bytes] = []
        self.eof = False
        self.lost: list[Exception | None] = []

    def data_received(self, data: bytes) -> None:
        self.early.append(data)

    def eof_received(self) -> bool:
        self.eof = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


async def _start(
    connection: Connection,
    application: asyncio.BaseProtocol,
    driver: StackDriver,
    loop: asyncio.AbstractEventLoop,
    ssl: tls.SSLContext | None,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
) -> asyncio.Transport:
    """Gives an established connection its transport, and TLS above it where that is asked for."""
    if ssl is None:
        transport = StreamTransport(connection, application, driver.wake, loop)
        transport.start()
        return transport
    gate = _HandshakeGate()
    plain = StreamTransport(connection, gate, driver.wake, loop)
    plain.start()
    try:
        encrypted = await loop.start_tls(
            plain, gate, ssl, server_side=server_side, server_hostname=server_hostname
        )
    except BaseException:
        plain.abort()
        raise
    if encrypted is None:
        raise ConnectionResetError("the connection was lost during the TLS handshake")
    encrypted.set_protocol(application)
    application.connection_made(encrypted)
    _catch_up(gate, application)
    return encrypted


def _catch_up(gate: _HandshakeGate, application: asyncio.BaseProtocol) -> None:
    """What happened between the end of the handshake and now."""
    if isinstance(application, asyncio.Protocol):
        for data in gate.early:
            application.data_received(data)
        if gate.eof:
            application.eof_received()
    for error in gate.lost:
        application.connection_lost(error)


def _packed(address: bytes | str) -> bytes:
    return parse_address(address) if isinstance(address, str) else address
