"""asyncio's streams, protocols and TLS over the stack, on wires in memory."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import random
import socket
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trustme

from mptcp_stack.device.in_memory import in_memory_pair
from mptcp_stack.errors import ConfigurationError
from mptcp_stack.run_loop import RunLoop
from mptcp_stack.sockets.streams import create_connection, create_server, open_connection, start_server
from mptcp_stack.sockets.transports import HIGH_WATER_BYTES, StreamTransport
from mptcp_stack.stack import Stack
from tests.sockets.test_over_run_loop import MACS, SERVER, running

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await coroutine

    asyncio.run(bounded())


@asynccontextmanager
async def two_hosts() -> AsyncIterator[tuple[RunLoop[Stack], RunLoop[Stack]]]:
    async with running(in_memory_pair(("a0", "b0"), MACS)) as loops:
        yield loops


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's and the client's, who trusts the server."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("server.example", SERVER[4]).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(70_000):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    writer.close()


async def digest_of(reader: asyncio.StreamReader, length: int) -> str:
    digest = hashlib.sha256()
    while length:
        data = await reader.read(min(length, 1 << 16))
        assert data, f"{length} bytes are missing"
        length -= len(data)
        digest.update(data)
    return digest.hexdigest()


async def write_all(writer: asyncio.StreamWriter, data: bytes) -> None:
    for start in range(0, len(data), 50_000):
        writer.write(data[start : start + 50_000])
        await writer.drain()


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_streams_carry_data_both_ways(family: int, protocol: str) -> None:
    data = random.Random(3).randbytes(3_000_000)

    async def scenario() -> None:
        async with two_hosts() as (client, server), await start_server(server, echo, None, 80):
            reader, writer = await open_connection(client, SERVER[family], 80, protocol=protocol)
            _, received = await asyncio.gather(write_all(writer, data), digest_of(reader, len(data)))
            assert received == hashlib.sha256(data).hexdigest()
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            assert writer.get_extra_info("peername")[:2] == (SERVER[family], 80)
            assert writer.get_extra_info("connection").is_mptcp == (protocol == "mptcp")

    run(scenario())


@pytest.mark.parametrize("size", [1, 100, 2_000_000])
def test_tls_runs_on_the_transport(contexts: tuple[ssl.SSLContext, ssl.SSLContext], size: int) -> None:
    data = random.Random(size).randbytes(size)

    async def scenario() -> None:
        async with (
            two_hosts() as (client, server),
            await start_server(server, echo, SERVER[4], 443, ssl=contexts[0]),
        ):
            reader, writer = await open_connection(
                client, SERVER[4], 443, ssl=contexts[1], server_hostname="server.example"
            )
            assert writer.get_extra_info("ssl_object").version().startswith("TLSv1.")
            _, received = await asyncio.gather(write_all(writer, data), digest_of(reader, size))
            assert received == hashlib.sha256(data).hexdigest()
            writer.close()
            await writer.wait_closed()

    run(scenario())


def test_a_server_that_speaks_first_over_tls(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """Its greeting may come with the end of the handshake, before the client's protocol is attached."""

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    async def scenario() -> None:
        async with (
            two_hosts() as (client, server),
            await start_server(server, greet, SERVER[4], 443, ssl=contexts[0]),
        ):
            reader, writer = await open_connection(client, SERVER[4], 443, ssl=contexts[1])
            assert await reader.read() == b"hello"
            writer.close()

    run(scenario())


