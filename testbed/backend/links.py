"""From the resolved topology to rtnetlink requests. Nothing here talks to the kernel.

Interface indices are chosen here and asked for, not read back, so that a lab needs two rounds of requests
only: first all links, made straight in their namespaces, then everything that needs them.
"""

from __future__ import annotations

import errno
import socket
import zlib
from collections.abc import Mapping
from typing import Any

from testbed.backend.netlink import RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, RTM_NEWRULE, Request
from testbed.topology.model import (
    IpAddress,
    IpInterface,
    LinkEnd,
    Node,
    Route,
    StackKind,
    Topology,
)

LOOPBACK_INDEX = 1
FIRST_INDEX = 2
BRIDGE_INDEX = 20_000
"""Of a switch's bridge, and further ones of a router's shaping devices: beyond all ends of links, those
included that are plugged in while the lab runs."""
BRIDGE_NAME = "br0"

_IFF_UP = 0x1
_IFA_F_NODAD = 0x02
_RT_TABLE_COMPAT = 252
_RT_TABLE_MAIN = 254
_RT_SCOPE_UNIVERSE = 0
_RT_SCOPE_LINK = 253
_RTPROT_STATIC = 4
_RTN_UNICAST = 1
_FR_ACT_TO_TBL = 1
_SOURCE_TABLES = 1 << 24
_SOURCE_RULE_PRIORITY = 1000
"""Of the rules that lead to the routing tables for one source address each: before the main table's."""


class LinkPlan:
    """Which index every interface gets in its namespace, and which end of each link makes it.

    A node's first interface gets index 2, and so on. A switch makes its own links: a port can join the
    bridge in the same request then.
    """

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.indices: dict[LinkEnd, int] = {
            LinkEnd(node.name, interface.name): index
            for node in topology.nodes
            for index, interface in enumerate(node.interfaces, FIRST_INDEX)
        }
        self.pairs: list[tuple[LinkEnd, LinkEnd]] = []
        """For each link the end that makes it and the other one."""
        self.made_elsewhere: dict[str, list[LinkEnd]] = {node.name: [] for node in topology.nodes}
        self.opposite: dict[LinkEnd, LinkEnd] = {}
        for link in topology.links:
            maker, other = link.first, link.second
            if topology.node(other.node).is_bridge:
                maker, other = other, maker
            self.pairs.append((maker, other))
            self.made_elsewhere[other.node].append(other)
            self.opposite |= {maker: other, other: maker}

    def index(self, node: Node, interface: str) -> int:
        return self.indices[LinkEnd(node.name, interface)]


def creation_requests(plan: LinkPlan, descriptors: Mapping[str, int]) -> dict[str, list[Request]]:
    """First round, by node: loopback up, bridges, and links with both of their ends.

    ``descriptors`` holds the open namespace of each node.
    """
    topology = plan.topology
    requests: dict[str, list[Request]] = {}
    for node in topology.nodes:
        requests[node.name] = [_loopback_request(node.name)]
        if node.is_bridge:
            requests[node.name].append(_bridge_request(node))
    for here, there in plan.pairs:
        fields = _end_fields(plan, here)
        if topology.node(here.node).is_bridge:
            fields["attrs"].append(["IFLA_MASTER", BRIDGE_INDEX])
        peer = _end_fields(plan, there)
        # A veth end does not come up before it has its partner: the maker's end may, this one must wait.
        peer["flags"] = peer["change"] = 0
        peer["attrs"].append(["IFLA_NET_NS_FD", descriptors[there.node]])
        fields["attrs"].append(
            [
                "IFLA_LINKINFO",
                {
                    "attrs": [
                        ["IFLA_INFO_KIND", "veth"],
                        ["IFLA_INFO_DATA", {"attrs": [["VETH_INFO_PEER", peer]]}],
                    ]
                },
            ]
        )
        requests[here.node].append(Request(RTM_NEWLINK, fields, f"make the link {here} - {there}"))
    return requests


def configuration_requests(plan: LinkPlan, node: Node) -> list[Request]:
    """Second round for one node: ends that others made come up; addresses, routes and policy rules.

    A host with the userspace stack gets no addresses: its stack owns them.
    """
    made_elsewhere = plan.made_elsewhere[node.name]
    requests = [link_state_request(end, plan.indices[end], up=True) for end in made_elsewhere]
    if node.is_bridge:
        return requests + [_join_request(end, plan.indices[end], node) for end in made_elsewhere]
    if node.stack is StackKind.USERSPACE:
        return requests
    requests += [
        address_request(address, plan.index(node, interface.name), f"{node.name}:{interface.name}")
        for interface in node.interfaces
        for address in interface.addresses
    ]
    return requests + route_requests(plan, node)


def route_requests(
    plan: LinkPlan,
    node: Node,
    interface: str | None = None,
    *,
    tables: Mapping[IpAddress, int] | None = None,
) -> list[Request]:
    """A node's routes (those of one interface, if named), and a rule for each source address with its table.

    Sending them again restores those that the kernel dropped when the interface went down. Routes without a
    gateway come first: the others may need them.
    """
    tables = source_tables(node) if tables is None else tables
    requests = [rule_request(source, table, node.name) for source, table in tables.items()]
    routes = [route for route in node.routes if interface in {None, route.interface}]
    for route in sorted(routes, key=lambda route: route.gateway is not None):
        table = tables[route.source] if route.source is not None else _RT_TABLE_MAIN
        requests.append(_route_request(route, plan.index(node, route.interface), table, node.name))
    return requests


