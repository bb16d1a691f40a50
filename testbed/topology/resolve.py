"""Derives what a checked file does not say: the last stage before a backend."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

from mptcp_stack.settings import PATH_MANAGERS
from testbed.middlebox.settings import BoxSettings
from testbed.topology.addressing import Addresses, derive_macs
from testbed.topology.box_placement import link_boxes
from testbed.topology.check import CheckedFile
from testbed.topology.events import directions, in_order, needs_emulator, resolve_event
from testbed.topology.model import (
    Endpoint,
    Impairment,
    Interface,
    IpAddress,
    IpNetwork,
    Link,
    LinkEnd,
    MptcpSettings,
    Node,
    NodeKind,
    Realisation,
    Route,
    StackKind,
    Topology,
)
from testbed.topology.raw import LinkFile, MptcpFile, NodeFile, RouteFile, TopologyFile
from testbed.topology.routing import Leg, derive_routes
from testbed.topology.wiring import Port, Wiring


def resolve(checked: CheckedFile, source: Path | None = None) -> Topology:
    """The explicit topology of a file that has no problems."""
    file, wiring, addresses = checked.file, checked.wiring, checked.addresses
    interfaces = _interfaces(file, wiring, addresses)
    routes = _routes(file, wiring, addresses)
    nodes = tuple(
        Node(
            name=name,
            kind=NodeKind(node.kind),
            stack=_stack(node),
            interfaces=tuple(interfaces[name]),
            routes=tuple(routes.get(name, ())),
            mptcp=_mptcp(node.mptcp, interfaces[name]) if node.mptcp else MptcpSettings(),
            sysctls=tuple(_sysctls(node).items()),
        )
        for name, node in file.nodes.items()
    )
    boxes = link_boxes(file, wiring)
    links = tuple(_link(file.links[index], *ends, boxes[index]) for index, ends in _ends(wiring).items())
    events = in_order(map(resolve_event, file.events))
    links = tuple(
        replace(link, is_emulated=link.is_emulated or needs_emulator(link, events)) for link in links
    )
    return Topology(file.name, nodes, links, source, Realisation(file.impairments), events)


def _stack(node: NodeFile) -> StackKind | None:
    return StackKind(node.stack or "userspace") if node.kind == "host" else None


def _sysctls(node: NodeFile) -> dict[str, str]:
    """Those of the file, and those that words of ``mptcp`` stand for."""
    meant: dict[str, str] = {}
    if node.mptcp and node.mptcp.scheduler:
        meant["net.mptcp.scheduler"] = node.mptcp.scheduler
    if node.mptcp and node.mptcp.path_manager:
        # By its older name, which kernels have since 5.19.
        meant["net.mptcp.pm_type"] = str(PATH_MANAGERS.index(node.mptcp.path_manager))
    return meant | node.sysctls


def _interfaces(file: TopologyFile, wiring: Wiring, addresses: Addresses) -> dict[str, list[Interface]]:
    macs = derive_macs(file.name, wiring.ports)
    interfaces: dict[str, list[Interface]] = defaultdict(list)
    for port in wiring.ports:
        key = port.node, port.name
        interfaces[port.node].append(
            Interface(port.name, macs[key], file.links[port.link].mtu, addresses[key])
        )
    return interfaces


def _ends(wiring: Wiring) -> dict[int, tuple[LinkEnd, LinkEnd]]:
    ports: dict[int, dict[int, Port]] = defaultdict(dict)
    for port in wiring.ports:
        ports[port.link][port.end] = port
    return {
        link: (LinkEnd(ends[0].node, ends[0].name), LinkEnd(ends[1].node, ends[1].name))
        for link, ends in ports.items()
    }


def _link(link: LinkFile, first: LinkEnd, second: LinkEnd, boxes: tuple[BoxSettings, ...]) -> Link:
    forward, backward = directions(link.impair)
    return Link(
        first,
        second,
        link.mtu,
        forward or Impairment(),
        backward or Impairment(),
        boxes,
        link.emulated,
    )


def _mptcp(settings: MptcpFile, interfaces: list[Interface]) -> MptcpSettings:
    endpoints: list[Endpoint] = []
    if settings.endpoints == "auto":
        for interface in interfaces[1:]:
            endpoints += [
                Endpoint(address.ip, frozenset({"subflow"}), interface.name)
                for address in interface.addresses
            ]
    else:
        by_name = {interface.name: interface for interface in interfaces}
        for said in settings.endpoints:
            flags = frozenset[str](said.flags)
            if said.address is not None:
                endpoints.append(Endpoint(said.address, flags, said.interface, said.id, said.port))
            elif said.interface is not None:
                endpoints += [
                    Endpoint(address.ip, flags, said.interface, said.id, said.port)
                    for address in by_name[said.interface].addresses
                ]
    return MptcpSettings(settings.limits.subflows, settings.limits.add_addr_accepted, tuple(endpoints))


def _routes(file: TopologyFile, wiring: Wiring, addresses: Addresses) -> dict[str, list[Route]]:
    legs = [
        Leg(port.node, port.name, address.ip, address.network)
        for port in wiring.ports
        for address in addresses[port.node, port.name]
    ]
    routers = {name for name, node in file.nodes.items() if node.kind == "router"}
    nodes = [name for name, node in file.nodes.items() if not node.is_bridge]
    routes = derive_routes(legs, routers, nodes)
    for name in nodes:
        own = [leg for leg in legs if leg.node == name]
        said = [_said_route(route, own) for route in file.nodes[name].routes]
        replaced = {(route.destination, route.source) for route in said}
        routes[name] = [
            route for route in routes[name] if (route.destination, route.source) not in replaced
        ] + said
    return routes


def _said_route(route: RouteFile, own: list[Leg]) -> Route:
    interface = route.interface
    if interface is None and route.via is not None:
        interface = next(leg.interface for leg in own if route.via in leg.network)
    if interface is None:
        raise AssertionError("checked: a route has 'via' or 'interface'")
    return Route(route_destination(route), interface, route.via, route.source, route.metric)


def route_destination(route: RouteFile) -> IpNetwork:
    """The destination, ``default`` being of the family of the next hop or the source; IPv4 without either."""
    if route.to is not None:
        return route.to
    version = route_version(route)
    return ip_network("::/0" if version == 6 else "0.0.0.0/0")


def route_version(route: RouteFile) -> int:
    known: list[IpAddress | IpNetwork | None] = [route.to, route.via, route.source]
    return next((value.version for value in known if value is not None), 4)
