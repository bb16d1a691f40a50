"""What the descriptors of a script stand for on the kernel."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from errno import EBADF, ENOTSOCK

FIRST_DESCRIPTOR = 3

_LINGER_NO_TIME = b"\1\0\0\0\0\0\0\0"


@dataclass(slots=True, eq=False)
class OpenDescriptor:
    """One descriptor of the kernel. ``stream`` and ``epoll`` are what Python calls it by."""

    number: int
    stream: socket.socket | None = None
    epoll: select.epoll | None = None
    watches: dict[int, dict[str, int]] = field(default_factory=dict)
    """Of an epoll instance: kernel's descriptor → the data that its events carry."""

    def close(self) -> None:
        """Raises OSError. May block, for the time of SO_LINGER."""
        if self.stream is not None:
            self.stream.detach()
            os.close(self.number)
        elif self.epoll is not None:
            self.epoll.close()
        else:
            os.close(self.number)

    def unblock(self) -> None:
        """Lets calls return that wait for it. A connection is reset when it is closed after this."""
        if self.stream is not None:
            with contextlib.suppress(OSError):
                self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NO_TIME)
            with contextlib.suppress(OSError):
                self.stream.shutdown(socket.SHUT_RDWR)


class KernelDescriptors:
    """Numbers as a fresh process gives them, the lowest that is free from 3 on, for the kernel's.

    Used from several threads.
    """

    def __init__(self) -> None:
        self._open: dict[int, OpenDescriptor] = {}
        self._lock = threading.Lock()

    def add(self, opened: OpenDescriptor) -> int:
        with self._lock:
            descriptor = FIRST_DESCRIPTOR
            while descriptor in self._open:
                descriptor += 1
            self._open[descriptor] = opened
            return descriptor

    def get(self, descriptor: int) -> OpenDescriptor:
        """Raises OSError(EBADF)."""
        with self._lock:
            found = self._open.get(descriptor)
        if found is None:
            raise OSError(EBADF, os.strerror(EBADF))
        return found

    def stream(self, descriptor: int) -> socket.socket:
        """Raises OSError(EBADF, ENOTSOCK)."""
        found = self.get(descriptor).stream
        if found is None:
            raise OSError(ENOTSOCK, os.strerror(ENOTSOCK))
        return found

    def take(self, descriptor: int) -> OpenDescriptor:
        """Frees the number, as ``close`` does first of all. Raises OSError(EBADF)."""
        with self._lock:
            found = self._open.pop(descriptor, None)
        if found is None:
            raise OSError(EBADF, os.strerror(EBADF))
        return found

    def for_each(self, action: Callable[[OpenDescriptor], None]) -> None:
        with self._lock:
            opened = list(self._open.values())
        for each in opened:
            action(each)

    def take_all(self) -> list[OpenDescriptor]:
        with self._lock:
            opened = list(self._open.values())
            self._open.clear()
        return opened
