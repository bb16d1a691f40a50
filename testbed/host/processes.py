"""What Linux offers around processes and namespaces that Python 3.11 has no function for."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNET = 0x4000_0000
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_CREDENTIALS = struct.Struct("=iII")

_c_library = ctypes.CDLL(None, use_errno=True)


def enter_network_namespace(path: str) -> None:
    """Move the calling thread into the network namespace at ``path``. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _c_library.setns(descriptor, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(descriptor)


def signal_when_parent_ends(signal_number: signal.Signals) -> None:
    """Ask the kernel for a signal when the parent *thread* ends (prctl(2), PR_SET_PDEATHSIG)."""
    if _c_library.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def set_process_name(name: str) -> None:
    """The name in ``ps -o comm``; the kernel keeps 15 bytes."""
    _c_library.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0)


def peer_user(connection: socket.socket) -> int:
    """The user id of the process at the other end of a Unix socket (SO_PEERCRED)."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(raw)
    return int(user)


@contextmanager
def unix_address(path: Path) -> Iterator[str]:
    """An address for ``path`` that fits into ``sun_path`` (108 bytes) however deep the directory lies."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
