"""Socket options of a workload's connections: ``getsockopt`` and ``setsockopt`` on every kind of stack.

Values are the bytes that C programs would pass, in hexadecimal on their way between agent and client.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from testbed.host.messages import from_json
from testbed.host.rpc_server import RequestError
from testbed.host.streams import Stream

SHORTEST_S = 1e-6
"""Long enough for the stack to be served."""
MAXIMUM_OPTION_BYTES = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class GetOption:
    """Of connection ``connection`` of workload ``id``, counted in the order in which they came to be."""

    id: int
    connection: int
    level: int
    option: int
    length: int
    request: str = ""
    """What the buffer holds on its way in."""


@dataclass(frozen=True, slots=True)
class SetOption:
    id: int
    connection: int
    level: int
    option: int
    value: str


class OptionRequests:
    """The methods of an agent that are about socket options.

    They answer ``{"value": …}``, or ``{"errno": …}`` where the stack refuses, which a test may be after.
    """

    def __init__(self, stream_of: Callable[[int, int], Stream]) -> None:
        """``stream_of`` finds a connection by workload and number, and raises RequestError."""
        self._stream_of = stream_of

    def methods(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[object]]]:
        return {"get_option": self._get, "set_option": self._set}

    async def _get(self, parameters: dict[str, Any]) -> object:
        wanted = from_json(GetOption, parameters)
        if not 0 <= wanted.length <= MAXIMUM_OPTION_BYTES:
            raise RequestError(f"length: expected 0 to {MAXIMUM_OPTION_BYTES}, got {wanted.length}")
        stream, request = self._stream_of(wanted.id, wanted.connection), _bytes(wanted.request)
        # What is told may be a time, of which a stack without anything to do has not heard for long.
        stream.wake()
        await asyncio.sleep(SHORTEST_S)
        return _answer(lambda: stream.get_option(wanted.level, wanted.option, wanted.length, request))

    async def _set(self, parameters: dict[str, Any]) -> object:
        wanted = from_json(SetOption, parameters)
        stream, value = self._stream_of(wanted.id, wanted.connection), _bytes(wanted.value)
        return _answer(lambda: stream.set_option(wanted.level, wanted.option, value))


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise RequestError(f"{text!r:.60} is not hexadecimal") from None


def _answer(action: Callable[[], bytes]) -> object:
    try:
        return {"value": action().hex()}
    except OSError as error:
        return {"errno": errno.errorcode.get(error.errno or 0, "EIO")}


def get_kernel_option(
    connection: socket.socket, level: int, option: int, length: int, request: bytes
) -> bytes:
    """``getsockopt`` with a buffer that asks as well, which Python's own does not have. Raises OSError."""
    buffer = ctypes.create_string_buffer(request[:length], max(length, 1))
    used = ctypes.c_uint32(length)
    if _libc.getsockopt(connection.fileno(), level, option, buffer, ctypes.byref(used)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer.raw[: used.value]
