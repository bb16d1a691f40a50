"""A TUN interface: the kernel routes IP packets to the stack (linux/if_tun.h)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from typing import Final

from mptcp_stack.device.interface import LARGEST_GSO_PAYLOAD, DeviceCounters, LinkLayer
from mptcp_stack.device.link_settings import interface_mtu
from mptcp_stack.device.virtio_header import HEADER_LENGTH, decode, encode
from mptcp_stack.errors import DeviceError, MalformedPacketError
from mptcp_stack.wire.frame import Frame

_TUN_DEVICE: Final = "/dev/net/tun"
_TUNSETIFF: Final = 0x400454CA
_TUNSETOFFLOAD: Final = 0x400454D0
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000
_TUN_F_CSUM: Final = 0x01
_TUN_F_TSO4: Final = 0x02
_TUN_F_TSO6: Final = 0x04
_LONGEST_NAME: Final = 15

_LARGEST_PACKET: Final = 65535
# One byte more than any packet: a read that fills the buffer shows that a packet was cut.
_BUFFER_LENGTH: Final = HEADER_LENGTH + _LARGEST_PACKET + 1

# EIO: the interface is down. EINVAL: the kernel dislikes the packet or its offload metadata.
_FRAME_REFUSED: Final = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.ENOBUFS, errno.ENOMEM})


class TunDevice:
    """A layer-3 device; see :class:`mptcp_stack.device.interface.Device`.

    The interface exists while the device is open. Its addresses (the kernel's side of the link) and its
    being up are the opener's business.
    """

    link_layer = LinkLayer.RAW_IP
    checksum_offload = True
    gso_max_size = LARGEST_GSO_PAYLOAD
    mac = b""

    __slots__ = ("_buffer", "_descriptor", "_view", "counters", "mtu", "name")

    def __init__(self, descriptor: int, name: str, mtu: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray(_BUFFER_LENGTH)
        self._view = memoryview(self._buffer)
        self.counters = DeviceCounters()
        self.name = name
        self.mtu = mtu

    @classmethod
    def open(cls, name: str = "tun%d") -> TunDevice:
        """Create interface ``name`` (a ``%d`` lets the kernel number it) in this network namespace.

        Raises DeviceError.
        """
        if not name or len(name.encode()) > _LONGEST_NAME:
            raise DeviceError(f"TUN interface {name!r}: a name has 1 to {_LONGEST_NAME} bytes")
        try:
            descriptor = os.open(_TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise DeviceError(f"TUN interface {name}: cannot open {_TUN_DEVICE}: {error.strerror}") from error
        try:
            request = struct.pack("=16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR)
            answer = fcntl.ioctl(descriptor, _TUNSETIFF, request)
            fcntl.ioctl(descriptor, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6)
            actual_name = answer[:16].rstrip(b"\0").decode()
            return cls(descriptor, actual_name, interface_mtu(actual_name))
        except PermissionError as error:
            os.close(descriptor)
            raise DeviceError(
                f"TUN interface {name}: needs CAP_NET_ADMIN in this network namespace"
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise DeviceError(f"TUN interface {name}: {error.strerror}") from error

    def fileno(self) -> int:
        return self._descriptor

    def receive(self, limit: int) -> list[Frame]:
        frames: list[Frame] = []
        counters = self.counters
        for _ in range(limit):
            try:
                length = os.readv(self._descriptor, (self._buffer,))
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                raise DeviceError(f"TUN interface {self.name}: {error.strerror}") from error
            if length == _BUFFER_LENGTH:
                counters.receive_errors += 1
                continue
            try:
                frames.append(decode(self._view[:length]))
            except MalformedPacketError:
                counters.receive_errors += 1
                continue
            counters.received_bytes += length - HEADER_LENGTH
        counters.received_frames += len(frames)
        return frames

    def transmit(self, frames: Sequence[Frame]) -> int:
        counters = self.counters
        for index, frame in enumerate(frames):
            try:
                sent = os.writev(self._descriptor, (encode(frame), frame.head, *frame.payload))
            except (BlockingIOError, InterruptedError):
                return index
            except OSError as error:
                if error.errno in _FRAME_REFUSED:
                    counters.send_errors += 1
                    continue
                raise DeviceError(f"TUN interface {self.name}: {error.strerror}") from error
            except MalformedPacketError:
                counters.send_errors += 1
                continue
            counters.sent_frames += 1
            counters.sent_bytes += sent - HEADER_LENGTH
        return len(frames)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
