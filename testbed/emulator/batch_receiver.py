"""Many packets of a packet socket in one system call (recvmmsg(2)), each with the time of its arrival."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

BATCH: Final = 16
"""Packets at once: few enough that a timer that expires meanwhile is not late by a tenth of a millisecond."""
LARGEST_FRAME_BYTES: Final = 10 + 65_535 + 22
"""The virtio-net header, an Ethernet header with two VLAN tags, and the largest IP packet."""

_MSG_DONTWAIT: Final = 0x40
_MSG_TRUNC: Final = 0x20
_CONTROL_BYTES: Final = 32
_SLOT_BYTES: Final = (LARGEST_FRAME_BYTES + 63) & ~63

# struct mmsghdr of 64-bit Linux: name, namelen, iov, iovlen, control, controllen, flags, len.
_MESSAGE: Final = struct.Struct("=QIxxxxQQQQIxxxxIxxxx")
_MESSAGE_FLAGS_AND_LENGTH: Final = struct.Struct("=IxxxxIxxxx")
_FLAGS_OFFSET: Final = _MESSAGE.size - _MESSAGE_FLAGS_AND_LENGTH.size
_VECTOR: Final = struct.Struct("=QQ")
_TIMESTAMP: Final = struct.Struct("=QiiQQ")
"""struct cmsghdr with the struct timespec of SO_TIMESTAMPNS."""
_SO_TIMESTAMPNS: Final = 35

_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg = _libc.recvmmsg
_recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]


class BatchReceiver:
    """Buffers for one batch, shared by all sockets of a process: what came is valid until the next."""

    def __init__(self) -> None:
        self._memory = ctypes.create_string_buffer(BATCH * _SLOT_BYTES)
        self._controls = ctypes.create_string_buffer(BATCH * _CONTROL_BYTES)
        self._vectors = ctypes.create_string_buffer(BATCH * _VECTOR.size)
        self._messages = ctypes.create_string_buffer(BATCH * _MESSAGE.size)
        memory, controls = ctypes.addressof(self._memory), ctypes.addressof(self._controls)
        vectors = ctypes.addressof(self._vectors)
        for slot in range(BATCH):
            _VECTOR.pack_into(
                self._vectors, slot * _VECTOR.size, memory + slot * _SLOT_BYTES, LARGEST_FRAME_BYTES
            )
            _MESSAGE.pack_into(
                self._messages,
                slot * _MESSAGE.size,
                *(0, 0, vectors + slot * _VECTOR.size, 1),
                *(controls + slot * _CONTROL_BYTES, _CONTROL_BYTES, 0, 0),
            )
        self._fresh_messages = self._messages.raw
        self._messages_view = memoryview(self._messages).cast("B")
        self._address = ctypes.addressof(self._messages)
        view = memoryview(self._memory).cast("B")
        self._slots = [view[slot * _SLOT_BYTES : (slot + 1) * _SLOT_BYTES] for slot in range(BATCH)]

    def receive(self, descriptor: int) -> list[tuple[memoryview, int]]:
        """Up to BATCH packets with the nanoseconds since the epoch at which they came; 0: not known.

        A packet that was longer than any frame may be comes as an empty one. Raises OSError.
        """
        # The kernel leaves the lengths of what it wrote where it found those of the buffers.
        messages = self._messages_view
        messages[:] = self._fresh_messages
        count = _recvmmsg(descriptor, self._address, BATCH, _MSG_DONTWAIT | _MSG_TRUNC, None)
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        received = []
        offset = _FLAGS_OFFSET
        controls = self._controls
        for slot in range(count):
            flags, length = _MESSAGE_FLAGS_AND_LENGTH.unpack_from(messages, offset)
            offset += _MESSAGE.size
            if flags & _MSG_TRUNC:
                length = 0
            _, _, kind, seconds, nanoseconds = _TIMESTAMP.unpack_from(controls, slot * _CONTROL_BYTES)
            stamp_ns = seconds * 1_000_000_000 + nanoseconds if kind == _SO_TIMESTAMPNS else 0
            received.append((self._slots[slot][:length], stamp_ns))
        return received
