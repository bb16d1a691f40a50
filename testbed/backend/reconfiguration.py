"""The difference between two resolved topologies of one lab, and how a kernel is told of it.

Only what :mod:`testbed.topology.changes` changes can differ: addresses, routes, where a cable is.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from testbed.backend.links import (
    BRIDGE_INDEX,
    LinkPlan,
    address_request,
    link_state_request,
    route_requests,
    rule_request,
    source_tables,
)
from testbed.backend.netlink import (
    RTM_DELADDR,
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    Request,
)
from testbed.host.protocol import InterfaceAddress, NetworkChange, RouteFields
from testbed.topology.model import IpInterface, LinkEnd, Node, Route, Topology

_DOWN = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH})
"""Of routes over an interface that is down; it gets them when it comes up."""
_GONE = frozenset({errno.ESRCH, errno.ENODEV, errno.ENOENT, errno.EADDRNOTAVAIL})


@dataclass(frozen=True, slots=True)
class NodeChange:
    """What changes at one node; what goes, goes first."""

    before: Node
    after: Node
    removed_addresses: tuple[tuple[str, IpInterface], ...]
    """Interface and address."""
    added_addresses: tuple[tuple[str, IpInterface], ...]
    removed_routes: tuple[Route, ...]
    added_routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class Replugging:
    """A cable whose one end changes its switch; the other end stays."""

    stays: LinkEnd
    old: LinkEnd
    new: LinkEnd


def node_changes(before: Topology, after: Topology) -> Iterator[NodeChange]:
    """The nodes whose addresses or routes differ."""
    for new in after.nodes:
        old = before.node(new.name)
        addresses_before, addresses_after = _addresses(old), _addresses(new)
        change = NodeChange(
            old,
            new,
            tuple(each for each in addresses_before if each not in addresses_after),
            tuple(each for each in addresses_after if each not in addresses_before),
            tuple(route for route in old.routes if route not in new.routes),
            tuple(route for route in new.routes if route not in old.routes),
        )
        if change.removed_addresses or change.added_addresses or change.removed_routes or change.added_routes:
            yield change


def _addresses(node: Node) -> list[tuple[str, IpInterface]]:
    return [(each.name, address) for each in node.interfaces for address in each.addresses]


def repluggings(before: Topology, after: Topology) -> Iterator[Replugging]:
    """The cables that are plugged in elsewhere."""
    for old, new in zip(before.links, after.links, strict=True):
        if old.second != new.second:
            yield Replugging(old.first, old.second, new.second)
        elif old.first != new.first:
            yield Replugging(old.second, old.first, new.first)


def kernel_requests(plan: LinkPlan, change: NodeChange) -> list[Request]:
    """For a node whose addresses are the kernel's. ``plan`` is of the topology after the change."""
    node = change.after
    requests = []
    for interface, address in change.removed_addresses:
        request = address_request(address, plan.index(node, interface), f"{node.name}:{interface}")
        requests.append(
            replace(
                request,
                kind=RTM_DELADDR,
                flags=0,
                purpose=f"take {address} from {node.name}:{interface}",
                tolerated=_GONE,
            )
        )
    requests += _without_routes(plan, change)
    requests += [
        address_request(address, plan.index(node, interface), f"{node.name}:{interface}")
        for interface, address in change.added_addresses
    ]
    # All of them: with an interface's last address the kernel forgets routes that are to stay.
    for request in route_requests(plan, node):
        requests.append(replace(request, tolerated=request.tolerated | _DOWN))
    return requests


def _without_routes(plan: LinkPlan, change: NodeChange) -> list[Request]:
    tables, kept = source_tables(change.before), source_tables(change.after)
    removed = replace(change.before, routes=change.removed_routes)
    requests = [
        replace(request, kind=RTM_DELROUTE, flags=0, tolerated=_GONE)
        for request in reversed(route_requests(plan, removed, tables=tables))
        if request.kind == RTM_NEWROUTE
    ]
    requests += [
        replace(rule_request(source, table, removed.name), kind=RTM_DELRULE, flags=0, tolerated=_GONE)
        for source, table in tables.items()
        if source not in kept
    ]
    return requests


def unplug_request(replugging: Replugging, indices: LinkPlan, new: LinkPlan, namespace: int) -> Request:
    """Take a switch's end of a cable to another switch's namespace, which is open as ``namespace``."""
    fields = {
        "index": indices.indices[replugging.old],
        "attrs": [
            ["IFLA_NET_NS_FD", namespace],
            ["IFLA_IFNAME", replugging.new.interface],
            ["IFLA_NEW_IFINDEX", new.indices[replugging.new]],
        ],
    }
    return Request(
        RTM_NEWLINK, fields, f"move the cable of {replugging.stays} to {replugging.new.node}", flags=0
    )


def plug_requests(replugging: Replugging, plan: LinkPlan) -> list[Request]:
    """There, let it be a port of the switch."""
    index = plan.indices[replugging.new]
    fields = {"index": index, "attrs": [["IFLA_MASTER", BRIDGE_INDEX]]}
    return [
        Request(RTM_NEWLINK, fields, f"join {replugging.new} to the switch", flags=0),
        link_state_request(replugging.new, index, up=True),
    ]


def network_change(change: NodeChange) -> NetworkChange:
    """For a host whose stack has addresses of its own."""
    return NetworkChange(
        _address_fields(change.removed_addresses),
        _address_fields(change.added_addresses),
        tuple(map(_route_fields, change.removed_routes)),
        tuple(map(_route_fields, change.added_routes)),
    )


def _address_fields(addresses: Iterable[tuple[str, IpInterface]]) -> tuple[InterfaceAddress, ...]:
    return tuple(InterfaceAddress(interface, str(address)) for interface, address in addresses)


def _route_fields(route: Route) -> RouteFields:
    return RouteFields(
        str(route.destination),
        route.interface,
        str(route.gateway) if route.gateway is not None else None,
        str(route.source) if route.source is not None else None,
        route.metric,
    )
