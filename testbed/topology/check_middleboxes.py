"""Checks of middleboxes: two links each, and translators an outer address of their network for themselves."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.topology.addressing import Addresses
from testbed.topology.document import DocumentPath
from testbed.topology.findings import Findings
from testbed.topology.middleboxes import NATS, MiddleboxFile
from testbed.topology.model import IpAddress
from testbed.topology.raw import TopologyFile
from testbed.topology.wiring import Port, Wiring


def check_middleboxes(
    file: TopologyFile, wiring: Wiring, addresses: Addresses | None, findings: Findings, *, is_whole: bool
) -> None:
    """``addresses`` is None where they are not known; ``is_whole``: whether all links are."""
    owners: dict[IpAddress, str] = {}
    for (node, interface), own in (addresses or {}).items():
        owners |= {address.ip: f"{node}:{interface}" for address in own}
    for boxes, path, link in _said(file, wiring):
        segment = next((each for each in wiring.segments if link in each.links), None)
        ports = segment.ports if segment is not None and addresses is not None else None
        _check_nats(boxes, path, ports, addresses or {}, owners, findings)
    _check_nodes(file, wiring, findings, is_whole=is_whole)


def _said(file: TopologyFile, wiring: Wiring) -> Iterator[tuple[MiddleboxFile, DocumentPath, int | None]]:
    """Boxes, where the file has them, and a link of the network that they are in."""
    for index, link in enumerate(file.links):
        yield link.middlebox, ("links", index, "middlebox"), index
    for name, node in file.nodes.items():
        if node.middlebox is not None:
            yield node.middlebox, ("nodes", name, "middlebox"), _link_of(wiring, name)
    for index, event in enumerate(file.events):
        if event.middlebox is not None:
            yield (
                event.middlebox,
                ("events", index, "middlebox"),
                _link_of(wiring, *(event.link or "").split(":")),
            )


def _link_of(wiring: Wiring, node: str, interface: str | None = None) -> int | None:
    """The first of a node, or that of one of its interfaces."""
    links = (port.link for port in wiring.ports if port.node == node and interface in (None, port.name))
    return next(links, None)


def _check_nodes(file: TopologyFile, wiring: Wiring, findings: Findings, *, is_whole: bool) -> None:
    for name, node in file.nodes.items():
        if node.kind != "middlebox":
            if node.middlebox is not None:
                findings.at_key(
                    ("nodes", name, "middlebox"),
                    f"a {node.kind} does nothing to packets",
                    "say 'kind: middlebox'",
                )
            continue
        if node.middlebox is None:
            findings.at_key(("nodes", name), f"{name!r} needs a 'middlebox'", "what it does to packets")
        count = sum(port.node == name for port in wiring.ports)
        if count != 2 and is_whole:
            findings.at_key(("nodes", name), f"a middlebox has two links, {name!r} has {count}")


def _check_nats(
    boxes: MiddleboxFile,
    path: DocumentPath,
    ports: list[Port] | None,
    addresses: Addresses,
    owners: dict[IpAddress, str],
    findings: Findings,
) -> None:
    for kind, version in NATS.items():
        if kind not in boxes.model_fields_set:
            continue
        said = boxes.nat44 if kind == "nat44" else boxes.nat66
        if said is None:
            findings.at_key((*path, kind), f"{kind!r} needs an 'address'", "of its outer side")
            continue
        where = (*path, kind, "address")
        address = said.address
        if address.version != version:
            findings.at_value(
                where, f"{address} is no address of IPv{version}", f"{kind!r} translates these only"
            )
        elif owner := owners.get(address):
            findings.at_value(where, f"{owner} has {address} already", "the outer side needs one of its own")
        elif ports is not None:
            networks = {each.network for port in ports for each in addresses[port.node, port.name]}
            if not any(address in network for network in networks):
                known = ", ".join(str(network) for network in sorted(networks, key=str))
                findings.at_value(where, f"{address} is in no network of the link", f"they are {known}")
