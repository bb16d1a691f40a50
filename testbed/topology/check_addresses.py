"""Checks of addresses, subnets, MTUs and MAC addresses."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.topology.addressing import host_capacity
from testbed.topology.document import DocumentPath
from testbed.topology.findings import Findings
from testbed.topology.model import IpInterface, IpNetwork
from testbed.topology.raw import MINIMUM_MTU_IPV6, TopologyFile
from testbed.topology.wiring import Port, Segment, Wiring


def check_addresses(file: TopologyFile, wiring: Wiring, findings: Findings) -> bool:
    """Whether nothing was found."""
    before = len(findings)
    _check_bridge_ports(file, wiring, findings)
    _check_unique_addresses(wiring, findings)
    _check_unique_macs(wiring, findings)
    for segment in wiring.segments:
        _check_segment(segment, findings)
    _check_overlaps(wiring, findings)
    _check_mtus(file, wiring, findings)
    return len(findings) == before


def said_addresses(port: Port) -> Iterator[tuple[IpInterface, DocumentPath]]:
    for position, address in enumerate(port.addresses or ()):
        yield address, (*port.addresses_path, position)


def _check_bridge_ports(file: TopologyFile, wiring: Wiring, findings: Findings) -> None:
    for port in wiring.ports:
        if port.is_bridge and port.addresses:
            findings.at_value(
                port.addresses_path,
                f"{port.node!r} is a {file.nodes[port.node].kind}: its interfaces have no addresses",
                "remove them",
            )


def _check_unique_addresses(wiring: Wiring, findings: Findings) -> None:
    owners: dict[str, Port] = {}
    for port in wiring.ports:
        for address, path in said_addresses(port):
            owner = owners.setdefault(str(address.ip), port)
            if owner is not port or (port.addresses or []).count(address) > 1:
                findings.at_value(
                    path, f"address {address.ip} is given twice", f"to {owner.node}:{owner.name}"
                )


def _check_unique_macs(wiring: Wiring, findings: Findings) -> None:
    owners: dict[str, Port] = {}
    for port in wiring.ports:
        if port.mac is not None and (owner := owners.setdefault(port.mac, port)) is not port:
            findings.at_value(
                port.mac_path, f"MAC address {port.mac} is given twice", f"to {owner.node}:{owner.name}"
            )


def _check_segment(segment: Segment, findings: Findings) -> None:
    """Addresses must be in the link's ``subnets``, where it names some, and subnets must have room."""
    for version in (4, 6):
        named = [network for network, _ in segment.subnets if network.version == version]
        for port in segment.ports:
            for address, path in said_addresses(port):
                if named and address.version == version and address.network not in named:
                    subnets = ", ".join(map(str, named))
                    findings.at_value(
                        path, f"{address} is in none of the link's subnets", f"they are {subnets}"
                    )
        _check_room(segment, version, findings)


def _check_room(segment: Segment, version: int, findings: Findings) -> None:
    to_derive = sum(1 for port in segment.ports if port.addresses is None)
    networks = segment.networks(version)
    if not networks or not to_derive:
        return
    network = networks[0]
    taken = {
        address.ip for port in segment.ports for address in port.addresses or () if address.ip in network
    }
    free = host_capacity(network) - len(taken)
    if free < to_derive:
        findings.at_value(
            _origin(segment, network),
            f"subnet {network} has room for {host_capacity(network)} addresses,"
            f" {len(taken) + to_derive} are needed",
            "take a shorter prefix",
        )


def _origin(segment: Segment, network: IpNetwork) -> DocumentPath:
    """Where the file names ``network``."""
    for named, path in segment.subnets:
        if named == network:
            return path
    for port in segment.ports:
        for address, path in said_addresses(port):
            if address.network == network:
                return path
    return ("links", segment.links[0])


def _check_overlaps(wiring: Wiring, findings: Findings) -> None:
    """No two subnets share an address: neither of two links, nor of one."""
    for version in (4, 6):
        named = [
            (int(network.network_address), int(network.broadcast_address), network, number)
            for number, segment in enumerate(wiring.segments)
            for network in segment.networks(version)
        ]
        named.sort(key=lambda each: (each[0], -each[1], each[3]))
        widest = None
        for each in named:
            if widest is not None and each[0] <= widest[1]:
                _note_overlap(wiring, each[2:], widest[2:], findings)
            if widest is None or each[1] > widest[1]:
                widest = each


def _note_overlap(
    wiring: Wiring, one: tuple[IpNetwork, int], other: tuple[IpNetwork, int], findings: Findings
) -> None:
    """At whichever of the two networks (with the numbers of their segments) comes later in the file."""
    origins = [_origin(wiring.segments[number], network) for network, number in (one, other)]
    if findings.value_mark(origins[0]) < findings.value_mark(origins[1]):
        one, other = other, one
        origins.reverse()
    elsewhere = "" if one[1] == other[1] else " of another link"
    line = findings.value_mark(origins[1]).line
    findings.at_value(origins[0], f"subnet {one[0]} overlaps with {other[0]}{elsewhere}", f"in line {line}")


def _check_mtus(file: TopologyFile, wiring: Wiring, findings: Findings) -> None:
    """The kernel takes IPv6 away from an interface whose MTU is below 1280."""
    noted: set[int] = set()
    for port in wiring.ports:
        mtu = file.links[port.link].mtu
        has_ipv6 = port.addresses is None or any(address.version == 6 for address in port.addresses)
        if mtu < MINIMUM_MTU_IPV6 and has_ipv6 and not port.is_bridge and port.link not in noted:
            noted.add(port.link)
            findings.at_value(
                ("links", port.link, "mtu"),
                f"IPv6 needs an MTU of at least {MINIMUM_MTU_IPV6}, not {mtu}",
                f"raise it, or give {port.node}:{port.name} IPv4 'addresses' only",
            )
