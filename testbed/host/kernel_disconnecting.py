"""connect(2) with AF_UNSPEC on the kernel's sockets, which Python's own ``connect`` does not have."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import struct

_ANY_ADDRESS = struct.pack("=H14x", socket.AF_UNSPEC)
_TCP_CLOSE = 7
_POLL_INTERVAL_S = 0.005
_libc = ctypes.CDLL(None, use_errno=True)


async def disconnect(connection: socket.socket) -> None:
    """Once nothing of the connection is left to do: what is under way would be thrown away. Raises OSError.

    No event tells of that, so its state is looked at: for MPTCP that of its first subflow.
    """
    while connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_CLOSE:
        await asyncio.sleep(_POLL_INTERVAL_S)
    if _libc.connect(connection.fileno(), _ANY_ADDRESS, len(_ANY_ADDRESS)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
