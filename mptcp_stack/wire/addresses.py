"""IP addresses as packed bytes: 4 for IPv4, 16 for IPv6."""

from __future__ import annotations

import ipaddress

from mptcp_stack.errors import ConfigurationError

V4_MAPPED_PREFIX = bytes(10) + b"\xff\xff"
"""The first 96 bits of an IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2)."""


def parse_address(text: str) -> bytes:
    """The packed form of an IPv4 or IPv6 address; raises ConfigurationError. Scopes are refused."""
    if "%" in text:
        raise ConfigurationError(f"{text!r}: name the interface separately, not with '%' in the address")
    try:
        return ipaddress.ip_address(text).packed
    except ValueError:
        raise ConfigurationError(f"{text!r} is neither an IPv4 nor an IPv6 address") from None


def format_address(address: bytes) -> str:
    """The text form: dotted for IPv4, RFC 5952 for IPv6. Raises ConfigurationError for any other length."""
    if len(address) == 4:
        return ".".join(map(str, address))
    if len(address) != 16:
        raise ConfigurationError(f"an IP address has 4 or 16 bytes, not {len(address)}")
    if address.startswith(V4_MAPPED_PREFIX):
        # RFC 5952 §5; the standard library does so from Python 3.13 on only.
        return "::ffff:" + ".".join(map(str, address[12:]))
    return str(ipaddress.IPv6Address(address))


def v4_mapped(address: bytes) -> bytes:
    """An IPv4 address as an IPv4-mapped IPv6 address."""
    return V4_MAPPED_PREFIX + address


def unmap(address: bytes) -> bytes:
    """The 4 bytes within an IPv4-mapped address; any other address as it is."""
    if len(address) == 16 and address.startswith(V4_MAPPED_PREFIX):
        return address[12:]
    return address


def is_multicast(address: bytes) -> bool:
    """224.0.0.0/4 or ff00::/8. Like the other predicates it looks through the IPv4-mapped form."""
    address = unmap(address)
    return address[0] & 0xF0 == 0xE0 if len(address) == 4 else address[0] == 0xFF


def is_link_local(address: bytes) -> bool:
    """169.254.0.0/16 or fe80::/10."""
    address = unmap(address)
    if len(address) == 4:
        return address[:2] == b"\xa9\xfe"
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80


def is_unspecified(address: bytes) -> bool:
    """0.0.0.0 or ::."""
    return not any(unmap(address))


def is_loopback(address: bytes) -> bool:
    """127.0.0.0/8 or ::1."""
    address = unmap(address)
    return address[0] == 127 if len(address) == 4 else address == bytes(15) + b"\x01"
