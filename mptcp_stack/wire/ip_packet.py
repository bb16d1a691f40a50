"""IPv4 (RFC 791) and IPv6 (RFC 8200) packets as an end host sees them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from mptcp_stack.errors import ConfigurationError, MalformedPacketError
from mptcp_stack.wire.checksum import checksum_of, ones_complement_sum
from mptcp_stack.wire.frame import View

PROTOCOL_HOP_BY_HOP = 0
PROTOCOL_ICMP = 1
PROTOCOL_TCP = 6
PROTOCOL_UDP = 17
PROTOCOL_ROUTING = 43
PROTOCOL_FRAGMENT = 44
PROTOCOL_ICMPV6 = 58
PROTOCOL_NO_NEXT_HEADER = 59
PROTOCOL_DESTINATION_OPTIONS = 60

IPV4_HEADER_LENGTH = 20
IPV6_HEADER_LENGTH = 40

MAXIMUM_EXTENSION_HEADERS = 8
"""More than RFC 8200 §4.1 can make use of; a longer chain is an attempt to keep the receiver busy."""

_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_FRAGMENT = struct.Struct("!BBHI")
_UINT16 = struct.Struct("!H")
_UINT32 = struct.Struct("!I")

_DONT_FRAGMENT = 0x4000
_MORE_FRAGMENTS = 0x2000
_FRAGMENT_OFFSET = 0x1FFF
_MORE_FRAGMENTS_OR_OFFSET = _MORE_FRAGMENTS | _FRAGMENT_OFFSET
_UPPER_LAYER_BYTES = {PROTOCOL_TCP: 20, PROTOCOL_UDP: 8, PROTOCOL_ICMPV6: 8, PROTOCOL_NO_NEXT_HEADER: 0}
_OPTION_PAD1 = 0x00
_OPTION_JUMBO = 0xC2


@dataclass(slots=True, frozen=True)
class Fragment:
    """Which piece of a larger packet a fragment is; ``offset`` in bytes of that packet's payload."""

    identification: int
    offset: int
    has_more: bool


@dataclass(slots=True)
class IpPacket:
    """One IP packet. ``protocol`` names what ``payload`` holds, after any IPv6 extension headers.

    ``traffic_class`` is the byte of DSCP and ECN. ``payload_offset`` is where the payload starts, counted
    from the start of the IP header. A fragment's payload is a piece of a larger packet's.
    """

    source: bytes
    destination: bytes
    protocol: int
    payload: View
    hop_limit: int
    traffic_class: int
    payload_offset: int
    fragment: Fragment | None = None

    @property
    def is_fragment(self) -> bool:
        return self.fragment is not None


def parse_ipv4(data: memoryview) -> IpPacket:
    """The packet at the start of ``data``, its header checksum verified; bytes beyond its length are cut off.

    A total length of 0 means "all of ``data``": a super-segment of more than 64 KiB can say it no other way.
    Raises MalformedPacketError.
    """
    header_length = _ipv4_header_length(data)
    (
        _,
        traffic_class,
        total_length,
        identification,
        fragment,
        hop_limit,
        protocol,
        _,
        source,
        destination,
    ) = _IPV4.unpack_from(data)
    if ones_complement_sum(data[:header_length]) != 0xFFFF:
        raise MalformedPacketError("IPv4 header checksum")
    if total_length == 0:
        total_length = len(data)
    elif not header_length <= total_length <= len(data):
        raise MalformedPacketError(f"IPv4 total length of {total_length} in {len(data)} bytes")
    return IpPacket(
        source,
        destination,
        protocol,
        data[header_length:total_length],
        hop_limit,
        traffic_class,
        header_length,
        _ipv4_fragment(identification, fragment) if fragment & _MORE_FRAGMENTS_OR_OFFSET else None,
    )


def _ipv4_fragment(identification: int, field: int) -> Fragment:
    return Fragment(identification, (field & _FRAGMENT_OFFSET) << 3, field & _MORE_FRAGMENTS != 0)


def _ipv4_header_length(data: memoryview) -> int:
    if len(data) < IPV4_HEADER_LENGTH:
        raise MalformedPacketError(f"IPv4 packet of {len(data)} bytes")
    header_length = (data[0] & 0x0F) << 2
    if data[0] >> 4 != 4 or not IPV4_HEADER_LENGTH <= header_length <= len(data):
        raise MalformedPacketError(f"IPv4 packet of {len(data)} bytes begins with {data[0]:#04x}")
    return header_length


