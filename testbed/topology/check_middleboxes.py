"""Checks of translators on links: an outer address of the link's network that nobody else has."""

from __future__ import annotations

from testbed.topology.addressing import Addresses
from testbed.topology.document import DocumentPath
from testbed.topology.findings import Findings
from testbed.topology.middleboxes import NATS, MiddleboxFile
from testbed.topology.model import IpAddress
from testbed.topology.raw import TopologyFile
from testbed.topology.wiring import Port, Wiring


def check_middleboxes(
    file: TopologyFile, wiring: Wiring, addresses: Addresses | None, findings: Findings
) -> None:
    """``addresses`` is None where they are not known."""
    owners: dict[IpAddress, str] = {}
    for (node, interface), own in (addresses or {}).items():
        owners |= {address.ip: f"{node}:{interface}" for address in own}
    for index, link in enumerate(file.links):
        segment = next((each for each in wiring.segments if index in each.links), None)
        ports = segment.ports if segment is not None and addresses is not None else None
        path: DocumentPath = ("links", index, "middlebox")
        _check_nats(link.middlebox, path, ports, addresses or {}, owners, findings)
    for index, event in enumerate(file.events):
        if event.middlebox is not None:
            path = ("events", index, "middlebox")
            port = next((each for each in wiring.ports if f"{each.node}:{each.name}" == event.link), None)
            found = next(
                (each for each in wiring.segments if port is not None and port.link in each.links), None
            )
            ports = found.ports if found is not None and addresses is not None else None
            _check_nats(event.middlebox, path, ports, addresses or {}, owners, findings)


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
