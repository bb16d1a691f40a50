"""Software segmentation: cuts a TCP super-segment into the packets a real wire would carry.

Follows Linux's ``tcp_gso_segment``: every segment repeats the headers with its own lengths, identification
and sequence number; PSH and FIN stay on the last segment only, CWR on the first.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.wire.checksum import checksum_of, pseudo_header_sum
from mptcp_stack.wire.frame import Buffer, ChecksumState, Frame

_PROTOCOL_TCP = 6
_IPV4_HEADER_LENGTH = 20
_IPV6_HEADER_LENGTH = 40
_TCP_HEADER_LENGTH = 20
_TCP_CHECKSUM_OFFSET = 16
_LARGEST_PACKET = 65535
_LAST_ONLY = 0x01 | 0x08
_FIRST_ONLY = 0x80
_UNSIGNED_16 = struct.Struct("!H")
_UNSIGNED_32 = struct.Struct("!I")

# IPv6 headers that may stand between the fixed header and TCP: hop-by-hop, routing, destination options.
_SKIPPABLE_EXTENSIONS = frozenset({0, 43, 60})


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the headers of a frame lie."""

    network_offset: int
    is_ipv6: bool
    transport_offset: int
    source: bytes
    destination: bytes


def complete_checksum(frame: Frame, network_offset: int) -> Frame:
    """``frame`` with a full transport checksum; the same object when there is nothing to do.

    ``network_offset`` is the length of the link-layer header. A checksum field outside ``head`` leaves the
    frame as it is: there is nothing to put it in.
    """
    if frame.checksum is not ChecksumState.PARTIAL:
        return frame
    start = frame.transport_offset
    field = start + frame.checksum_offset
    if start < network_offset or field + 2 > len(frame.head):
        return replace(frame, checksum=ChecksumState.UNVERIFIED)
    head = bytearray(frame.head)
    # The field holds the pseudo-header sum already, so that it is summed along with the rest.
    checksum = checksum_of((memoryview(head)[start:], *frame.payload))
    _UNSIGNED_16.pack_into(head, field, _never_zero(checksum, frame.checksum_offset))
    return replace(frame, head=bytes(head), checksum=ChecksumState.UNVERIFIED)


def _never_zero(checksum: int, checksum_offset: int) -> int:
    """UDP sends 0xFFFF for a sum of zero (RFC 768)."""
    return checksum if checksum or checksum_offset == _TCP_CHECKSUM_OFFSET else 0xFFFF


def segment_frame(frame: Frame, network_offset: int, *, completes_checksums: bool = True) -> list[Frame]:
    """The packets that ``frame`` stands for; without ``completes_checksums`` unfinished ones stay so.

    An ordinary frame comes back alone. ``network_offset`` is the length of the link-layer header. Payload
    is not copied when it comes in one buffer. Raises MalformedPacketError for a super-segment that is not
    TCP, is fragmented, or whose headers are cut short.
    """
    if not frame.gso_size:
        return [complete_checksum(frame, network_offset) if completes_checksums else frame]
    head, payload = _split_headers(frame, network_offset)
    if len(head) - network_offset + frame.gso_size > _LARGEST_PACKET:
        raise MalformedPacketError(f"segments of {frame.gso_size} bytes fit no IP packet")
    layout = _layout_of(head, network_offset)
    state = frame.checksum
    if completes_checksums or state is not ChecksumState.PARTIAL:
        state = ChecksumState.UNVERIFIED
    return list(_segments(head, payload, frame.gso_size, layout, state))


def _split_headers(frame: Frame, network_offset: int) -> tuple[bytes, memoryview]:
    """All headers, and the payload behind them in one piece."""
    head: Buffer = frame.head
    parts: tuple[Buffer, ...] = frame.payload
    try:
        length = _header_length(head, network_offset)
    except MalformedPacketError:
        if not parts:
            raise
        # The headers may run on into the first payload buffer.
        head, parts = frame.to_bytes(), ()
        length = _header_length(head, network_offset)
    if len(parts) == 1 and len(head) == length:
        return bytes(head), memoryview(parts[0])
    if parts:
        head = frame.to_bytes()
    return bytes(head[:length]), memoryview(head)[length:]


def _header_length(head: Buffer, network_offset: int) -> int:
    start = _layout_of(head, network_offset).transport_offset
    if len(head) < start + _TCP_HEADER_LENGTH:
        raise MalformedPacketError("a super-segment without its TCP header")
    length = (head[start + 12] >> 4) * 4
    if length < _TCP_HEADER_LENGTH or len(head) < start + length:
        raise MalformedPacketError("a super-segment without its TCP options")
    return start + length


