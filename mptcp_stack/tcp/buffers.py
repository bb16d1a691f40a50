"""Byte sequences made of parts that are not copied."""

from __future__ import annotations

from collections import deque
from functools import lru_cache

from mptcp_stack.wire.frame import Buffer

Parts = tuple[Buffer, ...]


@lru_cache(maxsize=1024)
def shared(number: int) -> int:
    """The same object for equal numbers: idle connections need not each keep one of their own."""
    return number


_MAXIMUM_PARTS = 16
"""More parts than this are joined: a device takes only so many at once."""


def parts_length(parts: Parts) -> int:
    return len(parts[0]) if len(parts) == 1 else sum(len(part) for part in parts)


def slice_parts(parts: Parts, start: int, stop: int) -> Parts:
    """The bytes from ``start`` up to ``stop``, as views of the same memory."""
    result: list[Buffer] = []
    position = 0
    for part in parts:
        part_length = len(part)
        first, last = max(start - position, 0), min(stop - position, part_length)
        if first < last:
            result.append(part if last - first == part_length else memoryview(part)[first:last])
        position += part_length
        if position >= stop:
            break
    return tuple(result)


class ByteQueue:
    """A first-in-first-out of bytes; what goes in is kept as it is and never copied on the way.

    While it is empty it has no deque: one takes as much memory as all the rest of an idle subflow.
    """

    __slots__ = ("_parts", "length")

    def __init__(self) -> None:
        self._parts: deque[Buffer] | None = None
        self.length = 0

    def append(self, part: Buffer) -> None:
        length = len(part)
        if length:
            if self._parts is None:
                self._parts = deque()
            self._parts.append(part)
            self.length += length

    def peek(self, limit: int) -> bytes:
        """A copy of up to ``limit`` bytes from the front, which stay."""
        found = bytearray()
        for part in self._parts or ():
            found += part[: limit - len(found)]
            if len(found) >= limit:
                break
        return bytes(found)

    def take(self, limit: int) -> Parts:
        """Up to ``limit`` bytes from the front."""
        result: list[Buffer] = []
        wanted, parts = min(limit, self.length), self._parts
        if parts is None:
            return ()
        self.length -= wanted
        while wanted:
            part = parts[0]
            if len(part) <= wanted:
                result.append(parts.popleft())
                wanted -= len(part)
            else:
                view = memoryview(part)
                result.append(view[:wanted])
                parts[0] = view[wanted:]
                wanted = 0
        if not parts:
            self._parts = None
        if len(result) > _MAXIMUM_PARTS:
            return (b"".join(result),)
        return tuple(result)

    def clear(self) -> None:
        self._parts = None
        self.length = 0
