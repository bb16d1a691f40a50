"""A network interface of this network namespace, through an AF_PACKET socket with PACKET_VNET_HDR.

The virtio-net header lets super-segments and unfinished checksums pass in both directions as they are
(packet(7); linux/if_packet.h).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Final

from mptcp_stack.device.interface import LARGEST_GSO_PAYLOAD, DeviceCounters, LinkLayer
from mptcp_stack.device.link_settings import interface_mtu
from mptcp_stack.device.virtio_header import HEADER_LENGTH, decode, encode
from mptcp_stack.errors import DeviceError, MalformedPacketError
from mptcp_stack.wire.frame import Frame

# Constants that the socket module does not name.
_SOL_PACKET: Final = 263
_PACKET_VNET_HDR: Final = 15
_PACKET_IGNORE_OUTGOING: Final = 23
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_ETH_P_ALL: Final = 0x0003

# An IP packet of 64 KB behind an Ethernet header with room for two VLAN tags.
_LARGEST_FRAME: Final = 65535 + 22

# With one of these a frame is lost, but the device goes on: link down, too long, dropped by the queueing
# discipline, refused by a filter, offload metadata that the kernel dislikes.
_FRAME_REFUSED: Final = frozenset(
    {
        errno.ENETDOWN,
        errno.EMSGSIZE,
        errno.ENOBUFS,
        errno.EINVAL,
        errno.EPERM,
        errno.EIO,
        errno.ENXIO,
        errno.ENODEV,
    }
)
_DEFAULT_BUFFER_BYTES: Final = 8 << 20


class PacketSocket:
    """An Ethernet device; see :class:`mptcp_stack.device.interface.Device`."""

    link_layer = LinkLayer.ETHERNET
    checksum_offload = True
    gso_max_size = LARGEST_GSO_PAYLOAD

    __slots__ = ("_buffer", "_socket", "_view", "counters", "mac", "mtu", "name")

    def __init__(self, packet_socket: socket.socket, name: str, mac: bytes, mtu: int) -> None:
        self._socket = packet_socket
        self._buffer = bytearray(HEADER_LENGTH + _LARGEST_FRAME)
        self._view = memoryview(self._buffer)
        self.counters = DeviceCounters()
        self.name = name
        self.mac = mac
        self.mtu = mtu

    @classmethod
    def open(cls, name: str, *, buffer_bytes: int = _DEFAULT_BUFFER_BYTES) -> PacketSocket:
        """Open interface ``name`` of the current network namespace.

        ``buffer_bytes`` is asked for in each direction; without CAP_NET_ADMIN the kernel's limit
        (``net.core.rmem_max``) holds. Raises DeviceError.
        """
        try:
            packet_socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0
            )
        except PermissionError as error:
            raise DeviceError(
                f"interface {name}: a packet socket needs CAP_NET_RAW in this network namespace"
            ) from error
        except OSError as error:
            raise DeviceError(f"interface {name}: no packet socket: {error.strerror}") from error
        try:
            _configure(packet_socket, buffer_bytes)
            # Bound only now: until then protocol 0 keeps other interfaces' frames out.
            packet_socket.bind((name, _ETH_P_ALL))
            mac = bytes(packet_socket.getsockname()[4])
            return cls(packet_socket, name, mac, interface_mtu(name))
        except OSError as error:
            packet_socket.close()
            raise DeviceError(f"interface {name}: {error.strerror or error}") from error

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self, limit: int) -> list[Frame]:
        frames: list[Frame] = []
        receive_into, buffer, view = self._socket.recv_into, self._buffer, self._view
        counters = self.counters
        for _ in range(limit):
            try:
                # MSG_TRUNC: the answer is the true length, so that a cut frame is noticed.
                length = receive_into(buffer, 0, socket.MSG_TRUNC)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno in (errno.ENETDOWN, errno.ENOBUFS):
                    # Reported once when the link goes down; it may come back.
                    break
                raise DeviceError(f"interface {self.name}: {error.strerror}") from error
            if length > len(buffer):
                counters.receive_errors += 1
                continue
            try:
                frames.append(decode(view[:length]))
            except MalformedPacketError:
                counters.receive_errors += 1
                continue
            counters.received_bytes += length - HEADER_LENGTH
        counters.received_frames += len(frames)
        return frames

    def transmit(self, frames: Sequence[Frame]) -> int:
        counters = self.counters
        send = self._socket.sendmsg
        for index, frame in enumerate(frames):
            try:
                sent = send((encode(frame), frame.head, *frame.payload))
            except (BlockingIOError, InterruptedError):
                return index
            except OSError as error:
                if error.errno in _FRAME_REFUSED:
                    counters.send_errors += 1
                    continue
                raise DeviceError(f"interface {self.name}: {error.strerror}") from error
            except MalformedPacketError:
                counters.send_errors += 1
                continue
            counters.sent_frames += 1
            counters.sent_bytes += sent - HEADER_LENGTH
        return len(frames)

    def close(self) -> None:
        self._socket.close()


def _configure(packet_socket: socket.socket, buffer_bytes: int) -> None:
    packet_socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    packet_socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    for forced, ordinary in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            packet_socket.setsockopt(socket.SOL_SOCKET, forced, buffer_bytes)
        except PermissionError:
            packet_socket.setsockopt(socket.SOL_SOCKET, ordinary, buffer_bytes)
