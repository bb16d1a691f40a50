"""A resolved topology as text for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

from testbed.middlebox.settings import box_text, boxes_to_objects
from testbed.topology.events import event_text
from testbed.topology.impairments import impairment_text
from testbed.topology.model import Endpoint, Impairment, Interface, Link, MptcpSettings, Node, Route, Topology


def describe(topology: Topology) -> str:
    """Everything about a topology as readable text; ends without a newline."""
    return "\n".join(_lines(topology))


def describe_nodes(topology: Topology) -> str:
    """The nodes only, with all that they have."""
    return "\n".join(_lines_of_nodes(topology))


def _lines(topology: Topology) -> Iterator[str]:
    yield from _lines_of_nodes(topology)
    yield ""
    yield "links"
    for link in topology.links:
        yield f"  {_link_text(link)}"
    if topology.events:
        yield ""
        yield "events"
        for event in topology.events:
            yield f"  {event.at_us / 1_000_000:.3f} s  {event_text(event)}"


def _lines_of_nodes(topology: Topology) -> Iterator[str]:
    origin = f" ({topology.source})" if topology.source else ""
    yield f"topology {topology.name}{origin}: {len(topology.nodes)} nodes, {len(topology.links)} links"
    for node in topology.nodes:
        yield ""
        yield from _node_lines(node)


def _node_lines(node: Node) -> Iterator[str]:
    stack = f", {node.stack} stack" if node.stack else ""
    yield f"{node.kind} {node.name}{stack}"
    for interface in node.interfaces:
        yield f"  interface {_interface_text(interface)}"
    main = [route for route in node.routes if route.source is None]
    for route in main:
        yield f"  route     {_route_text(route)}"
    for route in node.routes:
        if route.source is not None:
            yield f"  rule      from {route.source} to {_route_text(route)}"
    yield from _mptcp_lines(node.mptcp)
    for name, value in node.sysctls:
        yield f"  sysctl    {name} = {value}"


def _interface_text(interface: Interface) -> str:
    addresses = "".join(f" {address}" for address in interface.addresses)
    return f"{interface.name}{addresses}  mac {interface.mac} mtu {interface.mtu}"


def _route_text(route: Route) -> str:
    destination = "default" if route.destination.prefixlen == 0 else str(route.destination)
    gateway = f" via {route.gateway}" if route.gateway else ""
    metric = f" metric {route.metric}" if route.metric else ""
    return f"{destination}{gateway} dev {route.interface}{metric}"


def _mptcp_lines(settings: MptcpSettings) -> Iterator[str]:
    if settings == MptcpSettings():
        return
    yield (
        f"  limits    subflows {settings.subflows_limit} add_addr_accepted {settings.add_addr_accepted_limit}"
    )
    for endpoint in settings.endpoints:
        yield f"  endpoint  {_endpoint_text(endpoint)}"


def _endpoint_text(endpoint: Endpoint) -> str:
    """In the words of ``ip mptcp endpoint``."""
    identifier = f" id {endpoint.identifier}" if endpoint.identifier is not None else ""
    port = f" port {endpoint.port}" if endpoint.port is not None else ""
    flags = "".join(f" {flag}" for flag in sorted(endpoint.flags))
    device = f" dev {endpoint.interface}" if endpoint.interface else ""
    return f"{endpoint.address}{port}{identifier}{flags}{device}"


def _link_text(link: Link) -> str:
    text = f"{link.first} <-> {link.second}  mtu {link.mtu}"
    text += "".join(f"  {box_text(box)}" for box in link.middlebox)
    if link.forward == link.backward:
        return text + _impairment_text("", link.forward)
    return text + _impairment_text("-> ", link.forward) + _impairment_text("<- ", link.backward)


def _impairment_text(direction: str, impairment: Impairment) -> str:
    text = impairment_text(impairment)
    return f"  {direction}{text}" if text else ""


def to_json(topology: Topology) -> str:
    """A JSON object with the model's field names; addresses and networks are text, absent values null."""
    return json.dumps(
        {
            "name": topology.name,
            "source": str(topology.source) if topology.source else None,
            "impairments": topology.impairments.value,
            "nodes": [_node_object(node) for node in topology.nodes],
            "links": [_link_object(link) for link in topology.links],
        },
        indent=2,
        ensure_ascii=False,
    )


def _node_object(node: Node) -> dict[str, object]:
    return {
        "name": node.name,
        "kind": node.kind.value,
        "stack": node.stack.value if node.stack else None,
        "interfaces": [
            {
                "name": interface.name,
                "mac": interface.mac,
                "mtu": interface.mtu,
                "addresses": [str(address) for address in interface.addresses],
            }
            for interface in node.interfaces
        ],
        "routes": [
            {
                "destination": str(route.destination),
                "interface": route.interface,
                "gateway": str(route.gateway) if route.gateway else None,
                "source": str(route.source) if route.source else None,
                "metric": route.metric,
            }
            for route in node.routes
        ],
        "mptcp": {
            "subflows_limit": node.mptcp.subflows_limit,
            "add_addr_accepted_limit": node.mptcp.add_addr_accepted_limit,
            "endpoints": [_endpoint_object(endpoint) for endpoint in node.mptcp.endpoints],
        },
        "sysctls": dict(node.sysctls),
    }


def _endpoint_object(endpoint: Endpoint) -> dict[str, object]:
    return {
        "address": str(endpoint.address),
        "flags": sorted(endpoint.flags),
        "interface": endpoint.interface,
        "identifier": endpoint.identifier,
        "port": endpoint.port,
    }


def _link_object(link: Link) -> dict[str, object]:
    return {
        "first": {"node": link.first.node, "interface": link.first.interface},
        "second": {"node": link.second.node, "interface": link.second.interface},
        "mtu": link.mtu,
        "forward": _impairment_object(link.forward),
        "backward": _impairment_object(link.backward),
        "middlebox": boxes_to_objects(link.middlebox),
    }


def _impairment_object(impairment: Impairment) -> dict[str, object]:
    """The rate always, of the other fields those that say something."""
    nothing = asdict(Impairment())
    return {
        name: value
        for name, value in asdict(impairment).items()
        if value != nothing[name] or name == "rate_bit_s"
    }