def test_a_certificate_nobody_trusts_ends_the_attempt(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async def scenario() -> None:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
        async with (
            two_hosts() as (client, server),
            await start_server(server, echo, SERVER[4], 443, ssl=contexts[0]) as serving,
        ):
            stranger = ssl.create_default_context()
            with pytest.raises(ssl.SSLCertVerificationError):
                await open_connection(client, SERVER[4], 443, ssl=stranger)
            reader, writer = await open_connection(client, SERVER[4], 443, ssl=contexts[1])
            writer.write(b"still served")
            assert await reader.readexactly(12) == b"still served"
            writer.close()
            assert serving.is_serving()

    run(scenario())


class Recorder(asyncio.Protocol):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.received = bytearray()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.events.append("made")
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.events.append("eof")
        return True

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


@asynccontextmanager
async def protocols() -> AsyncIterator[tuple[StreamTransport, Recorder, Recorder]]:
    """The client's transport and the protocols of both ends."""
    made: list[Recorder] = []

    def passive() -> Recorder:
        made.append(Recorder())
        return made[0]

    async with two_hosts() as (client, server), await create_server(server, passive, None, 80):
        transport, active = await create_connection(client, Recorder, SERVER[4], 80)
        assert isinstance(transport, StreamTransport)
        while not made or "made" not in made[0].events:
            await asyncio.sleep(0)
        yield transport, active, made[0]
        transport.abort()


def test_a_protocol_is_paused_while_its_peer_does_not_read() -> None:
    async def scenario() -> None:
        async with protocols() as (transport, active, passive):
            reading = passive.transport
            assert isinstance(reading, StreamTransport)
            reading.pause_reading()
            sent = 0
            while "pause" not in active.events:
                transport.write(b"x" * 100_000)
                sent += 100_000
                await asyncio.sleep(0)
            assert transport.get_write_buffer_size() > HIGH_WATER_BYTES
            assert not passive.received
            reading.resume_reading()
            while len(passive.received) < sent:
                await asyncio.sleep(0)
            assert "resume" in active.events
            assert transport.get_write_buffer_size() == 0

    run(scenario())


def test_an_abort_is_the_kernels_error_at_the_other_end() -> None:
    async def scenario() -> None:
        async with protocols() as (transport, active, passive):
            transport.abort()
            assert await active.lost is None
            error = await passive.lost
            assert isinstance(error, ConnectionResetError)
            assert error.errno == errno.ECONNRESET

    run(scenario())


def test_half_close_and_close() -> None:
    async def scenario() -> None:
        async with protocols() as (transport, active, passive):
            transport.write(b"last words")
            transport.write_eof()
            with pytest.raises(RuntimeError, match="write_eof"):
                transport.write(b"more")
            while "eof" not in passive.events:
                await asyncio.sleep(0)
            assert passive.received == b"last words"
            answering = passive.transport
            assert isinstance(answering, StreamTransport)
            answering.write(b"answer")
            answering.close()
            assert await passive.lost is None
            while "eof" not in active.events:
                await asyncio.sleep(0)
            assert active.received == b"answer"
            transport.close()
            assert await active.lost is None
            assert transport.is_closing()

    run(scenario())


def test_options_of_a_transport() -> None:
    async def scenario() -> None:
        async with protocols() as (transport, _, _):
            view = transport.get_extra_info("socket")
            view.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            assert view.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert len(view.getsockopt(284, 1, 96)) == 96
            assert view.getpeername() == (SERVER[4], 80)

    run(scenario())


def test_wrong_use_is_told() -> None:
    async def scenario() -> None:
        async with two_hosts() as (client, _):
            with pytest.raises(OSError, match=r".") as caught:
                await open_connection(client, SERVER[4], 81)
            assert caught.value.errno == errno.ECONNREFUSED
            with pytest.raises(ConfigurationError, match="server_hostname"):
                await open_connection(client, b"\x0a\0\0\x02", 443, ssl=ssl.create_default_context())
            with pytest.raises(ConfigurationError, match="not an address"):
                await open_connection(client, "not an address", 443)
        async with protocols() as (transport, _, _):
            with pytest.raises(ValueError, match="limits"):
                transport.set_write_buffer_limits(high=1, low=2)
            anything: Any = "text"
            with pytest.raises(TypeError, match="expected bytes"):
                transport.write(anything)

    run(scenario())


def test_a_closed_server_refuses_and_forgets_nobody() -> None:
    async def scenario() -> None:
        async with two_hosts() as (client, server):
            serving = await start_server(server, echo, None, 80)
            forever = asyncio.create_task(serving.serve_forever())
            _, writer = await open_connection(client, SERVER[4], 80)
            assert serving.name[1] == 80
            serving.close()
            await serving.wait_closed()
            await forever
            with pytest.raises(OSError, match=r"."):
                await open_connection(client, SERVER[4], 80)
            writer.write(b"x")
            with contextlib.suppress(ConnectionError):
                writer.close()
                await writer.wait_closed()

    run(scenario())


@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_data_goes_with_the_syn_once_there_is_a_cookie(protocol: str) -> None:
    """RFC 7413: the first connection asks for it, the second takes data along, more than a SYN holds."""
    data = random.Random(4).randbytes(5000)

    async def scenario() -> None:
        async with two_hosts() as (client, server):
            for host in (client, server):
                host.stack.settings = replace(host.stack.settings, tcp_fastopen=3)
                host.stack.environment.settings = host.stack.settings
            async with await start_server(server, echo, None, 80, fast_open=10):
                for early in (b"", b"x", data):
                    reader, writer = await open_connection(
                        client, SERVER[4], 80, protocol=protocol, early_data=early
                    )
                    writer.write(b"end")
                    writer.write_eof()
                    assert await reader.read() == early + b"end"
                    writer.close()
                    await writer.wait_closed()
            assert client.stack.counters["TcpExtTCPFastOpenActive"] == 2
            assert server.stack.counters["TcpExtTCPFastOpenPassive"] == 2

    run(scenario())


def test_early_data_and_tls_exclude_each_other() -> None:
    async def scenario() -> None:
        async with two_hosts() as (client, _):
            with pytest.raises(ConfigurationError, match="early_data"):
                await open_connection(
                    client, SERVER[4], 80, ssl=ssl.create_default_context(), early_data=b"x"
                )

    run(scenario())