def source_tables(node: Node) -> dict[IpAddress, int]:
    """A routing table of its own for every source address that a route names.

    Its number follows from the address, so that it stays when others come and go.
    """
    tables: dict[IpAddress, int] = {}
    for source in dict.fromkeys(route.source for route in node.routes if route.source is not None):
        number = zlib.crc32(source.packed) % _SOURCE_TABLES
        while _SOURCE_TABLES + number in tables.values():
            number = (number + 1) % _SOURCE_TABLES
        tables[source] = _SOURCE_TABLES + number
    return tables


def link_state_request(end: LinkEnd, index: int, *, up: bool) -> Request:
    """Set one end of a link up or down."""
    fields = {"index": index, "flags": _IFF_UP if up else 0, "change": _IFF_UP}
    return Request(RTM_NEWLINK, fields, f"set {end} {'up' if up else 'down'}", flags=0)


def _end_fields(plan: LinkPlan, end: LinkEnd) -> dict[str, Any]:
    """One end of a veth pair, to come up as soon as it is made."""
    interface = plan.topology.node(end.node).interface(end.interface)
    return {
        "index": plan.indices[end],
        "flags": _IFF_UP,
        "change": _IFF_UP,
        "attrs": [
            ["IFLA_IFNAME", interface.name],
            ["IFLA_ADDRESS", interface.mac],
            ["IFLA_MTU", interface.mtu],
        ],
    }


def _loopback_request(node: str) -> Request:
    fields = {"index": LOOPBACK_INDEX, "flags": _IFF_UP, "change": _IFF_UP}
    return Request(RTM_NEWLINK, fields, f"set {node}:lo up", flags=0)


def _bridge_request(node: Node) -> Request:
    """A bridge that forwards at once: no spanning tree, no wait for multicast listeners."""
    options = [["IFLA_BR_STP_STATE", 0], ["IFLA_BR_FORWARD_DELAY", 0], ["IFLA_BR_MCAST_SNOOPING", 0]]
    fields = {
        "index": BRIDGE_INDEX,
        "flags": _IFF_UP,
        "change": _IFF_UP,
        "attrs": [
            ["IFLA_IFNAME", BRIDGE_NAME],
            [
                "IFLA_LINKINFO",
                {"attrs": [["IFLA_INFO_KIND", "bridge"], ["IFLA_INFO_DATA", {"attrs": options}]]},
            ],
        ],
    }
    return Request(RTM_NEWLINK, fields, f"make the switch {node.name}")


def _join_request(end: LinkEnd, index: int, node: Node) -> Request:
    """A port of a switch that another switch made joins the bridge once it exists."""
    fields = {"index": index, "attrs": [["IFLA_MASTER", BRIDGE_INDEX]]}
    return Request(RTM_NEWLINK, fields, f"join {end} to the switch", flags=0)


def _family(version: int) -> int:
    return int(socket.AF_INET if version == 4 else socket.AF_INET6)


def address_request(address: IpInterface, index: int, end: str) -> Request:
    fields = {
        "family": _family(address.version),
        "prefixlen": address.network.prefixlen,
        "flags": _IFA_F_NODAD if address.version == 6 else 0,
        "index": index,
        "attrs": [["IFA_LOCAL", str(address.ip)], ["IFA_ADDRESS", str(address.ip)]],
    }
    return Request(RTM_NEWADDR, fields, f"give {end} the address {address}")


def rule_request(source: IpAddress, table: int, node: str) -> Request:
    fields = {
        "family": _family(source.version),
        "src_len": source.max_prefixlen,
        "action": _FR_ACT_TO_TBL,
        "table": _RT_TABLE_COMPAT,
        "attrs": [["FRA_SRC", str(source)], ["FRA_TABLE", table], ["FRA_PRIORITY", _SOURCE_RULE_PRIORITY]],
    }
    return Request(
        RTM_NEWRULE,
        fields,
        f"add the rule 'from {source} lookup {table}' to {node}",
        tolerated=frozenset({errno.EEXIST}),
    )


def _route_request(route: Route, index: int, table: int, node: str) -> Request:
    attributes: list[list[object]] = [["RTA_TABLE", table], ["RTA_OIF", index]]
    if route.destination.prefixlen:
        attributes.append(["RTA_DST", str(route.destination.network_address)])
    if route.gateway is not None:
        attributes.append(["RTA_GATEWAY", str(route.gateway)])
    if route.metric:
        attributes.append(["RTA_PRIORITY", route.metric])
    fields = {
        "family": _family(route.destination.version),
        "dst_len": route.destination.prefixlen,
        "table": table if table < 256 else _RT_TABLE_COMPAT,
        "proto": _RTPROT_STATIC,
        "scope": _RT_SCOPE_UNIVERSE if route.gateway is not None else _RT_SCOPE_LINK,
        "type": _RTN_UNICAST,
        "attrs": attributes,
    }
    gateway = f" via {route.gateway}" if route.gateway is not None else ""
    purpose = f"add the route {route.destination}{gateway} dev {route.interface} to {node}"
    return Request(RTM_NEWROUTE, fields, purpose, tolerated=frozenset({errno.EEXIST}))
