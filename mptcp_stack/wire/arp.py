"""ARP for IPv4 over Ethernet (RFC 826)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mptcp_stack.errors import ConfigurationError, MalformedPacketError
from mptcp_stack.wire.ethernet import ETHERTYPE_IPV4
from mptcp_stack.wire.frame import Buffer

ARP_REQUEST = 1
ARP_REPLY = 2

_HARDWARE_ETHERNET = 1
_PACKET = struct.Struct("!HHBBH6s4s6s4s")


@dataclass(slots=True)
class ArpPacket:
    """An ARP packet: MAC addresses of 6 bytes, IPv4 addresses of 4."""

    operation: int
    sender_mac: bytes
    sender_address: bytes
    target_mac: bytes
    target_address: bytes


def parse_arp(data: Buffer) -> ArpPacket:
    """The packet at the start of ``data``; a frame's padding may follow.

    Raises MalformedPacketError for anything but Ethernet and IPv4, and for operations other than request and
    reply.
    """
    if len(data) < _PACKET.size:
        raise MalformedPacketError(f"ARP packet of {len(data)} bytes")
    hardware, protocol, hardware_length, protocol_length, operation, *addresses = _PACKET.unpack_from(data)
    if (hardware, protocol, hardware_length, protocol_length) != (_HARDWARE_ETHERNET, ETHERTYPE_IPV4, 6, 4):
        raise MalformedPacketError("ARP for something else than IPv4 over Ethernet")
    if operation not in (ARP_REQUEST, ARP_REPLY):
        raise MalformedPacketError(f"ARP operation {operation}")
    return ArpPacket(operation, *addresses)


def emit_arp(packet: ArpPacket) -> bytes:
    """The 28 bytes of the packet; raises ConfigurationError for a value that does not fit its field."""
    addresses = (packet.sender_mac, packet.sender_address, packet.target_mac, packet.target_address)
    if tuple(map(len, addresses)) != (6, 4, 6, 4):
        raise ConfigurationError("ARP takes MAC addresses of 6 bytes and IPv4 addresses of 4")
    try:
        return _PACKET.pack(_HARDWARE_ETHERNET, ETHERTYPE_IPV4, 6, 4, packet.operation, *addresses)
    except struct.error as error:
        raise ConfigurationError(f"{packet}: {error}") from None
