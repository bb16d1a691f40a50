"""From an agent's configuration to the bundled stack of its host, whatever devices it will have."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from ipaddress import ip_address, ip_interface, ip_network

from mptcp_stack.ip.interface import Interface, InterfaceAddress, LinkType
from mptcp_stack.ip.layer import IpLayer
from mptcp_stack.ip.routing import Route
from mptcp_stack.settings import StackSettings, apply_sysctl
from mptcp_stack.stack import Stack
from testbed.host.messages import from_json
from testbed.host.protocol import AgentConfiguration, NetworkChange, RouteFields


@dataclass(frozen=True, slots=True)
class InterfaceFields:
    """``AgentConfiguration.interfaces``."""

    name: str
    mac: str = ""
    mtu: int = 0
    addresses: tuple[str, ...] = ()


AttachInterface = Callable[[Stack, InterfaceFields], Interface]
"""Gives a stack an interface, with a device where there is one."""


def make_stack(configuration: AgentConfiguration, attach: AttachInterface) -> Stack:
    """A stack with the interfaces and routes of a configuration.

    Raises StackError, MessageError, ValueError and OSError for what the configuration has wrong.
    """
    settings = reduce(
        lambda settings, sysctl: apply_sysctl(settings, *sysctl), configuration.sysctls, StackSettings()
    )
    stack = Stack(settings, random_bytes=_randomness(configuration.seed))
    for fields in configuration.interfaces:
        attach(stack, from_json(InterfaceFields, fields))
    for route_fields in configuration.routes:
        stack.ip.routes.add(_route(stack.ip, from_json(RouteFields, route_fields)))
    return stack


def add_interface(
    stack: Stack,
    fields: InterfaceFields,
    *,
    mac: bytes = b"",
    mtu: int = 1500,
    checksum_offload: bool,
    gso_max_size: int,
) -> Interface:
    """An Ethernet interface; ``mac`` and ``mtu`` are its device's, where the fields do not say."""
    addresses = [ip_interface(text) for text in fields.addresses]
    return stack.ip.add_interface(
        fields.name,
        link_type=LinkType.ETHERNET,
        mac=bytes.fromhex(fields.mac.replace(":", "")) or mac,
        mtu=fields.mtu or mtu,
        addresses=[InterfaceAddress(address.ip.packed, address.network.prefixlen) for address in addresses],
        checksum_offload=checksum_offload,
        gso_max_size=gso_max_size,
    )


def change_network(ip: IpLayer, change: NetworkChange) -> None:
    """Raises ConfigurationError or ValueError for what makes no sense."""
    for route in change.removed_routes:
        ip.routes.remove(_route(ip, route))
    for each in change.removed_addresses:
        ip.remove_address(ip.interface(each.interface), ip_interface(each.address).ip.packed)
    for each in change.added_addresses:
        address = ip_interface(each.address)
        added = InterfaceAddress(address.ip.packed, address.network.prefixlen)
        ip.add_address(ip.interface(each.interface), added)
    for route in change.added_routes:
        ip.routes.add(_route(ip, route))


def _route(ip: IpLayer, fields: RouteFields) -> Route:
    network = ip_network(fields.destination)
    return Route(
        destination=network.network_address.packed,
        prefix_length=network.prefixlen,
        interface=ip.interface(fields.interface),
        gateway=_packed_or_none(fields.gateway),
        source=_packed_or_none(fields.source),
        metric=fields.metric,
    )


def _packed_or_none(text: str | None) -> bytes | None:
    return ip_address(text).packed if text is not None else None


def _randomness(seed: int | None) -> Callable[[int], bytes]:
    return os.urandom if seed is None else random.Random(seed).randbytes
