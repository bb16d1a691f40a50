"""What the middleboxes of a scenario do to packets: removing options, and damage with right checksums."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from mptcp_stack.device.interface import LinkLayer
from mptcp_stack.device.link_model import flip_bit
from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.wire.checksum import checksum_of, pseudo_header_sum
from mptcp_stack.wire.ip_packet import PROTOCOL_TCP, IpPacket, parse_ipv4, parse_ipv6
from mptcp_stack.wire.mptcp_options import KIND_MPTCP
from mptcp_stack.wire.tcp_segment import ACK, RST, SYN
from testbed.soak.scenario import Stripping

FLAGS_OFFSET = 13
CHECKSUM_OFFSET = 16
PACKETS_BEFORE_LATER = 12
"""How many packets `Stripping.LATER` lets pass."""


@dataclass(frozen=True, slots=True)
class FoundSegment:
    """A TCP segment and where it lies in its frame."""

    offset: int
    ip_packet: IpPacket

    @property
    def flags(self) -> int:
        return self.ip_packet.payload[FLAGS_OFFSET]

    @property
    def server_port(self) -> int:
        """The lower one: clients have theirs from the range for passing use."""
        ports = self.ip_packet.payload
        return min(int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:4], "big"))

    @property
    def header_length(self) -> int:
        return (self.ip_packet.payload[12] >> 4) * 4


def find_segment(frame: bytes, link_layer: LinkLayer) -> FoundSegment | None:
    """None where the frame holds no whole TCP header."""
    offset = link_layer.header_length
    if len(frame) <= offset:
        return None
    parse = {4: parse_ipv4, 6: parse_ipv6}.get(frame[offset] >> 4)
    if parse is None or (offset and frame[12:14] not in (b"\x08\x00", b"\x86\xdd")):
        return None
    try:
        ip_packet = parse(memoryview(frame)[offset:])
    except MalformedPacketError:
        return None
    segment = ip_packet.payload
    if ip_packet.protocol != PROTOCOL_TCP or ip_packet.is_fragment or len(segment) < 20:
        return None
    found = FoundSegment(offset + ip_packet.payload_offset, ip_packet)
    return found if 20 <= found.header_length <= len(segment) else None


def with_segment(frame: bytes, found: FoundSegment, segment: bytearray) -> bytes:
    """The frame with another segment of the same length, its checksum made right."""
    segment[CHECKSUM_OFFSET : CHECKSUM_OFFSET + 2] = b"\0\0"
    packet = found.ip_packet
    total = pseudo_header_sum(packet.source, packet.destination, PROTOCOL_TCP, len(segment))
    segment[CHECKSUM_OFFSET : CHECKSUM_OFFSET + 2] = checksum_of((segment,), total).to_bytes(2, "big")
    return frame[: found.offset] + bytes(segment) + frame[found.offset + len(segment) :]


def damage(frame: bytes, bit: int, link_layer: LinkLayer) -> bytes:
    """One bit flipped; but not in ARP, which has no checksum at all and would be believed."""
    if link_layer is LinkLayer.ETHERNET and frame[12:14] == b"\x08\x06":
        return frame
    return flip_bit(frame, bit)


@dataclass(slots=True)
class Box:
    """One direction of one path."""

    link_layer: LinkLayer
    stream: random.Random
    stripping: Stripping | None
    damages_data: float
    segments: int = 0
    damaged: Counter[int] = field(default_factory=Counter)
    """Packets whose payload it changed, by the port of their server."""
    stripped: Counter[int] = field(default_factory=Counter)
    """Packets from which it took options."""

    def rewrite(self, frame: bytes, index: int) -> list[bytes]:
        """For :attr:`mptcp_stack.device.in_memory.Wire.rewrite`."""
        found = find_segment(frame, self.link_layer)
        if found is None:
            return [frame]
        self.segments += 1
        if self.stripping is not None and self._strips(found.flags):
            segment = bytearray(found.ip_packet.payload)
            if blank_options(segment, found.header_length):
                self.stripped[found.server_port] += 1
                frame = with_segment(frame, found, segment)
        payload_bytes = len(found.ip_packet.payload) - found.header_length
        if payload_bytes and self.damages_data and self.stream.random() < self.damages_data:
            self.damaged[found.server_port] += 1
            frame = self._damaged(frame, found, payload_bytes)
        return [frame]

    def _strips(self, flags: int) -> bool:
        return _STRIPS[self.stripping](flags, self.segments) if self.stripping is not None else False

    def _damaged(self, frame: bytes, found: FoundSegment, payload_bytes: int) -> bytes:
        segment = bytearray(frame[found.offset : found.offset + len(found.ip_packet.payload)])
        segment[found.header_length + self.stream.randrange(payload_bytes)] ^= 1 << self.stream.randrange(8)
        return with_segment(frame, found, segment)


_STRIPS: dict[Stripping, Callable[[int, int], bool]] = {
    Stripping.ALL: lambda flags, count: True,
    Stripping.SYNS: lambda flags, count: flags & (SYN | ACK) == SYN,
    Stripping.SYN_ACKS: lambda flags, count: flags & (SYN | ACK) == SYN | ACK,
    Stripping.AFTER_SYNS: lambda flags, count: not flags & SYN,
    Stripping.LATER: lambda flags, count: count > PACKETS_BEFORE_LATER and not flags & (SYN | RST),
}


def blank_options(segment: bytearray, header_length: int) -> bool:
    """Overwrites the MPTCP options with NOPs; False when there are none."""
    position, has_changed = 20, False
    while position < header_length:
        kind = segment[position]
        if kind == 0:
            break
        length = 1 if kind == 1 else max(2, segment[position + 1]) if position + 1 < header_length else 2
        if kind == KIND_MPTCP:
            end = min(position + length, header_length)
            segment[position:end] = b"\x01" * (end - position)
            has_changed = True
        position += length
    return has_changed
