"""The agent's socket: who may use it, and that nothing that comes through it ends the agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from testbed.host import rpc_server
from testbed.host.messages import MAXIMUM_ANSWER_BYTES, MAXIMUM_REQUEST_BYTES
from testbed.host.rpc_server import MAXIMUM_CLIENTS, MAXIMUM_REQUESTS_UNDER_WAY, RequestError, RpcServer


async def handle(method: str, parameters: dict[str, Any]) -> object:
    if method == "echo":
        return parameters
    if method == "forever":
        await asyncio.Event().wait()
    if method == "huge":
        return "x" * MAXIMUM_ANSWER_BYTES
    if method == "crash":
        raise ZeroDivisionError("oops")
    raise RequestError(f"no {method}", "strange")


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, message: object) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")

    async def answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(await self.reader.readline())
        return answer

    async def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        self.send({"id": 1, "method": method, "params": parameters})
        return await self.answer()


@contextlib.asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Callable[[], Awaitable[Client]]]:
    path = directory / "agent.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen(64)
    server = RpcServer(handle)
    await server.start(listening)
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> Client:
        reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 24)
        writers.append(writer)
        return Client(reader, writer)

    try:
        yield connect
    finally:
        for writer in writers:
            writer.close()
        await server.close()


def test_answers_and_errors(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path) as connect:
            client = await connect()
            assert await client.ask("echo", word="hello") == {"id": 1, "result": {"word": "hello"}}
            refused = await client.ask("nonsense")
            assert refused == {"id": 1, "error": {"kind": "strange", "message": "no nonsense"}}
            crashed = await client.ask("crash")
            assert crashed["error"] == {"kind": "internal", "message": "ZeroDivisionError: oops"}
            assert (await client.ask("huge"))["error"]["kind"] == "refused"
            assert (await client.ask("echo"))["result"] == {}

    asyncio.run(run())


def test_a_slow_request_does_not_hold_up_others(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path) as connect:
            client = await connect()
            client.send({"id": 7, "method": "forever"})
            client.send({"id": 8, "method": "echo"})
            assert (await client.answer())["id"] == 8

    asyncio.run(run())


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"{\n",
        b"[]\n",
        b"\xff\xfe\n",
        b'{"method": "echo"}\n',
        b'{"id": true, "method": "echo"}\n',
        b'{"id": 1}\n',
        b'{"id": 1, "method": 1}\n',
        b'{"id": 1, "method": "echo", "params": []}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_malformed_requests_get_an_error(tmp_path: Path, line: bytes) -> None:
    async def run() -> None:
        async with serving(tmp_path) as connect:
            client = await connect()
            client.writer.write(line)
            assert (await client.answer())["error"]["kind"] == "protocol"
            assert "result" in await client.ask("echo")

    asyncio.run(run())


def test_a_request_that_is_too_long_ends_its_client_only(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path) as connect:
            other = await connect()
            client = await connect()
            client.writer.write(b"x" * (MAXIMUM_REQUEST_BYTES + 10))
            assert "longer than" in (await client.answer())["error"]["message"]
            assert await client.reader.read() == b""
            assert "result" in await other.ask("echo")

    asyncio.run(run())


def test_too_many_requests_under_way_end_their_client_only(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path) as connect:
            other = await connect()
            client = await connect()
            for number in range(MAXIMUM_REQUESTS_UNDER_WAY + 1):
                client.send({"id": number, "method": "forever"})
            assert "under way" in (await client.answer())["error"]["message"]
            assert "result" in await other.ask("echo")

    asyncio.run(run())


def test_too_many_clients_are_refused_until_one_leaves(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path) as connect:
            clients = [await connect() for _ in range(MAXIMUM_CLIENTS)]
            for client in clients:
                assert "result" in await client.ask("echo")
            surplus = await connect()
            assert "clients" in (await surplus.answer())["error"]["message"]
            clients[0].writer.close()
            await clients[0].writer.wait_closed()
            # The place becomes free when the server sees the end of that connection.
            while "result" not in await (await connect()).ask("echo"):
                pass

    asyncio.run(run())


def test_other_users_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_server, "peer_user", lambda connection: 12345)

    async def run() -> None:
        async with serving(tmp_path) as connect:
            client = await connect()
            assert (await client.answer())["error"]["message"] == "permission denied"
            assert await client.reader.read() == b""

    asyncio.run(run())


def test_random_bytes_never_end_the_server(tmp_path: Path) -> None:
    chance = random.Random(8684)
    template = json.dumps({"id": 3, "method": "echo", "params": {"a": [1, None, "x"]}}).encode() + b"\n"

    async def run() -> None:
        async with serving(tmp_path) as connect:
            for _ in range(300):
                client = await connect()
                line = bytearray(template)
                for _ in range(chance.randint(0, 6)):
                    line[chance.randrange(len(line))] = chance.randrange(256)
                client.writer.write(bytes(line[: chance.randint(1, len(line))]) * chance.randint(1, 3))
                # Most clients do not stay for their answer.
                client.writer.close()
            witness = await connect()
            while "result" not in await witness.ask("echo"):
                witness = await connect()

    asyncio.run(run())