def parse_ipv6(data: memoryview) -> IpPacket:
    """The packet at the start of ``data``; what lies beyond its length is cut off.

    Walks hop-by-hop options, routing headers, destination options and fragment headers; an atomic fragment
    (RFC 6946) counts as a whole packet. A payload length of 0 is taken from the jumbo payload option
    (RFC 2675); without that option it means "all of ``data``" where this is more than the field could tell.
    Raises MalformedPacketError, also where RFC 8200 wants a packet discarded: for an option that says so when
    it is not known, and for a routing header that has segments left.
    """
    packet, payload_length = _parse_ipv6_header(data)
    end = IPV6_HEADER_LENGTH + payload_length
    if payload_length == 0:
        if packet.protocol == PROTOCOL_HOP_BY_HOP or len(data) > IPV6_HEADER_LENGTH + 0xFFFF:
            end = len(data)
    elif end > len(data):
        raise MalformedPacketError(f"IPv6 payload length of {payload_length} in {len(data)} bytes")
    packet.payload = data[IPV6_HEADER_LENGTH:end]
    if packet.protocol in _EXTENSION_HEADERS:
        _walk_extension_headers(packet, is_jumbo=payload_length == 0)
    return packet


def _parse_ipv6_header(data: memoryview) -> tuple[IpPacket, int]:
    """The packet as its fixed header describes it, all else as payload, and the payload length."""
    if len(data) < IPV6_HEADER_LENGTH:
        raise MalformedPacketError(f"IPv6 packet of {len(data)} bytes")
    first, payload_length, protocol, hop_limit, source, destination = _IPV6.unpack_from(data)
    if first >> 28 != 6:
        raise MalformedPacketError(f"IPv6 packet with version {first >> 28}")
    return (
        IpPacket(
            source,
            destination,
            protocol,
            data[IPV6_HEADER_LENGTH:],
            hop_limit,
            first >> 20 & 0xFF,
            IPV6_HEADER_LENGTH,
        ),
        payload_length,
    )


_EXTENSION_HEADERS = frozenset(
    {PROTOCOL_HOP_BY_HOP, PROTOCOL_ROUTING, PROTOCOL_FRAGMENT, PROTOCOL_DESTINATION_OPTIONS}
)


def _walk_extension_headers(packet: IpPacket, is_jumbo: bool) -> None:
    """Moves ``packet`` on to what follows its extension headers, or to a fragment's piece."""
    for position in range(MAXIMUM_EXTENSION_HEADERS):
        kind = packet.protocol
        if kind not in _EXTENSION_HEADERS:
            return
        if kind == PROTOCOL_FRAGMENT:
            _enter_fragment(packet)
            if packet.is_fragment:
                return
            continue
        header = _extension_header(packet.payload)
        if kind == PROTOCOL_HOP_BY_HOP:
            if position:
                # RFC 8200 §4.1: only directly after the IPv6 header.
                raise MalformedPacketError("hop-by-hop options in the middle of the extension headers")
            jumbo_length = _check_options(header, is_hop_by_hop=True)
            _apply_jumbo_length(packet, jumbo_length, is_jumbo)
        elif kind == PROTOCOL_DESTINATION_OPTIONS:
            _check_options(header, is_hop_by_hop=False)
        elif header[3]:
            # RFC 8200 §4.4: this host is no router of any routing type.
            raise MalformedPacketError(f"routing header with {header[3]} segments left")
        _skip(packet, header[0], len(header))
    if packet.protocol in _EXTENSION_HEADERS:
        raise MalformedPacketError(f"more than {MAXIMUM_EXTENSION_HEADERS} IPv6 extension headers")


def enter_reassembled(packet: IpPacket) -> None:
    """Walks what lay behind the fragment header of a whole packet; raises MalformedPacketError."""
    if packet.protocol in (PROTOCOL_FRAGMENT, PROTOCOL_HOP_BY_HOP):
        raise MalformedPacketError("a fragmented packet in fragments, or hop-by-hop options behind them")
    if packet.protocol in _EXTENSION_HEADERS:
        _walk_extension_headers(packet, is_jumbo=False)
        if packet.is_fragment:
            raise MalformedPacketError("a fragmented packet in fragments")


def names_upper_layer(fragment: IpPacket) -> bool:
    """Whether a first fragment reaches as far as the upper layer's header (RFC 8200 §4.5, RFC 7112)."""
    packet = replace(fragment, fragment=None)
    try:
        enter_reassembled(packet)
    except MalformedPacketError:
        return False
    return len(packet.payload) >= _UPPER_LAYER_BYTES.get(packet.protocol, 1)


def _extension_header(data: memoryview) -> memoryview:
    length = data[1] + 1 << 3 if len(data) >= 8 else 8
    if length > len(data):
        raise MalformedPacketError(f"IPv6 extension header cut short after {len(data)} bytes")
    return data[:length]


def _skip(packet: IpPacket, next_header: int, length: int) -> None:
    packet.protocol = next_header
    packet.payload = packet.payload[length:]
    packet.payload_offset += length


