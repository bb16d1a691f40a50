"""A TCP segment in its frame, as a middlebox takes it apart and puts it together with right checksums."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from mptcp_stack.device.interface import LinkLayer
from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.wire.checksum import checksum_of, ones_complement_sum, pseudo_header_sum
from mptcp_stack.wire.ip_packet import PROTOCOL_TCP, IpPacket, parse_ipv4, parse_ipv6
from mptcp_stack.wire.mptcp_options import KIND_MPTCP

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10

MAXIMUM_OPTIONS_BYTES: Final = 40
NO_OPERATION: Final = b"\x01"

_PARSERS = {b"\x08\x00": parse_ipv4, b"\x86\xdd": parse_ipv6}
_HEADER = struct.Struct("!HHIIBBHHH")
_UINT16 = struct.Struct("!H")
_LARGEST_PACKET = 65_535


@dataclass(slots=True)
class Segment:
    """What a box may look at and change; whoever changes it returns another one, by ``replace``."""

    headers: bytes
    """All before the TCP header."""
    network_offset: int
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    sequence: int
    acknowledgment: int
    flags: int
    window: int
    urgent: int
    options: bytes
    payload: bytes

    @property
    def flow(self) -> bytes:
        """Names the connection, in the direction of this segment."""
        return b"".join(
            (
                self.source,
                self.destination,
                _UINT16.pack(self.source_port),
                _UINT16.pack(self.destination_port),
            )
        )

    @property
    def opposite_flow(self) -> bytes:
        """What :attr:`flow` is in segments that come back."""
        return b"".join(
            (
                self.destination,
                self.source,
                _UINT16.pack(self.destination_port),
                _UINT16.pack(self.source_port),
            )
        )

    @property
    def opens_connection(self) -> bool:
        """A SYN, not that of an answer."""
        return self.flags & (SYN | ACK) == SYN

    def mptcp_subtypes(self) -> list[int]:
        return [
            self.options[start + 2] >> 4 for kind, start, _end in self.each_option() if kind == KIND_MPTCP
        ]

    def each_option(self) -> Iterator[tuple[int, int, int]]:
        """Kind, start and end of every whole option; ends at the first that is not one."""
        options, start = self.options, 0
        while start < len(options):
            kind = options[start]
            if kind == 0:
                return
            if kind == 1:
                start += 1
                continue
            length = options[start + 1] if start + 1 < len(options) else 0
            if length < (3 if kind == KIND_MPTCP else 2) or start + length > len(options):
                return
            yield kind, start, start + length
            start += length

    def to_bytes(self) -> bytes:
        """The frame, with lengths and checksums that fit."""
        options = self.options + NO_OPERATION * (-len(self.options) % 4)
        length = 20 + len(options) + len(self.payload)
        header = bytearray(
            _HEADER.pack(
                self.source_port,
                self.destination_port,
                self.sequence & 0xFFFF_FFFF,
                self.acknowledgment & 0xFFFF_FFFF,
                (20 + len(options)) << 2,
                self.flags,
                self.window,
                0,
                self.urgent,
            )
        )
        total = pseudo_header_sum(self.source, self.destination, PROTOCOL_TCP, length)
        _UINT16.pack_into(header, 16, checksum_of((header, options, self.payload), total))
        return b"".join((self._ip_headers(length), header, options, self.payload))

    def _ip_headers(self, length: int) -> bytes:
        headers, start = bytearray(self.headers), self.network_offset
        if len(self.source) == 16:
            headers[start + 8 : start + 40] = self.source + self.destination
            _UINT16.pack_into(headers, start + 4, len(headers) - start - 40 + length)
            return bytes(headers)
        headers[start + 12 : start + 20] = self.source + self.destination
        _UINT16.pack_into(headers, start + 2, len(headers) - start + length)
        headers[start + 10 : start + 12] = b"\0\0"
        _UINT16.pack_into(headers, start + 10, checksum_of((headers[start:],)))
        return bytes(headers)


def parse_segment(
    frame: bytes, link_layer: LinkLayer = LinkLayer.ETHERNET, *, is_checked: bool = False
) -> Segment | None:
    """None for what holds no whole TCP segment with a right checksum: a box lets that pass as it is.

    ``is_checked``: whoever hands it over vouches for its checksum, which may not be there yet.
    """
    offset = link_layer.header_length
    if len(frame) <= offset:
        return None
    ether_type = frame[12:14] if offset else {4: b"\x08\x00", 6: b"\x86\xdd"}.get(frame[0] >> 4, b"")
    parser = _PARSERS.get(ether_type)
    if parser is None:
        return None
    try:
        packet = parser(memoryview(frame)[offset:])
    except MalformedPacketError:
        return None
    if (
        packet.protocol != PROTOCOL_TCP
        or packet.is_fragment
        or not 20 <= len(packet.payload) <= _LARGEST_PACKET
    ):
        return None
    return _segment(frame, packet, offset, is_checked=is_checked)


def _segment(frame: bytes, packet: IpPacket, network_offset: int, *, is_checked: bool) -> Segment | None:
    data = bytes(packet.payload)
    ports_and_numbers = _HEADER.unpack_from(data)
    header_length = (ports_and_numbers[4] >> 4) * 4
    if not 20 <= header_length <= len(data):
        return None
    total = pseudo_header_sum(packet.source, packet.destination, PROTOCOL_TCP, len(data))
    if not is_checked and (total + ones_complement_sum(data)) % 0xFFFF:
        return None
    source_port, destination_port, sequence, acknowledgment, _, flags, window, _, urgent = ports_and_numbers
    return Segment(
        headers=frame[: network_offset + packet.payload_offset],
        network_offset=network_offset,
        source=packet.source,
        destination=packet.destination,
        source_port=source_port,
        destination_port=destination_port,
        sequence=sequence,
        acknowledgment=acknowledgment,
        flags=flags,
        window=window,
        urgent=urgent,
        options=data[20:header_length],
        payload=data[header_length:],
    )


def cut(segment: Segment, payload_bytes: int) -> list[Segment]:
    """Pieces of at most so many bytes, each with all options; PSH and FIN stay with the last."""
    payload = segment.payload
    if len(payload) <= payload_bytes:
        return [segment]
    pieces = []
    for start in range(0, len(payload), payload_bytes):
        is_last = start + payload_bytes >= len(payload)
        pieces.append(
            replace(
                segment,
                sequence=segment.sequence + start,
                flags=segment.flags if is_last else segment.flags & ~(PSH | FIN),
                payload=payload[start : start + payload_bytes],
            )
        )
    return pieces
