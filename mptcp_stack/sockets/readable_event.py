"""What select and poll are told of a blocking socket."""

from __future__ import annotations

import os

from mptcp_stack.mptcp.connection import Connection


class ReadableEvent:
    """An eventfd that is readable while its socket is; made when somebody asks for it."""

    __slots__ = ("_descriptor", "_is_set")

    def __init__(self) -> None:
        self._descriptor = -1
        self._is_set = False

    def open(self) -> int:
        if self._descriptor < 0:
            self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._is_set = False
        return self._descriptor

    def set_to(self, is_readable: bool) -> None:
        if self._descriptor < 0 or is_readable == self._is_set:
            return
        self._is_set = is_readable
        if is_readable:
            os.eventfd_write(self._descriptor, 1)
        else:
            os.eventfd_read(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def is_readable(connection: Connection) -> bool:
    """A failed connection is readable: the read tells the error."""
    return bool(
        connection.readable_bytes
        or connection.end_of_stream
        or connection.error is not None
        or connection.is_closed
    )