def _layout_of(head: Buffer, network_offset: int) -> _Layout:
    if len(head) < network_offset + _IPV4_HEADER_LENGTH:
        raise MalformedPacketError("a super-segment without its IP header")
    version = head[network_offset] >> 4
    if version == 4:
        return _ipv4_layout(head, network_offset)
    if version == 6:
        return _ipv6_layout(head, network_offset)
    raise MalformedPacketError(f"IP version {version}")


def _ipv4_layout(head: Buffer, offset: int) -> _Layout:
    header_length = (head[offset] & 15) * 4
    if header_length < _IPV4_HEADER_LENGTH:
        raise MalformedPacketError("an IPv4 header shorter than itself")
    (fragment,) = _UNSIGNED_16.unpack_from(head, offset + 6)
    if head[offset + 9] != _PROTOCOL_TCP or fragment & 0x3FFF:
        raise MalformedPacketError("only whole TCP packets can be segmented")
    addresses = bytes(head[offset + 12 : offset + 20])
    return _Layout(offset, False, offset + header_length, addresses[:4], addresses[4:])


def _ipv6_layout(head: Buffer, offset: int) -> _Layout:
    end = offset + _IPV6_HEADER_LENGTH
    if len(head) < end:
        raise MalformedPacketError("a super-segment without its IPv6 header")
    protocol, position = head[offset + 6], end
    # Every extension header moves on by at least 8 bytes, so that this ends.
    while protocol in _SKIPPABLE_EXTENSIONS:
        if len(head) < position + 8:
            raise MalformedPacketError("an IPv6 extension header is cut short")
        protocol, position = head[position], position + (head[position + 1] + 1) * 8
    if protocol != _PROTOCOL_TCP:
        raise MalformedPacketError("only whole TCP packets can be segmented")
    return _Layout(
        offset, True, position, bytes(head[offset + 8 : offset + 24]), bytes(head[offset + 24 : end])
    )


def _segments(
    head: bytes, payload: memoryview, gso_size: int, layout: _Layout, state: ChecksumState
) -> Iterator[Frame]:
    start = layout.transport_offset
    (sequence,) = _UNSIGNED_32.unpack_from(head, start + 4)
    flags = head[start + 13]
    identification = 0 if layout.is_ipv6 else _UNSIGNED_16.unpack_from(head, layout.network_offset + 4)[0]
    template = bytearray(head)
    _UNSIGNED_16.pack_into(template, start + _TCP_CHECKSUM_OFFSET, 0)
    for index in itertools.count():
        position = index * gso_size
        is_last = position + gso_size >= len(payload)
        part = payload[position : position + gso_size]
        segment = bytearray(template)
        _UNSIGNED_32.pack_into(segment, start + 4, (sequence + position) & 0xFFFFFFFF)
        segment[start + 13] = flags & (0xFF if is_last else ~_LAST_ONLY) & (~_FIRST_ONLY if index else 0xFF)
        _set_ip_lengths(segment, len(part), identification + index, layout)
        tcp_length = len(segment) - start + len(part)
        initial = pseudo_header_sum(layout.source, layout.destination, _PROTOCOL_TCP, tcp_length)
        checksum = initial
        if state is not ChecksumState.PARTIAL:
            checksum = checksum_of((memoryview(segment)[start:], part), initial)
        _UNSIGNED_16.pack_into(segment, start + _TCP_CHECKSUM_OFFSET, checksum)
        yield Frame(
            bytes(segment),
            (part,) if part else (),
            checksum=state,
            transport_offset=start,
            checksum_offset=_TCP_CHECKSUM_OFFSET,
            is_ipv6=layout.is_ipv6,
        )
        if is_last:
            return


def _set_ip_lengths(segment: bytearray, payload_length: int, identification: int, layout: _Layout) -> None:
    offset = layout.network_offset
    length = len(segment) - offset + payload_length
    if layout.is_ipv6:
        _UNSIGNED_16.pack_into(segment, offset + 4, length - _IPV6_HEADER_LENGTH)
        return
    _UNSIGNED_16.pack_into(segment, offset + 2, length)
    _UNSIGNED_16.pack_into(segment, offset + 4, identification & 0xFFFF)
    _UNSIGNED_16.pack_into(segment, offset + 10, 0)
    checksum = checksum_of((memoryview(segment)[offset : layout.transport_offset],))
    _UNSIGNED_16.pack_into(segment, offset + 10, checksum)
