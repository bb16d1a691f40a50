"""Neighbour discovery for IPv6 (RFC 4861 §4): solicitations and advertisements of neighbours and routers.

That the hop limit must be 255 and which addresses may stand where, the ip layer checks.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mptcp_stack.errors import ConfigurationError, MalformedPacketError
from mptcp_stack.wire.addresses import is_multicast
from mptcp_stack.wire.icmp import finish_icmpv6

ROUTER_SOLICITATION = 133
ROUTER_ADVERTISEMENT = 134
NEIGHBOUR_SOLICITATION = 135
NEIGHBOUR_ADVERTISEMENT = 136

NEIGHBOUR_DISCOVERY_TYPES = frozenset(
    {ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT}
)
HOP_LIMIT = 255

_OPTION_SOURCE_LINK_LAYER = 1
_OPTION_TARGET_LINK_LAYER = 2

_SOLICITATION = struct.Struct("!BBHI")
_NEIGHBOUR = struct.Struct("!BBHI16s")
_ROUTER_ADVERTISEMENT = struct.Struct("!BBHBBHII")

_ROUTER_FLAG = 1 << 31
_SOLICITED_FLAG = 1 << 30
_OVERRIDE_FLAG = 1 << 29


@dataclass(slots=True)
class NeighbourSolicitation:
    """Who has ``target`` (16 bytes)? ``source_mac`` (6 bytes) is absent in duplicate address detection."""

    target: bytes
    source_mac: bytes | None = None


@dataclass(slots=True)
class NeighbourAdvertisement:
    """``target`` is at ``target_mac``, which may be left out of the answer to a unicast solicitation."""

    target: bytes
    target_mac: bytes | None = None
    is_router: bool = False
    is_solicited: bool = False
    is_override: bool = False


@dataclass(slots=True)
class RouterSolicitation:
    """Asks routers to advertise themselves at once."""

    source_mac: bytes | None = None


@dataclass(slots=True)
class RouterAdvertisement:
    """A router's fixed fields and link-layer address; ``flags`` is the byte that begins with M and O."""

    hop_limit: int
    flags: int
    router_lifetime_s: int
    reachable_time_ms: int
    retransmission_timer_ms: int
    source_mac: bytes | None = None


NeighbourDiscoveryMessage = (
    NeighbourSolicitation | NeighbourAdvertisement | RouterSolicitation | RouterAdvertisement
)


def parse_neighbour_discovery(data: memoryview) -> NeighbourDiscoveryMessage:
    """The ICMPv6 message in ``data``; the checksum is not verified.

    Raises MalformedPacketError for other types, a code that is not 0, a message or option that is cut short
    and a multicast target (RFC 4861 §6.1, §7.1). Options that are not known, or of a length that is not
    Ethernet's, are ignored.
    """
    if len(data) < _SOLICITATION.size or data[1]:
        raise MalformedPacketError(f"neighbour discovery message of {len(data)} bytes, or its code is not 0")
    message_type = data[0]
    if message_type == NEIGHBOUR_SOLICITATION:
        _, target, options = _neighbour_fields(data)
        return NeighbourSolicitation(target, options.get(_OPTION_SOURCE_LINK_LAYER))
    if message_type == NEIGHBOUR_ADVERTISEMENT:
        flags, target, options = _neighbour_fields(data)
        return NeighbourAdvertisement(
            target,
            options.get(_OPTION_TARGET_LINK_LAYER),
            flags & _ROUTER_FLAG != 0,
            flags & _SOLICITED_FLAG != 0,
            flags & _OVERRIDE_FLAG != 0,
        )
    if message_type == ROUTER_SOLICITATION:
        options = _link_layer_options(data[_SOLICITATION.size :])
        return RouterSolicitation(options.get(_OPTION_SOURCE_LINK_LAYER))
    if message_type == ROUTER_ADVERTISEMENT:
        return _parse_router_advertisement(data)
    raise MalformedPacketError(f"ICMPv6 type {message_type} is not neighbour discovery")


