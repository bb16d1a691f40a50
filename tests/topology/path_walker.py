"""Follows packets through a resolved topology by its routes alone: an independent check of the derivation."""

from __future__ import annotations

from testbed.topology.model import IpAddress, Node, NodeKind, Route, Topology

MAXIMUM_HOPS = 64


class UndeliveredError(Exception):
    """The packet was lost; the message tells where."""


class PathWalker:
    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._segment_of: dict[tuple[str, str], int] = {}
        for number, link in enumerate(topology.links):
            for end in (link.first, link.second):
                self._segment_of[end.node, end.interface] = number
        for node in topology.nodes:
            if node.is_bridge:
                self._join([self._segment_of[node.name, interface.name] for interface in node.interfaces])

    def _join(self, segments: list[int]) -> None:
        for key, segment in self._segment_of.items():
            if segment in segments:
                self._segment_of[key] = segments[0]

    def path(self, sender: str, destination: IpAddress, source: IpAddress | None) -> list[str]:
        """The nodes and interfaces that a packet leaves by, up to the node that has ``destination``.

        ``source`` None stands for a socket that has not chosen: only routes without a source count.
        """
        node = self._topology.node(sender)
        steps: list[str] = []
        for _ in range(MAXIMUM_HOPS):
            if _owns(node, destination):
                return steps
            if steps and node.kind is not NodeKind.ROUTER:
                raise UndeliveredError(f"{node.name} does not forward; path {steps}")
            interface, next_address = self._lookup(node, destination, source if not steps else None)
            steps.append(f"{node.name}:{interface}")
            node = self._neighbour(node.name, interface, next_address)
        raise UndeliveredError(f"circles: {steps}")

    def _lookup(self, node: Node, destination: IpAddress, source: IpAddress | None) -> tuple[str, IpAddress]:
        connected = [
            Route(address.network, interface.name)
            for interface in node.interfaces
            for address in interface.addresses
        ]
        policy = [route for route in node.routes if route.source is not None and route.source == source]
        main = connected + [route for route in node.routes if route.source is None]
        for table in (policy, main):
            matching = [route for route in table if destination in route.destination]
            if matching:
                best = min(matching, key=lambda route: (-route.destination.prefixlen, route.metric))
                return best.interface, best.gateway or destination
        raise UndeliveredError(f"{node.name} has no route to {destination} from {source}")

    def _neighbour(self, node: str, interface: str, address: IpAddress) -> Node:
        segment = self._segment_of[node, interface]
        for candidate in self._topology.nodes:
            for other in candidate.interfaces:
                if self._segment_of[candidate.name, other.name] == segment and any(
                    own.ip == address for own in other.addresses
                ):
                    return candidate
        raise UndeliveredError(f"nobody answers for {address} on {node}:{interface}")


def _owns(node: Node, address: IpAddress) -> bool:
    return any(own.ip == address for interface in node.interfaces for own in interface.addresses)


def host_addresses(topology: Topology) -> list[tuple[str, str, IpAddress]]:
    """Host, interface, address: all of them."""
    return [
        (host.name, interface.name, address.ip)
        for host in topology.hosts()
        for interface in host.interfaces
        for address in interface.addresses
    ]


def walk_everything(topology: Topology) -> dict[tuple[IpAddress, IpAddress], list[str]]:
    """The path from every host address to every other host's of its family; raises UndeliveredError.

    Paths of sockets without a chosen source are walked too.
    """
    walker = PathWalker(topology)
    paths = {}
    for sender, _, source in host_addresses(topology):
        for receiver, _, destination in host_addresses(topology):
            if sender != receiver and source.version == destination.version:
                paths[source, destination] = walker.path(sender, destination, source)
                walker.path(sender, destination, None)
    return paths
