"""Derives what addresses a file does not give: subnets, host addresses and MAC addresses.

Segment N in the order of the links gets ``10.0.N.0/24`` and ``fd00:0:0:N::/64``; its interfaces get the host
numbers 1, 2, … in the order of the links. A segment with more than 254 interfaces gets a shorter IPv4 prefix,
and N is then the number of its first /24. ``fd00::/8`` is the locally assigned half of RFC 4193's unique
local addresses; the Global ID is zero, for readable addresses in networks that nobody else ever sees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from testbed.topology.model import IpInterface, IpNetwork
from testbed.topology.wiring import Port, Segment, Wiring

IPV4_POOL = IPv4Network("10.0.0.0/8")
IPV6_POOL = IPv6Network("fd00::/48")
SMALLEST_BLOCK_PREFIX = 24
LAST_BLOCK = 2 ** (SMALLEST_BLOCK_PREFIX - IPV4_POOL.prefixlen) - 1


Addresses = dict[tuple[str, str], tuple[IpInterface, ...]]
"""By node and interface name."""


class AddressSpaceError(Exception):
    """More subnets or hosts than the address space holds."""


def host_capacity(network: IpNetwork) -> int:
    """How many interfaces can have an address in ``network``."""
    if network.prefixlen == network.max_prefixlen - 1:
        return 2
    reserved = 2 if isinstance(network, IPv4Network) else 1
    return network.num_addresses - reserved


def derive_addresses(wiring: Wiring) -> Addresses:
    """The addresses of every interface, IPv4 first.

    Raises AddressSpaceError when the pools are exhausted.
    """
    said = [
        network for segment in wiring.segments for version in (4, 6) for network in segment.networks(version)
    ]
    blocks = _Blocks(said)
    addresses: dict[tuple[str, str], list[IpInterface]] = {}
    for port in wiring.ports:
        addresses[port.node, port.name] = list(port.addresses or ())
    for segment in wiring.segments:
        to_derive = [port for port in segment.ports if port.addresses is None]
        if not to_derive:
            continue
        derived = blocks.take(len(segment.ports))
        for network in derived:
            own = segment.networks(network.version)
            numbers = _free_addresses(own[0] if own else network, segment)
            for port in to_derive:
                address = next(numbers, None)
                if address is None:
                    raise AddressSpaceError(f"no address is left in the subnet of {port.node}:{port.name}")
                addresses[port.node, port.name].append(address)
    return {key: tuple(values) for key, values in addresses.items()}


def _free_addresses(network: IpNetwork, segment: Segment) -> Iterator[IpInterface]:
    taken = {address.ip for port in segment.ports for address in port.addresses or ()}
    first = 0 if network.prefixlen == network.max_prefixlen - 1 else 1
    for number in range(first, first + host_capacity(network)):
        address = network[number]
        if address in taken:
            continue
        if isinstance(network, IPv4Network):
            yield IPv4Interface(f"{address}/{network.prefixlen}")
        else:
            yield IPv6Interface(f"{address}/{network.prefixlen}")


class _Blocks:
    """Hands out pairs of subnets that overlap nothing that the file names."""

    def __init__(self, said: list[IpNetwork]) -> None:
        self._ipv4 = [network for network in said if isinstance(network, IPv4Network)]
        self._ipv6 = [network for network in said if isinstance(network, IPv6Network)]
        self._next_block = 1

    def take(self, interfaces: int) -> tuple[IPv4Network, IPv6Network]:
        prefix = min(SMALLEST_BLOCK_PREFIX, 32 - (interfaces + 1).bit_length())
        size = 2 ** (SMALLEST_BLOCK_PREFIX - prefix)
        block = -(-self._next_block // size) * size
        while block <= LAST_BLOCK:
            ipv4 = IPv4Network((int(IPV4_POOL.network_address) + (block << 8), prefix))
            ipv6 = IPv6Network((int(IPV6_POOL.network_address) + (block << 64), 64))
            if not any(map(ipv4.overlaps, self._ipv4)) and not any(map(ipv6.overlaps, self._ipv6)):
                self._next_block = block + size
                return ipv4, ipv6
            block += size
        raise AddressSpaceError(f"the derived subnets do not fit into {IPV4_POOL}")


def derive_macs(topology: str, ports: list[Port]) -> dict[tuple[str, str], str]:
    """A stable, locally administered unicast MAC address for every interface that has none in the file."""
    macs = {(port.node, port.name): port.mac for port in ports if port.mac is not None}
    taken = set(macs.values())
    for port in ports:
        if port.mac is not None:
            continue
        attempt = 0
        while (mac := _hashed_mac(topology, port, attempt)) in taken:
            attempt += 1
        taken.add(mac)
        macs[port.node, port.name] = mac
    return macs


def _hashed_mac(topology: str, port: Port, attempt: int) -> str:
    text = "\0".join((topology, port.node, port.name, str(attempt)))
    digest = bytearray(hashlib.blake2s(text.encode(), digest_size=6).digest())
    digest[0] = digest[0] & 0xFC | 0x02
    return digest.hex(":")
