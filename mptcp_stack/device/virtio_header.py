"""The virtio-net header: how Linux describes an offloaded frame to packet sockets and TUN devices.

Legacy layout of 10 bytes in native byte order (virtio 1.3 §5.1.6; linux/virtio_net.h).
"""

from __future__ import annotations

import struct

from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.wire.frame import ChecksumState, Frame

HEADER_LENGTH = 10

FLAG_NEEDS_CHECKSUM = 1
FLAG_DATA_VALID = 2

GSO_NONE = 0
GSO_TCP_V4 = 1
GSO_UDP = 3
GSO_TCP_V6 = 4
GSO_UDP_L4 = 5
GSO_ECN = 0x80
_KNOWN_GSO_TYPES = frozenset({GSO_TCP_V4, GSO_UDP, GSO_TCP_V6, GSO_UDP_L4})

_LAYOUT = struct.Struct("=BBHHHH")
_NOTHING = bytes(HEADER_LENGTH)

_TCP_CHECKSUM_OFFSET = 16
_TCP_DATA_OFFSET = 12
_UDP_HEADER_LENGTH = 8


def encode(frame: Frame) -> bytes:
    """The header to put in front of ``frame``.

    Raises MalformedPacketError for a super-segment whose transport header is not in ``head``.
    """
    flags = FLAG_NEEDS_CHECKSUM if frame.checksum is ChecksumState.PARTIAL else 0
    if not frame.gso_size and not flags:
        return _NOTHING
    gso_type, header_length = _segmentation_of(frame) if frame.gso_size else (GSO_NONE, len(frame.head))
    try:
        return _LAYOUT.pack(
            flags, gso_type, header_length, frame.gso_size, frame.transport_offset, frame.checksum_offset
        )
    except struct.error as error:
        raise MalformedPacketError(f"offload metadata out of range: {error}") from error


def _segmentation_of(frame: Frame) -> tuple[int, int]:
    """Segmentation type, and the bytes of headers that every segment repeats."""
    start = frame.transport_offset
    if frame.checksum_offset != _TCP_CHECKSUM_OFFSET:
        return GSO_UDP_L4, start + _UDP_HEADER_LENGTH
    if len(frame.head) <= start + _TCP_DATA_OFFSET:
        raise MalformedPacketError("a super-segment without its TCP header")
    header_length = start + (frame.head[start + _TCP_DATA_OFFSET] >> 4) * 4
    return (GSO_TCP_V6 if frame.is_ipv6 else GSO_TCP_V4), header_length


def decode(data: memoryview) -> Frame:
    """The frame in ``data``, which begins with the header; copies the bytes once.

    Raises MalformedPacketError when header and frame contradict each other.
    """
    if len(data) < HEADER_LENGTH:
        raise MalformedPacketError("shorter than the virtio-net header")
    head = bytes(data[HEADER_LENGTH:])
    if data[:HEADER_LENGTH] == _NOTHING:
        return Frame(head)
    flags, gso_type, _, gso_size, start, offset = _LAYOUT.unpack_from(data)
    state = _checksum_state(flags)
    if state is ChecksumState.PARTIAL and start + offset + 2 > len(head):
        raise MalformedPacketError("the checksum field lies beyond the frame")
    kind = gso_type & ~GSO_ECN
    if kind == GSO_NONE:
        gso_size = 0
    elif kind not in _KNOWN_GSO_TYPES or gso_size == 0:
        raise MalformedPacketError(f"unknown segmentation type {gso_type} or size {gso_size}")
    if state is not ChecksumState.PARTIAL:
        return Frame(head, gso_size=gso_size, checksum=state, is_ipv6=kind == GSO_TCP_V6)
    return Frame(
        head,
        gso_size=gso_size,
        checksum=state,
        transport_offset=start,
        checksum_offset=offset,
        is_ipv6=kind == GSO_TCP_V6,
    )


def _checksum_state(flags: int) -> ChecksumState:
    if flags & FLAG_NEEDS_CHECKSUM:
        return ChecksumState.PARTIAL
    if flags & FLAG_DATA_VALID:
        return ChecksumState.VERIFIED
    return ChecksumState.UNVERIFIED
