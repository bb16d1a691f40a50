"""Bytes in and out of a kernel socket by other ways than send(2): mapped memory, sendfile(2), splice(2)."""

from __future__ import annotations

import errno
import mmap
import os
import socket
from collections.abc import Awaitable, Callable

from testbed.host.data import Buffer

Waiter = Callable[[socket.socket], Awaitable[None]]
_PIPE_BYTES = 65536
"""What a pipe holds unless it is told otherwise (pipe(7))."""


class KernelMover:
    """For one socket, one of the ways; close it with the socket."""

    def __init__(self, connection: socket.socket, way: str, readable: Waiter, writable: Waiter) -> None:
        """``way``: one of "mmap", "sendfile", "splice"."""
        self._socket = connection
        self._way = way
        self._readable = readable
        self._writable = writable
        self._reading, self._writing = os.pipe() if way == "splice" else (-1, -1)
        self._length = 0
        self._file = -1 if way == "mmap" else os.memfd_create("data")

    @property
    def reads(self) -> bool:
        """Whether this way is one to receive by, too."""
        return self._way == "splice"

    async def write(self, data: Buffer) -> None:
        """All of it. Raises OSError."""
        if not len(data):
            return
        if self._way == "mmap":
            with mmap.mmap(-1, len(data)) as mapped:
                mapped[:] = bytes(data)
                await self._each(len(data), lambda at, rest: self._send_mapped(mapped, at))
            return
        # Behind what came before: the socket may refer to the file's pages until they are acknowledged.
        start = self._length
        self._length += os.pwrite(self._file, data, start)
        step = self._splice_out if self.reads else self._send_file
        await self._each(self._length - start, lambda at, rest: step(start + at, rest))

    async def _each(self, total: int, step: Callable[[int, int], int]) -> None:
        """``step(position, rest)`` says how many bytes went, or raises BlockingIOError."""
        position = 0
        while position < total:
            try:
                position += step(position, total - position)
            except BlockingIOError:
                await self._writable(self._socket)

    def _send_mapped(self, mapped: mmap.mmap, position: int) -> int:
        with memoryview(mapped) as view, view[position:] as rest:
            return self._socket.send(rest)

    def _send_file(self, position: int, rest: int) -> int:
        return os.sendfile(self._socket.fileno(), self._file, position, rest)

    def _splice_out(self, position: int, rest: int) -> int:
        """What the socket has no room for stays out of the pipe: it is empty before and afterwards."""
        reading, writing = self._reading, self._writing
        there = os.splice(self._file, writing, min(rest, _PIPE_BYTES), offset_src=position)
        try:
            gone = os.splice(reading, self._socket.fileno(), there, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            gone = 0
        if gone < there:
            os.read(reading, there - gone)
        if not gone:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return gone

    async def read(self) -> bytes:
        """What is there, through a pipe; b"" at the end of data. Raises OSError."""
        reading, writing = self._reading, self._writing
        while True:
            try:
                count = os.splice(self._socket.fileno(), writing, _PIPE_BYTES, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                await self._readable(self._socket)
            else:
                return os.read(reading, count) if count else b""

    def close(self) -> None:
        for descriptor in (self._file, self._reading, self._writing):
            if descriptor >= 0:
                os.close(descriptor)
