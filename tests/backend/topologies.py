"""Small resolved topologies, written out so that the backend is tested without the files' loader."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

from testbed.topology.model import (
    Impairment,
    Interface,
    Link,
    LinkEnd,
    Node,
    NodeKind,
    Route,
    StackKind,
    Topology,
)


def interface(name: str, number: int, *addresses: str, mtu: int = 1500) -> Interface:
    mac = f"02:00:00:00:{number >> 8:02x}:{number & 0xFF:02x}"
    return Interface(name, mac, mtu, tuple(ip_interface(address) for address in addresses))


def route(destination: str, name: str, gateway: str, source: str | None = None, metric: int = 0) -> Route:
    return Route(
        ip_network(destination),
        name,
        ip_address(gateway),
        ip_address(source) if source is not None else None,
        metric,
    )


def two_paths(
    stack: StackKind = StackKind.TCP,
    rate_bit_s: int | None = None,
    sysctls: tuple[tuple[str, str], ...] = (),
) -> Topology:
    """Client - r1 and r2 - server; 10.0.K.0/24 before router K and 10.0.1K.0/24 behind it, fd00:K:: alike.

    The rate applies to both directions of the links between routers and server.
    """
    client = Node(
        "client",
        NodeKind.HOST,
        stack,
        tuple(interface(f"eth{k}", k, f"10.0.{k}.2/24", f"fd00:{k}::2/64") for k in (1, 2)),
        _host_routes("", "1"),
        sysctls=sysctls,
    )
    server = Node(
        "server",
        NodeKind.HOST,
        stack,
        tuple(interface(f"eth{k}", 10 + k, f"10.0.1{k}.2/24", f"fd00:1{k}::2/64") for k in (1, 2)),
        _host_routes("1", ""),
    )
    routers = tuple(
        Node(
            f"r{k}",
            NodeKind.ROUTER,
            None,
            (
                interface("near", 20 + k, f"10.0.{k}.1/24", f"fd00:{k}::1/64"),
                interface("far", 30 + k, f"10.0.1{k}.1/24", f"fd00:1{k}::1/64"),
            ),
        )
        for k in (1, 2)
    )
    impairment = Impairment(rate_bit_s=rate_bit_s)
    links = []
    for k in (1, 2):
        links.append(Link(LinkEnd("client", f"eth{k}"), LinkEnd(f"r{k}", "near")))
        links.append(
            Link(LinkEnd(f"r{k}", "far"), LinkEnd("server", f"eth{k}"), 1500, impairment, impairment)
        )
    return Topology("two-paths", (client, server, *routers), tuple(links))


def _host_routes(own: str, other: str) -> tuple[Route, ...]:
    routes = []
    for k in (1, 2):
        for default, network, gateway, source in (
            ("0.0.0.0/0", f"10.0.{other}{k}.0/24", f"10.0.{own}{k}.1", f"10.0.{own}{k}.2"),
            ("::/0", f"fd00:{other}{k}::/64", f"fd00:{own}{k}::1", f"fd00:{own}{k}::2"),
        ):
            routes.append(route(network, f"eth{k}", gateway))
            routes.append(route(default, f"eth{k}", gateway, source))
    return tuple(routes)


def direct(stack: StackKind = StackKind.TCP, rate_bit_s: int | None = None) -> Topology:
    """Two hosts, a - b, on one link; the rate is for what a sends."""
    nodes = tuple(
        Node(name, NodeKind.HOST, stack, (interface("eth0", number, f"10.9.0.{number}/24"),))
        for number, name in enumerate("ab", 1)
    )
    link = Link(LinkEnd("a", "eth0"), LinkEnd("b", "eth0"), 1500, Impairment(rate_bit_s=rate_bit_s))
    return Topology("direct", nodes, (link,))


def two_switches() -> Topology:
    """Host a - s1 - s2 - host b."""
    hosts = tuple(
        Node(
            name,
            NodeKind.HOST,
            StackKind.TCP,
            (interface("eth0", number, f"10.8.0.{number}/24", f"fd08::{number}/64"),),
        )
        for number, name in enumerate("ab", 1)
    )
    switches = tuple(
        Node(
            f"s{number}",
            NodeKind.SWITCH,
            interfaces=(interface("down", 10 + number), interface("across", 20 + number)),
        )
        for number in (1, 2)
    )
    links = (
        Link(LinkEnd("a", "eth0"), LinkEnd("s1", "down")),
        Link(LinkEnd("s1", "across"), LinkEnd("s2", "across")),
        Link(LinkEnd("s2", "down"), LinkEnd("b", "eth0")),
    )
    return Topology("two-switches", (*hosts, *switches), links)
