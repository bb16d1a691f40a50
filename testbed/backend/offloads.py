"""Segmentation offload of interfaces (ethtool(8), ``SIOCETHTOOL``)."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from typing import Final

_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_STSO: Final = 0x1F
_VALUE: Final = struct.Struct("=II")


def set_tcp_segmentation_offload(interface: str, *, enabled: bool) -> None:
    """Of an interface in the calling thread's network namespace. Raises OSError.

    Without it the kernel cuts what it sends into packets of the MTU before the interface gets them.
    """
    value = array.array("B", _VALUE.pack(_ETHTOOL_STSO, int(enabled)))
    request = struct.pack("16sP8x", interface.encode(), value.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket.fileno(), _SIOCETHTOOL, request)
