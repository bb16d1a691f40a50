"""What workloads send and what they do with what they receive: cheap to make, and checked by SHA-256.

A seeded source repeats one random block of 1 MB that starts with a counter: making it costs a copy, so that
it never limits a transfer, and a block that is lost, repeated or in the wrong place changes the hash.
"""

from __future__ import annotations

import hashlib
import random
from io import FileIO
from typing import Protocol

Buffer = bytes | bytearray | memoryview

BLOCK_BYTES = 1 << 20
CHUNK_BYTES = 256 * 1024
"""How much a workload hands to its stream at once."""
_COUNTER_BYTES = 8
_NO_DATA = memoryview(b"")


class Source(Protocol):
    """Data to send."""

    def next_chunk(self, maximum: int) -> memoryview:
        """Up to ``maximum`` bytes, never to be changed; empty at the end."""

    def close(self) -> None: ...


class SeededSource:
    """``total`` bytes that ``seed`` and the index of the connection determine."""

    def __init__(self, seed: int, index: int, total: int) -> None:
        self._remaining = total
        self._body = random.Random(f"{seed}/{index}").randbytes(min(total, BLOCK_BYTES))[_COUNTER_BYTES:]
        self._counter = 0
        self._block = _NO_DATA

    def next_chunk(self, maximum: int) -> memoryview:
        if not self._block:
            self._block = self._next_block()
        chunk = self._block[:maximum]
        self._block = self._block[maximum:]
        return chunk

    def _next_block(self) -> memoryview:
        block = self._counter.to_bytes(_COUNTER_BYTES, "big") + self._body
        self._counter += 1
        size = min(self._remaining, len(block))
        self._remaining -= size
        return memoryview(block)[:size]

    def close(self) -> None:
        """Nothing is held open."""


class ConstantSource:
    """``total`` bytes of one buffer that is never copied: for measuring nothing but the stack."""

    _block = memoryview(bytes(BLOCK_BYTES))

    def __init__(self, total: int) -> None:
        self._remaining = total

    def next_chunk(self, maximum: int) -> memoryview:
        chunk = self._block[: min(maximum, self._remaining)]
        self._remaining -= len(chunk)
        return chunk

    def close(self) -> None:
        """Nothing is held open."""


class FileSource:
    """The first ``total`` bytes of a file, all of it for 0. Raises OSError."""

    def __init__(self, path: str, total: int) -> None:
        self._file = FileIO(path, "rb")
        self._remaining = total or None

    def next_chunk(self, maximum: int) -> memoryview:
        if self._remaining is not None:
            maximum = min(maximum, self._remaining)
        chunk = self._file.read(maximum)
        if self._remaining is not None:
            self._remaining -= len(chunk)
        return memoryview(chunk)

    def close(self) -> None:
        self._file.close()


class Sink:
    """Hashes what is received and writes it to a file where one is given. Raises OSError."""

    def __init__(self, *, verify: bool, path: str | None = None) -> None:
        self._digest = hashlib.sha256() if verify else None
        self._file = FileIO(path, "wb") if path else None

    def take(self, data: Buffer) -> None:
        if self._digest is not None:
            self._digest.update(data)
        if self._file is not None:
            remaining = memoryview(data)
            while remaining:
                remaining = remaining[self._file.write(remaining) :]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def sha256(self) -> str:
        """In hexadecimal; empty when verification is off."""
        return self._digest.hexdigest() if self._digest is not None else ""
