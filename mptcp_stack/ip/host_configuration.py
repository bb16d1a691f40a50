"""What a host is configured with: its interfaces, their addresses, its routes."""

from __future__ import annotations

from collections.abc import Iterable

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.ip.interface import (
    MAXIMUM_MTU,
    MINIMUM_MTU,
    Interface,
    InterfaceAddress,
    LinkType,
    link_local_from_mac,
)
from mptcp_stack.ip.routing import Route, RoutingTable
from mptcp_stack.wire.addresses import format_address, is_link_local, is_multicast, is_unspecified, unmap

LOOPBACK_V4 = bytes((127, 0, 0, 1))
LOOPBACK_V6 = bytes(15) + b"\x01"
LIMITED_BROADCAST = b"\xff\xff\xff\xff"
FIRST_INDEX = 2
"""The loopback interface has index 1, as in Linux."""
MAXIMUM_CACHED = 4096
"""Entries of a cache whose keys the peers choose."""


class HostConfiguration:
    """Interfaces, addresses and routes. ``routes.generation`` changes with each of them.

    An address is local while its interface is up, on whichever interface its packets arrive (the weak host
    model of RFC 1122 §3.3.4.2, as in Linux). The interface ``loopback`` is not in ``interfaces``: it has no
    device.
    """

    def __init__(self) -> None:
        self.interfaces: list[Interface] = []
        self.routes = RoutingTable()
        self.loopback = Interface(
            index=FIRST_INDEX - 1,
            name="lo",
            link_type=LinkType.RAW_IP,
            mac=b"",
            mtu=MAXIMUM_MTU,
            addresses=[InterfaceAddress(LOOPBACK_V4, 8), InterfaceAddress(LOOPBACK_V6, 128)],
            checksum_offload=True,
        )
        self.sends_for_others = False
        """Packets may leave from addresses that are not this host's (transparent sockets)."""
        self._local: dict[bytes, Interface] = {}
        self._broadcasts: frozenset[bytes] = frozenset()
        self._route_cache: dict[tuple[bytes, bytes | None], Route | None] = {}
        self._route_cache_generation = -1
        self._next_index = FIRST_INDEX
        self._refresh()

    def interface(self, name: str) -> Interface:
        """The interface of that name; raises ConfigurationError."""
        for each in (self.loopback, *self.interfaces):
            if each.name == name:
                return each
        raise ConfigurationError(f"no interface {name!r}")

    def add_interface(
        self,
        name: str,
        *,
        link_type: LinkType,
        mac: bytes,
        mtu: int,
        addresses: Iterable[InterfaceAddress],
        checksum_offload: bool,
        gso_max_size: int,
        generic_segmentation: bool,
    ) -> Interface:
        """Add an interface that is up, with connected routes to its addresses' prefixes.

        An Ethernet interface also gets the link-local IPv6 address of its MAC: kernels solicit neighbours and
        advertise themselves between link-local addresses.
        """
        if any(each.name == name for each in (self.loopback, *self.interfaces)):
            raise ConfigurationError(f"interface {name!r} exists already")
        added = Interface(
            index=self._next_index,
            name=name,
            link_type=link_type,
            mac=mac,
            mtu=mtu,
            checksum_offload=checksum_offload,
            gso_max_size=gso_max_size,
            generic_segmentation=generic_segmentation,
        )
        configured = list(addresses)
        if link_type is LinkType.ETHERNET:
            automatic = InterfaceAddress(link_local_from_mac(mac), 64)
            if all(each.address != automatic.address for each in configured):
                configured.append(automatic)
        for each in configured:
            _check_assignable(each)
        self._next_index += 1
        self.interfaces.append(added)
        for each in configured:
            self.add_address(added, each)
        self._refresh()
        return added

    def add_address(self, interface: Interface, address: InterfaceAddress) -> None:
        """Add an address and the connected route to its prefix."""
        _check_assignable(address)
        if interface.owns(address.address):
            raise ConfigurationError(f"{interface.name} has {format_address(address.address)} already")
        interface.addresses.append(address)
        self.routes.add(connected_route(interface, address))
        self._refresh()

    def remove_address(self, interface: Interface, address: bytes) -> None:
        """Remove an address with its connected route; ConfigurationError if the interface has none such."""
        for own in interface.addresses:
            if own.address == address:
                break
        else:
            raise ConfigurationError(f"{interface.name} has no address {format_address(address)}")
        interface.addresses.remove(own)
        self.routes.remove(connected_route(interface, own))
        self._refresh()

    def set_up(self, interface: Interface, is_up: bool) -> None:
        """Set the state. While an interface is down, its addresses are not local, its routes do not count."""
        interface.is_up = is_up
        self._refresh()

    def set_mtu(self, interface: Interface, mtu: int) -> None:
        """Change the MTU in bytes of the IP packet."""
        if not MINIMUM_MTU <= mtu <= MAXIMUM_MTU:
            raise ConfigurationError(
                f"interface {interface.name}: MTU {mtu} is not in 1..{MAXIMUM_MTU} bytes"
            )
        interface.mtu = mtu
        self.routes.invalidate()

    def is_local(self, address: bytes) -> bool:
        """Whether packets to ``address`` are for this host itself."""
        return address in self._local or _is_loopback_v4(address)

    def is_broadcast(self, address: bytes) -> bool:
        """Whether ``address`` is 255.255.255.255 or the broadcast address of an interface's prefix."""
        return address in self._broadcasts

    def route_for(self, destination: bytes, source: bytes | None) -> Route | None:
        """The way to ``destination``, over ``loopback`` if that is our own address. Answers are cached."""
        if self._route_cache_generation != self.routes.generation or len(self._route_cache) >= MAXIMUM_CACHED:
            self._route_cache.clear()
            self._route_cache_generation = self.routes.generation
        key = (destination, source)
        try:
            return self._route_cache[key]
        except KeyError:
            route = self._route_cache[key] = self._find_route(destination, source)
            return route

    def _find_route(self, destination: bytes, source: bytes | None) -> Route | None:
        if self.is_local(destination):
            return Route(destination, 8 * len(destination), self.loopback)
        if is_multicast(destination) or is_unspecified(destination) or self.is_broadcast(destination):
            return None
        return self.routes.lookup(destination, source)

    def select_source(self, destination: bytes) -> bytes | None:
        """The address to talk to ``destination`` from; None without a route or an address of its family."""
        if self.is_local(destination):
            return destination
        route = self.route_for(destination, None)
        if route is None:
            return None
        source = route.interface.source_for(destination)
        if source is not None and (is_link_local(destination) or not is_link_local(source)):
            return source
        # Not even a weak host lends out link-local addresses of other links.
        for each in self.interfaces:
            other = each.source_for(destination) if each.is_up else None
            if other is not None and not is_link_local(other):
                return other
        return source

    def _refresh(self) -> None:
        live = [each for each in (self.loopback, *self.interfaces) if each.is_up]
        self._local = {own.address: each for each in reversed(live) for own in each.addresses}
        networks = [own for each in live for own in each.addresses_of_length(4) if own.prefix_length < 31]
        self._broadcasts = frozenset(map(_broadcast_of, networks)) | {LIMITED_BROADCAST}
        self.routes.invalidate()


def connected_route(interface: Interface, address: InterfaceAddress) -> Route:
    """The route to the prefix of an interface's own address."""
    host_bits = 8 * len(address.address) - address.prefix_length
    network = int.from_bytes(address.address, "big") >> host_bits << host_bits
    return Route(network.to_bytes(len(address.address), "big"), address.prefix_length, interface)


def _broadcast_of(address: InterfaceAddress) -> bytes:
    host_mask = (1 << (32 - address.prefix_length)) - 1
    return (int.from_bytes(address.address, "big") | host_mask).to_bytes(4, "big")


def _is_loopback_v4(address: bytes) -> bool:
    return len(address) == 4 and address[0] == LOOPBACK_V4[0]


def _check_assignable(address: InterfaceAddress) -> None:
    if (
        is_multicast(address.address)
        or is_unspecified(address.address)
        or unmap(address.address) is not address.address
    ):
        raise ConfigurationError(f"{format_address(address.address)} cannot be an interface's address")