def _enter_fragment(packet: IpPacket) -> None:
    if len(packet.payload) < _FRAGMENT.size:
        raise MalformedPacketError("IPv6 fragment header cut short")
    next_header, _, offset_and_more, identification = _FRAGMENT.unpack_from(packet.payload)
    # RFC 6946: neither an offset nor more to come make a whole packet, whatever others have the same number.
    if offset_and_more & 0xFFF9:
        packet.fragment = Fragment(identification, offset_and_more & 0xFFF8, offset_and_more & 1 != 0)
    _skip(packet, next_header, _FRAGMENT.size)


def _check_options(header: memoryview, is_hop_by_hop: bool) -> int | None:
    """Walks the options of RFC 8200 §4.2; the value of the jumbo payload option, if there is one."""
    jumbo_length = None
    offset = 2
    while offset < len(header):
        kind = header[offset]
        if kind == _OPTION_PAD1:
            offset += 1
            continue
        if offset + 2 > len(header) or offset + 2 + header[offset + 1] > len(header):
            raise MalformedPacketError(f"IPv6 option {kind:#04x} reaches beyond its header")
        length = header[offset + 1]
        if kind == _OPTION_JUMBO and is_hop_by_hop and length == 4:
            jumbo_length = _UINT32.unpack_from(header, offset + 2)[0]
        elif kind >> 6:
            raise MalformedPacketError(f"IPv6 option {kind:#04x} is not known and forbids to ignore it")
        offset += 2 + length
    return jumbo_length


def _apply_jumbo_length(packet: IpPacket, jumbo_length: int | None, is_jumbo: bool) -> None:
    """RFC 2675 §3: a jumbo length goes with a payload length of 0, each only with the other."""
    if (jumbo_length is not None) != is_jumbo:
        raise MalformedPacketError("IPv6 payload length and jumbo payload option contradict each other")
    if jumbo_length is not None:
        if not 0xFFFF < jumbo_length <= len(packet.payload):
            raise MalformedPacketError(f"IPv6 jumbo payload of {jumbo_length} in {len(packet.payload)} bytes")
        packet.payload = packet.payload[:jumbo_length]


def parse_quoted_packet(data: memoryview) -> IpPacket:
    """The start of a packet as an ICMP error quotes it: cut short, and its checksum may have been changed.

    ``payload`` is as much as was quoted. Raises MalformedPacketError where not even the headers are whole.
    """
    if not data:
        raise MalformedPacketError("an ICMP error that quotes nothing")
    if data[0] >> 4 == 6:
        packet, payload_length = _parse_ipv6_header(data)
        _walk_extension_headers(packet, is_jumbo=payload_length == 0)
        return packet
    header_length = _ipv4_header_length(data)
    fields = _IPV4.unpack_from(data)
    return IpPacket(
        source=fields[8],
        destination=fields[9],
        protocol=fields[6],
        payload=data[header_length:],
        hop_limit=fields[5],
        traffic_class=fields[1],
        payload_offset=header_length,
        fragment=_ipv4_fragment(fields[3], fields[4]) if fields[4] & _MORE_FRAGMENTS_OR_OFFSET else None,
    )


def emit_ipv4_header(
    source: bytes,
    destination: bytes,
    protocol: int,
    payload_length: int,
    *,
    identification: int,
    hop_limit: int = 64,
    traffic_class: int = 0,
    dont_fragment: bool = True,
) -> bytes:
    """A header of 20 bytes with its checksum; raises ConfigurationError for a value that does not fit."""
    if len(source) != 4 or len(destination) != 4:
        raise ConfigurationError("an IPv4 address has 4 bytes")
    try:
        header = _IPV4.pack(
            0x45,
            traffic_class,
            IPV4_HEADER_LENGTH + payload_length,
            identification,
            _DONT_FRAGMENT if dont_fragment else 0,
            hop_limit,
            protocol,
            0,
            source,
            destination,
        )
    except struct.error as error:
        raise ConfigurationError(f"IPv4 header for {payload_length} bytes: {error}") from None
    return header[:10] + _UINT16.pack(checksum_of((header,))) + header[12:]


def emit_ipv6_header(
    source: bytes,
    destination: bytes,
    protocol: int,
    payload_length: int,
    *,
    hop_limit: int = 64,
    traffic_class: int = 0,
    flow_label: int = 0,
) -> bytes:
    """A header of 40 bytes; raises ConfigurationError for a value that does not fit."""
    if len(source) != 16 or len(destination) != 16:
        raise ConfigurationError("an IPv6 address has 16 bytes")
    first = 6 << 28 | (traffic_class & 0xFF) << 20 | flow_label & 0xFFFFF
    try:
        return _IPV6.pack(first, payload_length, protocol, hop_limit, source, destination)
    except struct.error as error:
        raise ConfigurationError(f"IPv6 header for {payload_length} bytes: {error}") from None
