"""Ethernet II frames (IEEE 802.3 clause 3), untagged."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mptcp_stack.errors import ConfigurationError, MalformedPacketError
from mptcp_stack.wire.frame import Buffer

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_IPV6 = 0x86DD

HEADER_LENGTH = 14
BROADCAST = b"\xff" * 6

_HEADER = struct.Struct("!6s6sH")


@dataclass(slots=True)
class EthernetHeader:
    """The header of a frame; MAC addresses of 6 bytes."""

    destination: bytes
    source: bytes
    ether_type: int


def parse_ethernet(data: Buffer) -> EthernetHeader:
    """The header of the frame in ``data``; what it carries starts at `HEADER_LENGTH`.

    Raises MalformedPacketError when cut short. A value below 0x0600 in ``ether_type`` is an 802.3 length: the
    caller knows no such type and drops the frame.
    """
    if len(data) < HEADER_LENGTH:
        raise MalformedPacketError(f"Ethernet frame of {len(data)} bytes")
    return EthernetHeader(*_HEADER.unpack_from(data))


def emit_ethernet(header: EthernetHeader) -> bytes:
    """The 14 bytes of the header; raises ConfigurationError for a value that does not fit its field."""
    if len(header.destination) != 6 or len(header.source) != 6:
        raise ConfigurationError("a MAC address has 6 bytes")
    try:
        return _HEADER.pack(header.destination, header.source, header.ether_type)
    except struct.error as error:
        raise ConfigurationError(f"{header}: {error}") from None


def multicast_mac(group: bytes) -> bytes:
    """The MAC address of an IP multicast group (RFC 1112 §6.4, RFC 2464 §7)."""
    if len(group) == 4:
        return bytes((0x01, 0x00, 0x5E, group[1] & 0x7F)) + group[2:]
    return b"\x33\x33" + group[12:]


def format_mac(address: bytes) -> str:
    """The usual text form, as ``02:00:00:00:00:01``."""
    return address.hex(":")
