"""Finds everything that is wrong with a topology file, before anything is created."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from testbed.topology.addressing import Addresses, AddressSpaceError, derive_addresses
from testbed.topology.check_addresses import check_addresses
from testbed.topology.check_events import check_events
from testbed.topology.check_hosts import check_hosts
from testbed.topology.check_impairments import check_impairments
from testbed.topology.check_middleboxes import check_middleboxes
from testbed.topology.document import DocumentNode, DocumentPath, Mapping, child
from testbed.topology.findings import Findings
from testbed.topology.problems import ProblemCollector, did_you_mean
from testbed.topology.raw import TopologyFile
from testbed.topology.shape import fit
from testbed.topology.wiring import Port, Wiring, wire

# Names that a namespace has already, or that mean something else in /proc/sys/net.
RESERVED_INTERFACE_NAMES = frozenset({"lo", "all", "default"})
BRIDGE_NAME = "br0"
"""A switch's own interface, which joins the others."""
MAXIMUM_DERIVED_ROUTES = 400_000


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A file without problems, and what is plugged in where."""

    file: TopologyFile
    wiring: Wiring
    addresses: Addresses


def check(document: DocumentNode, problems: ProblemCollector) -> CheckedFile | None:
    """Notes every problem in ``problems``. What is returned is right only if there is none."""
    nodes = child(document, "nodes")
    written_nodes = list(nodes.entries) if isinstance(nodes, Mapping) else []
    fitting = fit(document, problems)
    if fitting is None:
        return None
    file, is_whole = fitting.file, fitting.knows_interfaces()
    findings = Findings(document, problems)
    check_impairments(file, findings)
    _check_interface_names(file, findings)
    links_are_right = _check_links(file, written_nodes, findings)
    wiring = wire(file)
    _check_interface_keys(file, wiring, is_whole and links_are_right, findings)
    _check_bridge_loops(file, findings)
    if is_whole and links_are_right:
        _check_connected(file, wiring, findings)
    addresses_are_right = check_addresses(file, wiring, findings)
    addresses = None
    if is_whole and links_are_right and addresses_are_right:
        try:
            addresses = derive_addresses(wiring)
            _check_size(file, addresses, findings)
        except AddressSpaceError as error:
            findings.at_key(("links",), str(error))
    check_hosts(file, addresses, findings)
    check_middleboxes(file, wiring, addresses, findings, is_whole=is_whole and links_are_right)
    said_whole = all(path[0] != "events" for path in fitting.removed)
    check_events(file, wiring if is_whole and links_are_right else None, findings, said_whole=said_whole)
    return CheckedFile(file, wiring, addresses or {})


def _check_interface_names(file: TopologyFile, findings: Findings) -> None:
    for index, link in enumerate(file.links):
        for end_index, end in enumerate(link.endpoints):
            node = file.nodes.get(end.node)
            is_bridge = end.interface == BRIDGE_NAME and node is not None and node.is_bridge
            if end.interface in RESERVED_INTERFACE_NAMES or is_bridge:
                path = ("links", index, "endpoints", end_index, "interface")
                findings.at_value(path, f"interface name {end.interface!r} is reserved", "choose another")


def _check_links(file: TopologyFile, written_nodes: list[str], findings: Findings) -> bool:
    """Whether both ends of every link are at nodes of the file, each at an interface of its own."""
    before = len(findings)
    first_use: dict[tuple[str, str], DocumentPath] = {}
    for index, link in enumerate(file.links):
        for end_index, end in enumerate(link.endpoints):
            path = ("links", index, "endpoints", end_index)
            if end.node not in written_nodes:
                hint = did_you_mean(end.node, written_nodes)
                findings.at_value((*path, "node"), f"no node is called {end.node!r}", hint)
            if end.interface is None:
                continue
            used = first_use.setdefault((end.node, end.interface), path)
            if used != path:
                findings.at_value(
                    (*path, "interface"),
                    f"interface {end.node}:{end.interface} has a link already",
                    f"in line {findings.value_mark(used).line}; an interface is one end of one link",
                )
        if link.endpoints[0].node == link.endpoints[1].node:
            findings.at_value(
                ("links", index, "endpoints"), f"a link joins {link.endpoints[0].node!r} to itself"
            )
    return len(findings) == before


def _check_interface_keys(file: TopologyFile, wiring: Wiring, is_whole: bool, findings: Findings) -> None:
    """``interfaces`` of a node must be ends of links, and say nothing that the link says too."""
    ports_of_node: dict[str, dict[str, Port]] = defaultdict(dict)
    for each in wiring.ports:
        ports_of_node[each.node][each.name] = each
    for name, node in file.nodes.items():
        ports = ports_of_node[name]
        for interface, said in node.interfaces.items():
            path = ("nodes", name, "interfaces", interface)
            port = ports.get(interface)
            if port is None:
                if is_whole:
                    hint = did_you_mean(interface, ports)
                    findings.at_key(path, f"{name!r} has no interface {interface!r}", hint)
                continue
            end = file.links[port.link].endpoints[port.end]
            for word in ("addresses", "mac"):
                if getattr(said, word) is not None and getattr(end, word) is not None:
                    line = findings.value_mark((*port.path, word)).line
                    findings.at_key((*path, word), f"{word!r} is said twice", f"line {line} says it too")


def _check_bridge_loops(file: TopologyFile, findings: Findings) -> None:
    """A loop of bridges would forward broadcasts for ever: the bridges run no spanning tree."""
    leader = {name: name for name, node in file.nodes.items() if node.is_bridge}

    def find(bridge: str) -> str:
        while leader[bridge] != bridge:
            leader[bridge] = leader[leader[bridge]]
            bridge = leader[bridge]
        return bridge

    for index, link in enumerate(file.links):
        first, second = (end.node for end in link.endpoints)
        if first not in leader or second not in leader or first == second:
            continue
        if find(first) == find(second):
            findings.at_value(
                ("links", index),
                "this link closes a loop of switches or middleboxes",
                "broadcasts would circle in it for ever",
            )
        leader[find(first)] = find(second)


def _check_connected(file: TopologyFile, wiring: Wiring, findings: Findings) -> None:
    if not any(node.kind == "host" for node in file.nodes.values()):
        findings.at_key(("nodes",), "no node is a host")
    linked = {port.node for port in wiring.ports}
    isolated = [name for name in file.nodes if name not in linked]
    for name in isolated:
        findings.at_key(("nodes", name), f"{name!r} has no link", "add one, or remove the node")
    islands = _islands(file, wiring)
    hosts = [name for name, node in file.nodes.items() if node.kind == "host" and name in linked]
    population = Counter(island for name in hosts for island in islands[name])
    for name in hosts if len(hosts) > 1 else ():
        if all(population[island] == 1 for island in islands[name]):
            findings.at_key(
                ("nodes", name),
                f"{name!r} can't reach any other host",
                "hosts don't forward: join them by links, switches and routers",
            )


def _check_size(file: TopologyFile, addresses: Addresses, findings: Findings) -> None:
    """A bound on the routes that will be derived, before they take memory."""
    networks = {address.network for own in addresses.values() for address in own}
    routers = sum(node.kind == "router" for node in file.nodes.values())
    legs = Counter({name: 0 for name, node in file.nodes.items() if node.kind == "host"})
    interfaces: Counter[str] = Counter()
    for (name, _), own in addresses.items():
        if name in legs:
            legs[name] += len(own)
            interfaces[name] += 1
    with_rules = sum(count for name, count in legs.items() if interfaces[name] > 1)
    # Rules are between addresses of one family, half of them as a rule.
    estimate = routers * len(networks) + with_rules * legs.total() // 2
    if estimate > MAXIMUM_DERIVED_ROUTES:
        findings.at_key(
            ("nodes",),
            f"too large: up to {estimate} routes, more than {MAXIMUM_DERIVED_ROUTES}, would be derived",
        )


def _islands(file: TopologyFile, wiring: Wiring) -> dict[str, set[int]]:
    """For every node, the sets of segments joined by routers that it touches, numbered."""
    segments_of_node: dict[str, list[int]] = defaultdict(list)
    nodes_of_segment: dict[int, list[str]] = defaultdict(list)
    for number, segment in enumerate(wiring.segments):
        for port in segment.ports:
            segments_of_node[port.node].append(number)
            nodes_of_segment[number].append(port.node)
    island: dict[int, int] = {}
    for start in nodes_of_segment:
        if start in island:
            continue
        island[start] = start
        waiting = [start]
        while waiting:
            for node in nodes_of_segment[waiting.pop()]:
                if file.nodes[node].kind != "router":
                    continue
                new = [number for number in segments_of_node[node] if number not in island]
                island.update(dict.fromkeys(new, start))
                waiting += new
    return {name: {island[number] for number in segments_of_node[name]} for name in file.nodes}
