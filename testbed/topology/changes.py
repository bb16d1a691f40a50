"""What becomes of a resolved topology when an address comes or goes, or a cable is plugged in elsewhere.

Each change gives another topology, with routes derived anew; a backend makes the difference between the two.
Mistakes raise :class:`ValueError` with a message for people.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_interface

from testbed.topology.addressing import host_capacity
from testbed.topology.model import (
    Interface,
    IpAddress,
    IpInterface,
    IpNetwork,
    Link,
    LinkEnd,
    Node,
    NodeKind,
    Route,
    Topology,
)
from testbed.topology.problems import did_you_mean
from testbed.topology.routing import Leg, derive_routes


def interface_at(topology: Topology, end: LinkEnd) -> Interface:
    """Raises ValueError for an unknown end."""
    for node in topology.nodes:
        if node.name == end.node:
            for interface in node.interfaces:
                if interface.name == end.interface:
                    return interface
    known = [f"{node.name}:{interface.name}" for node in topology.nodes for interface in node.interfaces]
    raise ValueError(f"no interface is called '{end}'; {did_you_mean(str(end), known)}")


def link_at(topology: Topology, end: LinkEnd) -> Link:
    """Raises ValueError where no cable is plugged in."""
    interface_at(topology, end)
    for link in topology.links:
        if end in (link.first, link.second):
            return link
    raise ValueError(f"no link is at {end}")


def neighbours(topology: Topology, end: LinkEnd) -> Iterator[LinkEnd]:
    """Every end of the segment that an end is on, itself and those of switches included."""
    seen, waiting = {end}, [end]
    while waiting:
        each = waiting.pop()
        yield each
        found = [link for link in topology.links if each in (link.first, link.second)]
        new = [other for link in found for other in (link.first, link.second)]
        if topology.node(each.node).is_bridge:
            switch = topology.node(each.node)
            new += [LinkEnd(switch.name, interface.name) for interface in switch.interfaces]
        waiting += [other for other in dict.fromkeys(new) if other not in seen]
        seen.update(new)


def networks_at(topology: Topology, end: LinkEnd) -> list[IpNetwork]:
    """The networks of the segment, as its other interfaces have them."""
    found = [
        address.network
        for other in neighbours(topology, end)
        if other != end
        for address in interface_at(topology, other).addresses
    ]
    return list(dict.fromkeys(found))


def free_address(topology: Topology, end: LinkEnd, version: int) -> IpInterface:
    """The lowest address that nobody has in the first network of the segment."""
    for network in networks_at(topology, end):
        if network.version != version:
            continue
        taken = {address.ip for address in _all_addresses(topology)}
        for number in range(1, host_capacity(network) + 1):
            if network[number] not in taken:
                return ip_interface(f"{network[number]}/{network.prefixlen}")
    raise ValueError(f"no IPv{version} network at {end} has a free address")


def _all_addresses(topology: Topology) -> Iterator[IpInterface]:
    for node in topology.nodes:
        for interface in node.interfaces:
            yield from interface.addresses


def with_address(topology: Topology, end: LinkEnd, address: IpInterface) -> Topology:
    """One more address of an interface, in a network that the interface is in."""
    interface = interface_at(topology, end)
    owner = topology.node(end.node)
    if owner.is_bridge:
        raise ValueError(f"{end} is a {owner.kind}'s: it has no addresses")
    for node in topology.nodes:
        for other in node.interfaces:
            if address.ip in {own.ip for own in other.addresses}:
                raise ValueError(f"{node.name}:{other.name} has {address.ip} already")
    known = networks_at(topology, end)
    if address.network not in known:
        shown = ", ".join(map(str, known)) or "without any"
        raise ValueError(f"{address} belongs to another network than {end}, which is in {shown}")
    return _with_addresses(topology, end, (*interface.addresses, address))


def without_address(topology: Topology, end: LinkEnd, address: IpAddress) -> Topology:
    """One address less."""
    own = interface_at(topology, end).addresses
    kept = tuple(each for each in own if each.ip != address)
    if len(kept) == len(own):
        shown = ", ".join(str(each.ip) for each in own) or "none"
        raise ValueError(f"{end} does not have {address} (it has {shown})")
    return _with_addresses(topology, end, kept)


def moved(
    topology: Topology, end: LinkEnd, switch: str, addresses: Sequence[IpInterface] | None = None
) -> Topology:
    """The cable at ``end`` pulled out of its switch and plugged into another one.

    The interface gets ``addresses``, or else one of each family that it had: the lowest free one there.
    """
    link = link_at(topology, end)
    other = link.second if link.first == end else link.first
    names = [node.name for node in topology.nodes if node.kind is NodeKind.SWITCH]
    if switch not in names:
        kinds = {node.name: node.kind for node in topology.nodes}
        wrong = f"'{switch}' is a {kinds[switch]}" if switch in kinds else f"no switch is called '{switch}'"
        raise ValueError(f"{wrong}; {did_you_mean(switch, names) or 'there is no switch'}")
    if other.node not in names or end.node in names:
        raise ValueError(f"{end} cannot be moved: its link goes to no switch, but to {other}")
    if other.node == switch:
        raise ValueError(f"{end} is in '{switch}' already")
    versions = dict.fromkeys(address.version for address in interface_at(topology, end).addresses)
    cleared = _with_addresses(topology, end, ())
    plugged = _plugged(cleared, link, other, switch)
    for wanted in addresses if addresses is not None else versions:
        address = free_address(plugged, end, wanted) if isinstance(wanted, int) else wanted
        plugged = with_address(plugged, end, address)
    return plugged


def _plugged(topology: Topology, link: Link, old: LinkEnd, switch: str) -> Topology:
    """The old port of the one switch stays, without a cable; a free one of the other is taken."""
    node = topology.node(switch)
    used = {each for other in topology.links for each in (other.first, other.second)}
    free = [each.name for each in node.interfaces if LinkEnd(switch, each.name) not in used]
    nodes = topology.nodes
    if free:
        port = free[0]
    else:
        names = {each.name for each in node.interfaces}
        port = next(name for number in range(len(names) + 1) if (name := f"eth{number}") not in names)
        pattern = interface_at(topology, old)
        added = replace(node, interfaces=(*node.interfaces, replace(pattern, name=port)))
        nodes = tuple(added if each.name == switch else each for each in nodes)
    new = LinkEnd(switch, port)
    first, second = (new, link.second) if link.first == old else (link.first, new)
    replugged = replace(link, first=first, second=second, built_as=link.built_as or str(link.first))
    links = tuple(replugged if each is link else each for each in topology.links)
    return replace(topology, nodes=nodes, links=links)


def _with_addresses(topology: Topology, end: LinkEnd, addresses: tuple[IpInterface, ...]) -> Topology:
    def changed(node: Node) -> Node:
        if node.name != end.node:
            return node
        interfaces = tuple(
            replace(each, addresses=addresses) if each.name == end.interface else each
            for each in node.interfaces
        )
        return replace(node, interfaces=interfaces)

    return _rerouted(topology, tuple(changed(node) for node in topology.nodes))


def _rerouted(topology: Topology, nodes: tuple[Node, ...]) -> Topology:
    """With routes as they follow from the nodes' addresses; what the file says of routes stays."""
    before, after = _derived(topology.nodes), _derived(nodes)
    routed = []
    for old, node in zip(topology.nodes, nodes, strict=True):
        said = [route for route in old.routes if route not in before.get(node.name, ())]
        replaced = {(route.destination, route.source) for route in said}
        derived = [
            route for route in after.get(node.name, ()) if (route.destination, route.source) not in replaced
        ]
        routed.append(replace(node, routes=(*derived, *said)))
    return replace(topology, nodes=tuple(routed))


def _derived(nodes: Sequence[Node]) -> dict[str, list[Route]]:
    legs = [
        Leg(node.name, interface.name, address.ip, address.network)
        for node in nodes
        for interface in node.interfaces
        for address in interface.addresses
    ]
    routers = {node.name for node in nodes if node.kind is NodeKind.ROUTER}
    return derive_routes(legs, routers, [node.name for node in nodes if not node.is_bridge])
