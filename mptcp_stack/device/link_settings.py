"""What the kernel knows about a network interface."""

from __future__ import annotations

import fcntl
import socket
import struct

_SIOCGIFMTU = 0x8921


def interface_mtu(name: str) -> int:
    """The MTU of an interface of this network namespace in bytes (netdevice(7)). Raises OSError."""
    request = struct.pack("=16sI20x", name.encode(), 0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket.fileno(), _SIOCGIFMTU, request)
    mtu: int = struct.unpack("=16sI20x", answer)[1]
    return mtu
