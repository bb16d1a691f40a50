"""Sockets, run loop and real stacks together, over a wire in memory and over a veth pair."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mptcp_stack.device.in_memory import in_memory_pair
from mptcp_stack.device.interface import Device, LinkLayer
from mptcp_stack.device.packet_socket import PacketSocket
from mptcp_stack.ip.interface import InterfaceAddress, LinkType
from mptcp_stack.run_loop import RunLoop, create_stack
from mptcp_stack.sockets.coroutines import ListeningSocket, StreamSocket, listen, open_connection
from mptcp_stack.sockets.reconnecting import reconnect
from mptcp_stack.stack import Stack
from tests.device import namespaces

MACS = (b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02")
ADDRESSES = (
    (b"\x0a\0\0\x01", b"\xfd" + bytes(14) + b"\x01"),
    (b"\x0a\0\0\x02", b"\xfd" + bytes(14) + b"\x02"),
)
SERVER = {4: "10.0.0.2", 6: "fd00::2"}
Host = RunLoop[Stack]
needs_namespaces = pytest.mark.skipif(
    namespaces.missing() is not None, reason=namespaces.missing() or "namespaces can be made"
)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await coroutine

    asyncio.run(bounded())


def host(device: Device, addresses: tuple[bytes, bytes]) -> Host:
    stack = create_stack()
    interface = stack.ip.add_interface(
        device.name,
        link_type=LinkType.ETHERNET if device.link_layer is LinkLayer.ETHERNET else LinkType.RAW_IP,
        mac=device.mac,
        mtu=device.mtu,
        addresses=[InterfaceAddress(address, 24 if len(address) == 4 else 64) for address in addresses],
        checksum_offload=device.checksum_offload,
        gso_max_size=device.gso_max_size,
    )
    return RunLoop(stack, {interface: device})


@asynccontextmanager
async def running(devices: tuple[Device, Device]) -> AsyncIterator[tuple[Host, Host]]:
    loops = tuple(host(device, own) for device, own in zip(devices, ADDRESSES, strict=True))
    try:
        async with loops[0], loops[1]:
            yield loops[0], loops[1]
    finally:
        for device in devices:
            device.close()


async def send_all(stream: StreamSocket, data: bytes) -> None:
    for start in range(0, len(data), 100_000):
        await stream.write(data[start : start + 100_000])
    stream.shutdown_write()
    await stream.drain()


async def receive_all(stream: StreamSocket) -> str:
    digest = hashlib.sha256()
    while part := await stream.read(1 << 18):
        digest.update(part)
    return digest.hexdigest()


async def both_ways(loops: tuple[Host, Host], family: int, protocol: str, size: int) -> None:
    """Different data in both directions at once, then an orderly end."""
    upward, downward = random.Random(1).randbytes(size), random.Random(2).randbytes(size)
    async with listen(loops[1], None, 80, protocol=protocol) as listening:
        client, server = await asyncio.gather(
            open_connection(loops[0], SERVER[family], 80, protocol=protocol), listening.accept()
        )
        assert client.is_mptcp == server.is_mptcp == (protocol == "mptcp")
        assert client.local == server.remote
        *_, at_server, at_client = await asyncio.gather(
            send_all(client, upward), send_all(server, downward), receive_all(server), receive_all(client)
        )
        assert at_server == hashlib.sha256(upward).hexdigest()
        assert at_client == hashlib.sha256(downward).hexdigest()
        client.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_a_stream_is_disconnected_and_connects_again(protocol: str) -> None:
    async def scenario() -> None:
        async with (
            running(in_memory_pair(("a0", "b0"), MACS)) as loops,
            listen(loops[1], None, 80, protocol=protocol) as listening,
        ):
            client = await open_connection(loops[0], SERVER[4], 80, protocol=protocol)
            first, before = await listening.accept(), client.local
            with pytest.raises(OSError, match=os.strerror(errno.EISCONN)):
                client.renew(client.connection)
            await reconnect(loops[0].stack, client, client.remote[0], 80)
            with pytest.raises(ConnectionResetError):
                await first.read(10)
            second = await listening.accept()
            assert client.is_mptcp == (protocol == "mptcp")
            assert second.remote == client.local != before
            await second.write(b"new")
            assert await client.read(10) == b"new"
            with pytest.raises(ConnectionRefusedError):
                await reconnect(loops[0].stack, client, client.remote[0], 81)
            await reconnect(loops[0].stack, client, client.remote[0], 80)
            (await listening.accept()).close()
            assert await client.read(10) == b""

    run(scenario())


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_both_ways_over_memory(family: int, protocol: str) -> None:
    async def scenario() -> None:
        async with running(in_memory_pair(("a0", "b0"), MACS)) as loops:
            await both_ways(loops, family, protocol, 2_000_000)

    run(scenario())


@pytest.mark.root
@needs_namespaces
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_both_ways_over_veth(family: int, protocol: str) -> None:
    async def scenario(devices: tuple[Device, Device]) -> None:
        async with running(devices) as loops:
            await both_ways(loops, family, protocol, 4_000_000)

    with namespaces.veth_pair() as (ours, theirs):
        for name in (ours, theirs):
            namespaces.run("ip", "-n", name, "addr", "flush", "dev", "veth0")
        with namespaces.inside(ours):
            first = PacketSocket.open("veth0")
        with namespaces.inside(theirs):
            second = PacketSocket.open("veth0")
        run(scenario((first, second)))


def test_refused_connection_is_the_kernels_error() -> None:
    async def scenario() -> None:
        async with running(in_memory_pair(("a0", "b0"), MACS)) as loops:
            with pytest.raises(OSError, match=r".") as caught:
                await open_connection(loops[0], SERVER[4], 81)
            assert caught.value.errno == errno.ECONNREFUSED

    run(scenario())


def test_network_without_a_route_is_the_kernels_error() -> None:
    async def scenario() -> None:
        async with running(in_memory_pair(("a0", "b0"), MACS)) as loops:
            with pytest.raises(OSError, match=r".") as caught:
                await open_connection(loops[0], "192.0.2.1", 80)
            assert caught.value.errno == errno.ENETUNREACH

    run(scenario())


@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_abort_is_a_reset_at_the_peer(protocol: str) -> None:
    async def scenario() -> None:
        async with running(in_memory_pair(("a0", "b0"), MACS)) as loops:
            listening = listen(loops[1], None, 80, protocol=protocol)
            client, server = await asyncio.gather(
                open_connection(loops[0], SERVER[4], 80, protocol=protocol), listening.accept()
            )
            await client.write(b"some data that makes both sides sure")
            assert await server.read_exactly(4) == b"some"
            client.abort()
            with pytest.raises(OSError, match=r".") as caught:
                await server.read_exactly(1000)
            assert caught.value.errno == errno.ECONNRESET

    run(scenario())


def test_many_connections_at_once() -> None:
    async def echo_once(listening: ListeningSocket) -> None:
        async with await listening.accept() as stream:
            await stream.write(await stream.read_exactly(9))
            assert await stream.read(1) == b""

    async def ask(loop: Host, number: int) -> None:
        async with await open_connection(loop, SERVER[4], 80) as stream:
            request = f"{number:09}".encode()
            await stream.write(request)
            assert await stream.read_exactly(9) == request

    async def scenario() -> None:
        async with (
            running(in_memory_pair(("a0", "b0"), MACS)) as loops,
            listen(loops[1], None, 80) as listening,
        ):
            # The first one has the neighbour resolved, so that no SYN of the others waits for that.
            for count in (1, 100):
                await asyncio.gather(
                    *(echo_once(listening) for _ in range(count)),
                    *(ask(loops[0], number) for number in range(count)),
                )

    run(scenario())
