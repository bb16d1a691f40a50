"""The TCP header (RFC 9293 §3.1)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mptcp_stack.errors import ConfigurationError, MalformedPacketError
from mptcp_stack.wire.tcp_options import NO_OPTIONS, TcpOptions, emit_options, parse_options

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128

HEADER_LENGTH = 20
"""Bytes of a header without options."""
CHECKSUM_OFFSET = 16
"""Where the checksum field lies within the header."""

_HEADER = struct.Struct("!HHIIBBHHH")


@dataclass(slots=True)
class TcpSegment:
    """One segment, or a super-segment. Every number is as on the wire: wrapped, the window not scaled."""

    source_port: int
    destination_port: int
    sequence: int
    acknowledgement: int
    flags: int
    window: int
    options: TcpOptions
    payload: memoryview | bytes = b""
    urgent_pointer: int = 0
    traffic_class: int = 0
    """That of the IP packet that brought it; the last two bits are its ECN field (RFC 3168 §5)."""


def parse_tcp(data: memoryview) -> TcpSegment:
    """The segment in ``data``, whose payload becomes a view of it. The checksum is not verified.

    Raises MalformedPacketError where the header is cut short or its options' lengths make no sense.
    """
    if len(data) < HEADER_LENGTH:
        raise MalformedPacketError(f"TCP segment of {len(data)} bytes")
    (
        source_port,
        destination_port,
        sequence,
        acknowledgement,
        offset_bits,
        flags,
        window,
        _,
        urgent_pointer,
    ) = _HEADER.unpack_from(data)
    header_length = offset_bits >> 4 << 2
    if header_length == HEADER_LENGTH:
        options = NO_OPTIONS
    elif HEADER_LENGTH < header_length <= len(data):
        options = parse_options(data[HEADER_LENGTH:header_length])
    else:
        raise MalformedPacketError(f"TCP data offset of {header_length} in {len(data)} bytes")
    return TcpSegment(
        source_port,
        destination_port,
        sequence,
        acknowledgement,
        flags,
        window,
        options,
        data[header_length:],
        urgent_pointer,
    )


def emit_tcp_header(segment: TcpSegment) -> bytearray:
    """The header with its options; the checksum field is 0, the payload not included.

    Raises ConfigurationError for a value that does not fit its field and for more than 40 bytes of options.
    """
    options = emit_options(segment.options)
    header_length = HEADER_LENGTH + len(options)
    try:
        header = _HEADER.pack(
            segment.source_port,
            segment.destination_port,
            segment.sequence,
            segment.acknowledgement,
            header_length << 2,
            segment.flags,
            segment.window,
            0,
            segment.urgent_pointer,
        )
    except struct.error as error:
        raise ConfigurationError(f"TCP header: {error}") from None
    return bytearray(header + options)
