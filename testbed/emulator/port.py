"""An interface of the emulator: a packet socket that takes frames as they are, with virtio-net headers."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final

from testbed.errors import HostError

_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_PACKET_VNET_HDR: Final = 15
_PACKET_IGNORE_OUTGOING: Final = 23
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_SO_TIMESTAMPNS: Final = 35
_ETH_P_ALL: Final = 0x0003
_BUFFER_BYTES: Final = 8 << 20
_STATISTICS: Final = struct.Struct("=II")

LINK_IS_DOWN: Final = frozenset({errno.ENETDOWN, errno.ENXIO, errno.ENODEV})


class Port:
    """One interface of the current network namespace. Non-blocking."""

    def __init__(self, name: str) -> None:
        """Raises HostError."""
        self.name = name
        self._overflowed = 0
        try:
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0
            )
            try:
                self._configure(name)
            except OSError:
                self._socket.close()
                raise
        except OSError as error:
            raise HostError(f"interface {name}: {error.strerror}") from error
        self.send = self._socket.send
        """Sends one frame behind its virtio-net header; raises OSError."""

    def _configure(self, name: str) -> None:
        packet_socket = self._socket
        packet_socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        packet_socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        packet_socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        for forced, ordinary in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                packet_socket.setsockopt(socket.SOL_SOCKET, forced, _BUFFER_BYTES)
            except PermissionError:
                packet_socket.setsockopt(socket.SOL_SOCKET, ordinary, _BUFFER_BYTES)
        # Bound only now: until then protocol 0 keeps other interfaces' frames out.
        packet_socket.bind((name, _ETH_P_ALL))

    def fileno(self) -> int:
        return self._socket.fileno()

    def overflowed(self) -> int:
        """Frames that the kernel dropped because the emulator was too slow; counted since the beginning."""
        raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        _packets, drops = _STATISTICS.unpack(raw)
        self._overflowed += drops
        return self._overflowed

    def close(self) -> None:
        self._socket.close()
