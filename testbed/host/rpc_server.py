"""JSON lines over a Unix socket: ``{"id", "method", "params"}`` in, ``{"id", "result" | "error"}`` out.

A client may have several requests under way; answers come in the order in which they are ready. Everything
that a client can make grow has a limit, and nothing that it sends ends the agent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from testbed.host.messages import (
    MAXIMUM_ANSWER_BYTES,
    MAXIMUM_REQUEST_BYTES,
    MessageError,
    decode_line,
    encode_line,
)
from testbed.host.processes import peer_user

MAXIMUM_CLIENTS = 32
MAXIMUM_REQUESTS_UNDER_WAY = 64
"""For each client."""

Handler = Callable[[str, dict[str, Any]], Awaitable[Any]]

_log = logging.getLogger(__name__)


class RequestError(Exception):
    """A request that cannot be carried out. ``kind`` tells a program which sort of failure it is."""

    def __init__(self, message: str, kind: str = "refused") -> None:
        super().__init__(message)
        self.kind = kind


class RpcServer:
    """Calls ``handler(method, params)`` for every request; it raises RequestError to refuse one."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self, listening: socket.socket) -> None:
        self._server = await asyncio.start_unix_server(
            self._accept, sock=listening, limit=MAXIMUM_REQUEST_BYTES
        )

    async def close(self) -> None:
        """Ends every client's connection, after the answers that are being written."""
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        client = _Client(self._handler, reader, writer)
        try:
            refusal = self._refusal(writer)
            if refusal is not None:
                await client.refuse(refusal)
            else:
                await client.serve()
        except (ConnectionError, asyncio.CancelledError):
            # The client went away, or the agent ends: there is nobody left to tell.
            pass
        finally:
            self._clients.discard(task)
            writer.close()

    def _refusal(self, writer: asyncio.StreamWriter) -> str | None:
        user = peer_user(writer.get_extra_info("socket"))
        if user not in (0, os.geteuid()):
            return "permission denied"
        if len(self._clients) > MAXIMUM_CLIENTS:
            return f"more than {MAXIMUM_CLIENTS} clients"
        return None


class _Client:
    def __init__(self, handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._handler = handler
        self._reader = reader
        self._writer = writer
        self._under_way: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        try:
            while line := await self._next_line():
                if len(self._under_way) >= MAXIMUM_REQUESTS_UNDER_WAY:
                    await self.refuse(f"more than {MAXIMUM_REQUESTS_UNDER_WAY} requests under way")
                    return
                request = asyncio.create_task(self._answer(line))
                self._under_way.add(request)
                request.add_done_callback(self._under_way.discard)
        finally:
            for request in self._under_way:
                request.cancel()

    async def refuse(self, message: str) -> None:
        """Say why and be done with this client."""
        await self._send({"id": None, "error": {"kind": "protocol", "message": message}})

    async def _next_line(self) -> bytes:
        try:
            return await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return b""
        except asyncio.LimitOverrunError:
            await self.refuse(f"a request is longer than {MAXIMUM_REQUEST_BYTES} bytes")
            return b""

    async def _answer(self, line: bytes) -> None:
        identifier: object = None
        try:
            request = decode_line(line)
            identifier = _identifier(request)
            result = await self._handler(*_method_and_parameters(request))
            answer = {"id": identifier, "result": result}
        except MessageError as error:
            answer = _error(identifier, "protocol", str(error))
        except RequestError as error:
            answer = _error(identifier, error.kind, str(error))
        except Exception as error:
            _log.exception("request failed: %.200r", line)
            answer = _error(identifier, "internal", f"{type(error).__name__}: {error}")
        try:
            await self._send(answer)
        except ConnectionError:
            _log.debug("a client went away before its answer")

    async def _send(self, answer: dict[str, Any]) -> None:
        line = encode_line(answer)
        if len(line) > MAXIMUM_ANSWER_BYTES:
            message = f"the answer has {len(line)} bytes; the limit is {MAXIMUM_ANSWER_BYTES}"
            line = encode_line(_error(answer["id"], "refused", message))
        self._writer.write(line)
        await self._writer.drain()


def _identifier(request: dict[str, Any]) -> int:
    identifier = request.get("id")
    if not isinstance(identifier, int) or isinstance(identifier, bool):
        raise MessageError("id: must be an integer")
    return identifier


def _method_and_parameters(request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    method = request.get("method")
    parameters = request.get("params", {})
    if not isinstance(method, str):
        raise MessageError("method: must be a string")
    if not isinstance(parameters, dict):
        raise MessageError("params: must be an object")
    return method, parameters


def _error(identifier: object, kind: str, message: str) -> dict[str, Any]:
    return {"id": identifier, "error": {"kind": kind, "message": message}}
