"""Which interface is where: the ports of all links, and the segments that bridges join them into."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from testbed.topology.document import DocumentPath
from testbed.topology.model import IpInterface, IpNetwork
from testbed.topology.raw import InterfaceFile, LinkEndFile, TopologyFile


@dataclass(slots=True)
class Port:
    """An interface: one end of one link."""

    node: str
    name: str
    link: int
    end: int
    is_bridge: bool
    mac: str | None = None
    mac_path: DocumentPath = ()
    addresses: list[IpInterface] | None = None
    """What the file says; None where they are to be derived."""
    addresses_path: DocumentPath = ()

    @property
    def path(self) -> DocumentPath:
        return ("links", self.link, "endpoints", self.end)


@dataclass(slots=True)
class Segment:
    """Interfaces that hear each other's broadcasts."""

    ports: list[Port] = field(default_factory=list)
    """Those of hosts and routers, in the order of the links."""
    links: list[int] = field(default_factory=list)
    subnets: list[tuple[IpNetwork, DocumentPath]] = field(default_factory=list)
    """Said for one of its links."""

    def networks(self, version: int) -> list[IpNetwork]:
        """The subnets of one family that the file names, those of explicit addresses included."""
        said = [network for network, _ in self.subnets]
        said += [address.network for port in self.ports for address in port.addresses or ()]
        return [network for network in dict.fromkeys(said) if network.version == version]


@dataclass(slots=True)
class Wiring:
    ports: list[Port]
    segments: list[Segment]


def wire(file: TopologyFile) -> Wiring:
    """Name every interface and join the segments. Links with an end at an unknown node are left out."""
    ends = [
        (index, end_index, end)
        for index, link in enumerate(file.links)
        if all(end.node in file.nodes for end in link.endpoints)
        for end_index, end in enumerate(link.endpoints)
    ]
    taken: dict[str, set[str]] = defaultdict(set)
    for _, _, end in ends:
        if end.interface is not None:
            taken[end.node].add(end.interface)
    counts: dict[str, int] = defaultdict(int)
    ports = []
    for index, end_index, end in ends:
        name = end.interface or _free_name(counts[end.node], taken[end.node])
        counts[end.node] += 1
        taken[end.node].add(name)
        ports.append(_port(file, index, end_index, end, name))
    return Wiring(ports, list(_segments(file, ports)))


def _free_name(position: int, taken: set[str]) -> str:
    while f"eth{position}" in taken:
        position += 1
    return f"eth{position}"


def _port(file: TopologyFile, index: int, end_index: int, end: LinkEndFile, name: str) -> Port:
    node = file.nodes[end.node]
    port = Port(end.node, name, index, end_index, is_bridge=node.is_bridge)
    sources: list[tuple[LinkEndFile | InterfaceFile | None, DocumentPath]] = [
        (end, port.path),
        (node.interfaces.get(name), ("nodes", end.node, "interfaces", name)),
    ]
    for said, path in sources:
        if said is not None and said.addresses is not None and port.addresses is None:
            port.addresses, port.addresses_path = said.addresses, (*path, "addresses")
        if said is not None and said.mac is not None and port.mac is None:
            port.mac, port.mac_path = said.mac, (*path, "mac")
    return port


def _segments(file: TopologyFile, ports: list[Port]) -> Iterator[Segment]:
    """A link is a segment; a bridge makes one of all segments that it touches."""
    ports_of_link: dict[int, list[Port]] = defaultdict(list)
    links_of_bridge: dict[str, list[int]] = defaultdict(list)
    for port in ports:
        ports_of_link[port.link].append(port)
        if port.is_bridge:
            links_of_bridge[port.node].append(port.link)
    seen: set[int] = set()
    for first in ports_of_link:
        if first in seen:
            continue
        seen.add(first)
        reached, waiting = [first], [first]
        while waiting:
            for port in ports_of_link[waiting.pop()]:
                new = [link for link in links_of_bridge.pop(port.node, []) if link not in seen]
                seen.update(new)
                reached += new
                waiting += new
        yield _segment(file, sorted(reached), ports_of_link)


def _segment(file: TopologyFile, links: list[int], ports_of_link: dict[int, list[Port]]) -> Segment:
    segment = Segment(links=links)
    for link in links:
        segment.ports += [port for port in ports_of_link[link] if not port.is_bridge]
        for position, network in enumerate(file.links[link].subnets):
            segment.subnets.append((network, ("links", link, "subnets", position)))
    return segment
