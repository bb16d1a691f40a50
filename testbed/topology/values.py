"""Parsers of single values of a topology file. Each raises ValueError that says what is wrong."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_interface, ip_network

from testbed.topology.model import IpAddress, IpInterface, IpNetwork
from testbed.topology.problems import quoted

# No form of an address is longer; longer text is not worth parsing.
MAXIMUM_ADDRESS_CHARACTERS = 64
MAXIMUM_SYSCTL_CHARACTERS = 256


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} is text, not {quoted(value)}")
    if len(value) > MAXIMUM_ADDRESS_CHARACTERS or "%" in value:
        raise ValueError(f"{quoted(value)} is not {what}")
    return value


def parse_address(value: object) -> IpAddress:
    """An address that a host can have or be reached at: ``10.0.1.1``."""
    text = _text(value, "an IP address")
    try:
        address = ip_address(text)
    except ValueError:
        hint = "; write it without a prefix length" if "/" in text else ""
        raise ValueError(f"{quoted(text)} is not an IP address{hint}") from None
    require_host_address(address)
    return address


def parse_interface_address(value: object) -> IpInterface:
    """A host's address with its subnet's prefix length: ``10.0.1.1/24``."""
    text = _text(value, "an address with its prefix length, like '10.0.1.1/24'")
    if "/" not in text:
        raise ValueError(f"{quoted(text)} needs a prefix length, like '10.0.1.1/24'")
    try:
        interface = ip_interface(text)
    except ValueError:
        raise ValueError(f"{quoted(text)} is not an address with its prefix length") from None
    require_host_address(interface.ip)
    network = interface.network
    if network.prefixlen == network.max_prefixlen:
        raise ValueError(f"{text} is alone in its subnet; a shorter prefix lets its neighbour be in it too")
    if network.prefixlen == 0:
        raise ValueError(f"{text} makes the whole address space one subnet")
    if network.prefixlen < network.max_prefixlen - 1:
        if interface.ip == network.network_address:
            raise ValueError(f"{text} is its subnet's own address; the first host is {network[1]}")
        if isinstance(network, IPv4Network) and interface.ip == network.broadcast_address:
            raise ValueError(f"{text} is its subnet's broadcast address; the last host is {network[-2]}")
    return interface


def parse_network(value: object) -> IpNetwork:
    """A network without host bits: ``10.0.1.0/24``."""
    text = _text(value, "a network, like '10.0.1.0/24'")
    if "/" not in text:
        raise ValueError(f"{quoted(text)} needs a prefix length, like '10.0.1.0/24'")
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{quoted(text)} is not a network") from None
    if str(ip_interface(text).ip) != str(network.network_address):
        raise ValueError(f"{text} has host bits set; the network is {network}")
    return network


def parse_subnet(value: object) -> IpNetwork:
    """A network that hosts can live in."""
    network = parse_network(value)
    if network.prefixlen == 0:
        raise ValueError(f"{network} is the whole address space, not a subnet")
    if network.prefixlen == network.max_prefixlen:
        raise ValueError(f"{network} has room for one address only")
    require_host_address(network.network_address + (1 if network.num_addresses > 2 else 0))
    return network


def parse_destination(value: object) -> IpNetwork | None:
    """A route's destination: a network, an address, or None for ``default``."""
    if value == "default":
        return None
    if isinstance(value, str) and "/" not in value:
        return ip_network(parse_address(value))
    return parse_network(value)


def require_host_address(address: IpAddress) -> None:
    """Raises ValueError for an address that no host can have."""
    if address.is_multicast:
        raise ValueError(f"{address} is a multicast address, not a host's")
    if address.is_loopback:
        raise ValueError(f"{address} is a loopback address: every host has it already")
    if address.is_unspecified:
        raise ValueError(f"{address} is the unspecified address, not a host's")
    if address.is_link_local and address.version == 6:
        raise ValueError(f"{address} is link-local; interfaces get theirs by themselves")
    if isinstance(address, IPv4Address):
        if int(address) >> 24 == 0 or int(address) >> 28 == 0xF:
            raise ValueError(f"{address} is reserved, not a host's")
    elif address.ipv4_mapped is not None:
        raise ValueError(f"an IPv4-mapped address is no IPv6 host's; write {address.ipv4_mapped}")


def parse_mac(value: object) -> str:
    """A unicast Ethernet address in lower case: ``02:00:00:00:00:01``."""
    text = value if isinstance(value, str) else ""
    if not re.fullmatch(r"([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}", text):
        raise ValueError(f"{quoted(value)} is not a MAC address, like '02:00:00:00:00:01'")
    if int(text[:2], 16) & 1:
        raise ValueError(f"{text} is a multicast MAC address: its first byte must be even")
    if not int(text.replace(":", ""), 16):
        raise ValueError(f"{text} is no interface's MAC address")
    return text.lower()


def parse_sysctl_value(value: object) -> str:
    """What is written to the sysctl: one line of text, or an integer."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("a sysctl's value is an integer or text; quote it to make it text")
    text = str(value)
    if not text or len(text) > MAXIMUM_SYSCTL_CHARACTERS or not text.isprintable():
        raise ValueError(f"a sysctl's value is one line of 1 to {MAXIMUM_SYSCTL_CHARACTERS} characters")
    return text