def _neighbour_fields(data: memoryview) -> tuple[int, bytes, dict[int, bytes]]:
    if len(data) < _NEIGHBOUR.size:
        raise MalformedPacketError(f"neighbour solicitation or advertisement of {len(data)} bytes")
    _, _, _, flags, target = _NEIGHBOUR.unpack_from(data)
    if is_multicast(target):
        raise MalformedPacketError("neighbour discovery of a multicast target")
    return flags, target, _link_layer_options(data[_NEIGHBOUR.size :])


def _parse_router_advertisement(data: memoryview) -> RouterAdvertisement:
    if len(data) < _ROUTER_ADVERTISEMENT.size:
        raise MalformedPacketError(f"router advertisement of {len(data)} bytes")
    _, _, _, hop_limit, flags, lifetime_s, reachable_ms, timer_ms = _ROUTER_ADVERTISEMENT.unpack_from(data)
    options = _link_layer_options(data[_ROUTER_ADVERTISEMENT.size :])
    source_mac = options.get(_OPTION_SOURCE_LINK_LAYER)
    return RouterAdvertisement(hop_limit, flags, lifetime_s, reachable_ms, timer_ms, source_mac)


def _link_layer_options(data: memoryview) -> dict[int, bytes]:
    """The MAC addresses by option type; every option's length is checked (RFC 4861 §4.6)."""
    found = {}
    offset = 0
    while offset < len(data):
        length = data[offset + 1] << 3 if offset + 1 < len(data) else 0
        if length == 0 or offset + length > len(data):
            raise MalformedPacketError("neighbour discovery option with an impossible length")
        if length == 8 and data[offset] in (_OPTION_SOURCE_LINK_LAYER, _OPTION_TARGET_LINK_LAYER):
            found[data[offset]] = bytes(data[offset + 2 : offset + 8])
        offset += length
    return found


def emit_neighbour_discovery(message: NeighbourDiscoveryMessage, source: bytes, destination: bytes) -> bytes:
    """The ICMPv6 message with its checksum, which covers both addresses.

    Raises ConfigurationError for a value that does not fit its field.
    """
    try:
        return finish_icmpv6(_encode(message), source, destination)
    except struct.error as error:
        raise ConfigurationError(f"{message}: {error}") from None


def _encode(message: NeighbourDiscoveryMessage) -> bytes:
    match message:
        case NeighbourSolicitation(target, source_mac):
            fixed = _NEIGHBOUR.pack(NEIGHBOUR_SOLICITATION, 0, 0, 0, _address(target))
            return fixed + _link_layer_option(_OPTION_SOURCE_LINK_LAYER, source_mac)
        case NeighbourAdvertisement(target, target_mac):
            flags = (
                (_ROUTER_FLAG if message.is_router else 0)
                | (_SOLICITED_FLAG if message.is_solicited else 0)
                | (_OVERRIDE_FLAG if message.is_override else 0)
            )
            fixed = _NEIGHBOUR.pack(NEIGHBOUR_ADVERTISEMENT, 0, 0, flags, _address(target))
            return fixed + _link_layer_option(_OPTION_TARGET_LINK_LAYER, target_mac)
        case RouterSolicitation(source_mac):
            fixed = _SOLICITATION.pack(ROUTER_SOLICITATION, 0, 0, 0)
            return fixed + _link_layer_option(_OPTION_SOURCE_LINK_LAYER, source_mac)
    fixed = _ROUTER_ADVERTISEMENT.pack(
        ROUTER_ADVERTISEMENT,
        0,
        0,
        message.hop_limit,
        message.flags,
        message.router_lifetime_s,
        message.reachable_time_ms,
        message.retransmission_timer_ms,
    )
    return fixed + _link_layer_option(_OPTION_SOURCE_LINK_LAYER, message.source_mac)


def _address(address: bytes) -> bytes:
    if len(address) != 16:
        raise ConfigurationError("neighbour discovery takes IPv6 addresses of 16 bytes")
    return address


def _link_layer_option(kind: int, mac: bytes | None) -> bytes:
    if mac is None:
        return b""
    if len(mac) != 6:
        raise ConfigurationError("a MAC address has 6 bytes")
    return bytes((kind, 1)) + mac


def solicited_node_group(address: bytes) -> bytes:
    """The multicast group that a solicitation for ``address`` goes to (RFC 4291 §2.7.1)."""
    return b"\xff\x02" + bytes(9) + b"\x01\xff" + address[13:]
