"""An IP packet taken apart without judging it: what is compared with a script and printed in its language."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.wire.checksum import checksum_of, pseudo_header_sum
from mptcp_stack.wire.ip_packet import (
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_TCP,
    parse_ipv4,
    parse_ipv6,
)
from mptcp_stack.wire.mptcp_options import KIND_MPTCP, MptcpOption, UnknownMptcpOption, parse_mptcp_option

TCP_HEADER = struct.Struct("!HHIIBBHHH")

KIND_END, KIND_NO_OPERATION = 0, 1
KIND_MAXIMUM_SEGMENT_SIZE, KIND_WINDOW_SCALE, KIND_SACK_PERMITTED, KIND_SACK = 2, 3, 4, 5
KIND_TIMESTAMPS, KIND_MD5_SIGNATURE, KIND_FAST_OPEN, KIND_EXPERIMENTAL = 8, 19, 34, 254
FAST_OPEN_MAGIC = b"\xf9\x89"
"""Begins the experimental form of TCP Fast Open (RFC 7413 §4.1, RFC 6994)."""


@dataclass(frozen=True, slots=True)
class WireOption:
    """One option as it lay in the header, kind and length included."""

    kind: int
    data: bytes

    def mptcp(self) -> MptcpOption | None:
        """The MPTCP option in it; None if it is another one, unknown or malformed."""
        if self.kind != KIND_MPTCP:
            return None
        try:
            option = parse_mptcp_option(self.data)
        except MalformedPacketError:
            return None
        # Bits that no field keeps (reserved ones, an unknown flag) would be lost: such an option stays raw.
        if isinstance(option, UnknownMptcpOption) or option.to_bytes() != self.data:
            return None
        return option


@dataclass(frozen=True, slots=True)
class WireTcp:
    """Numbers as on the wire. ``options`` ends with the first end-of-options."""

    source_port: int
    destination_port: int
    sequence: int
    acknowledgement: int
    flags: int
    window: int
    urgent_pointer: int
    options: tuple[WireOption, ...]
    option_bytes: bytes
    payload: bytes
    checksum_is_good: bool


@dataclass(frozen=True, slots=True)
class WireIcmp:
    """``rest`` is what follows the checksum: four bytes, then what the message quotes."""

    icmp_type: int
    code: int
    rest: bytes


@dataclass(frozen=True, slots=True)
class WirePacket:
    source: bytes
    destination: bytes
    traffic_class: int
    hop_limit: int
    flow_label: int
    content: WireTcp | WireIcmp

    @property
    def is_ipv6(self) -> bool:
        return len(self.source) == 16


def read_wire_packet(data: bytes) -> WirePacket:
    """Takes a TCP or ICMP packet apart; raises MalformedPacketError for anything else.

    Options whose lengths make no sense become one piece that reaches to the end of the header.
    """
    view = memoryview(data)
    if not data:
        raise MalformedPacketError("an empty packet")
    is_ipv6 = data[0] >> 4 == 6
    packet = parse_ipv6(view) if is_ipv6 else parse_ipv4(view)
    payload = bytes(packet.payload)
    content: WireTcp | WireIcmp
    if packet.is_fragment:
        raise MalformedPacketError("a fragment")
    if packet.protocol == PROTOCOL_TCP:
        initial = pseudo_header_sum(packet.source, packet.destination, PROTOCOL_TCP, len(payload))
        content = read_tcp(payload, checksum_is_good=checksum_of((payload,), initial) == 0)
    elif packet.protocol == (PROTOCOL_ICMPV6 if is_ipv6 else PROTOCOL_ICMP):
        if len(payload) < 8:
            raise MalformedPacketError(f"ICMP message of {len(payload)} bytes")
        content = WireIcmp(payload[0], payload[1], payload[4:])
    else:
        raise MalformedPacketError(f"IP protocol {packet.protocol}, neither TCP nor ICMP")
    flow_label = int.from_bytes(data[:4], "big") & 0xFFFFF if is_ipv6 else 0
    return WirePacket(
        packet.source, packet.destination, packet.traffic_class, packet.hop_limit, flow_label, content
    )


def read_tcp(data: bytes, *, checksum_is_good: bool = True) -> WireTcp:
    """The TCP segment in ``data``; raises MalformedPacketError where the header is cut short."""
    if len(data) < TCP_HEADER.size:
        raise MalformedPacketError(f"TCP segment of {len(data)} bytes")
    source, destination, sequence, acknowledgement, offset, flags, window, _, urgent = TCP_HEADER.unpack_from(
        data
    )
    header_length = offset >> 4 << 2
    if not TCP_HEADER.size <= header_length <= len(data):
        raise MalformedPacketError(f"TCP data offset of {header_length} in {len(data)} bytes")
    option_bytes = data[TCP_HEADER.size : header_length]
    return WireTcp(
        source,
        destination,
        sequence,
        acknowledgement,
        flags,
        window,
        urgent,
        _split_options(option_bytes),
        option_bytes,
        data[header_length:],
        checksum_is_good,
    )


def _split_options(data: bytes) -> tuple[WireOption, ...]:
    options: list[WireOption] = []
    offset = 0
    while offset < len(data):
        kind = data[offset]
        if kind == KIND_END:
            options.append(WireOption(kind, data[offset : offset + 1]))
            break
        length = 1
        if kind != KIND_NO_OPERATION:
            length = data[offset + 1] if offset + 1 < len(data) else 0
            if length < 2 or offset + length > len(data):
                length = len(data) - offset
        options.append(WireOption(kind, data[offset : offset + length]))
        offset += length
    return tuple(options)
