"""Checks of what nodes say for themselves: stacks, MPTCP settings, routes."""

from __future__ import annotations

from dataclasses import dataclass

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.settings import PATH_MANAGERS, SCHEDULERS, SYSCTL_NAMES, StackSettings, apply_sysctl
from testbed.topology.addressing import Addresses
from testbed.topology.document import DocumentPath
from testbed.topology.findings import Findings
from testbed.topology.model import IpAddress, IpInterface
from testbed.topology.problems import did_you_mean
from testbed.topology.raw import EndpointFile, MptcpFile, NodeFile, RouteFile, TopologyFile

MAXIMUM_ENDPOINTS = 8
"""What the kernel holds per namespace (Linux 6.18)."""


@dataclass(frozen=True, slots=True)
class _Interfaces:
    """A node's interfaces with their addresses, derived ones included."""

    addresses: dict[str, tuple[IpInterface, ...]]

    def owner(self, address: IpAddress) -> str | None:
        for name, addresses in self.addresses.items():
            if any(own.ip == address for own in addresses):
                return name
        return None

    def neighbour_of(self, address: IpAddress) -> str | None:
        """The interface whose subnet ``address`` is in."""
        for name, addresses in self.addresses.items():
            if any(address in own.network for own in addresses):
                return name
        return None


def check_hosts(file: TopologyFile, addresses: Addresses | None, findings: Findings) -> None:
    """``addresses`` of all interfaces, or None where links have problems: they are then not looked at."""
    interfaces: dict[str, dict[str, tuple[IpInterface, ...]]] = {name: {} for name in file.nodes}
    for (owner, interface), own in (addresses or {}).items():
        interfaces[owner][interface] = own
    for name, node in file.nodes.items():
        path: DocumentPath = ("nodes", name)
        _check_kind(node, path, findings)
        _check_stack_settings(node, (*path, "sysctls"), findings)
        own_interfaces = None if addresses is None else _Interfaces(interfaces[name])
        if node.mptcp is not None and node.kind == "host":
            _check_path_manager(node.mptcp, (*path, "mptcp", "path_manager"), findings)
            _check_scheduler(node, (*path, "mptcp", "scheduler"), findings)
            _check_endpoints(node.mptcp, own_interfaces, (*path, "mptcp", "endpoints"), findings)
        for position, route in enumerate(node.routes if not node.is_bridge else ()):
            _check_route(route, own_interfaces, (*path, "routes", position), findings)


def _check_kind(node: NodeFile, path: DocumentPath, findings: Findings) -> None:
    if node.kind != "host":
        for word in ("stack", "mptcp"):
            if getattr(node, word) is not None:
                findings.at_key((*path, word), f"a {node.kind} has no {word!r}", "only hosts have")
    elif node.stack == "tcp" and node.mptcp is not None:
        findings.at_key(
            (*path, "mptcp"), "a host with 'stack: tcp' has no MPTCP", "choose 'userspace' or 'kernel'"
        )
    if node.is_bridge and node.routes:
        findings.at_key((*path, "routes"), f"a {node.kind} has no routes", "only hosts and routers have")


def _check_stack_settings(node: NodeFile, path: DocumentPath, findings: Findings) -> None:
    """Those of the bundled stack are known; those of a kernel are those of the machine that the lab is on."""
    if node.kind != "host" or node.stack not in (None, "userspace"):
        return
    for name, value in node.sysctls.items():
        try:
            apply_sysctl(StackSettings(), name, value)
        except ConfigurationError as error:
            if name in SYSCTL_NAMES:
                findings.at_value((*path, name), str(error))
            else:
                hint = did_you_mean(name, SYSCTL_NAMES)
                findings.at_key((*path, name), f"the bundled stack has no setting {name!r}", hint)


def _check_path_manager(settings: MptcpFile, path: DocumentPath, findings: Findings) -> None:
    name = settings.path_manager
    if name is not None and name not in PATH_MANAGERS:
        hint = did_you_mean(name, PATH_MANAGERS)
        findings.at_value(path, f"no path manager is called {name!r}", hint)


def _check_scheduler(node: NodeFile, path: DocumentPath, findings: Findings) -> None:
    name = node.mptcp.scheduler if node.mptcp is not None else None
    if name is None:
        return
    if name not in SCHEDULERS:
        hint = did_you_mean(name, SCHEDULERS)
        findings.at_value(path, f"no scheduler is called {name!r}", hint)
    elif node.stack == "kernel" and name != "default":
        findings.at_value(path, f"the kernel has no scheduler {name!r}", "only the bundled stack has")


def _check_endpoints(
    settings: MptcpFile, interfaces: _Interfaces | None, path: DocumentPath, findings: Findings
) -> None:
    said = settings.endpoints if isinstance(settings.endpoints, list) else []
    identifiers: set[int] = set()
    for position, endpoint in enumerate(said):
        where = (*path, position)
        _check_endpoint_words(endpoint, where, findings)
        if endpoint.id is not None:
            if endpoint.id in identifiers:
                findings.at_value((*where, "id"), f"endpoint id {endpoint.id} is given twice")
            identifiers.add(endpoint.id)
        if interfaces is not None:
            _check_endpoint_place(endpoint, interfaces, where, findings)
    if interfaces is not None:
        _check_endpoint_addresses(settings, interfaces, path, findings)


def _check_endpoint_words(endpoint: EndpointFile, path: DocumentPath, findings: Findings) -> None:
    """The kernel's rules for flags, and this format's."""
    flags = set(endpoint.flags)
    if len(flags) < len(endpoint.flags):
        findings.at_value((*path, "flags"), "a flag is given twice")
    if endpoint.port is not None and ("signal" not in flags or "subflow" in flags):
        findings.at_value(
            (*path, "port"),
            "'port' needs the flag 'signal' and not 'subflow'",
            "only announced addresses have one",
        )
    if {"signal", "fullmesh"} <= flags:
        findings.at_value(
            (*path, "flags"), "'signal' and 'fullmesh' exclude each other", "the kernel refuses both"
        )
    if endpoint.address is None and endpoint.interface is None:
        findings.at_value(path, "an endpoint needs 'interface' or 'address'")
    if endpoint.address is None and endpoint.id is not None:
        findings.at_value(
            (*path, "id"), "'id' needs 'address'", "an interface has several addresses, an id belongs to one"
        )


def _check_endpoint_place(
    endpoint: EndpointFile, interfaces: _Interfaces, path: DocumentPath, findings: Findings
) -> None:
    if endpoint.interface is not None and endpoint.interface not in interfaces.addresses:
        hint = did_you_mean(endpoint.interface, interfaces.addresses)
        findings.at_value((*path, "interface"), f"the host has no interface {endpoint.interface!r}", hint)
    elif endpoint.address is not None:
        owner = interfaces.owner(endpoint.address)
        if owner is None:
            hint = _known_addresses(interfaces)
            findings.at_value((*path, "address"), f"the host has no address {endpoint.address}", hint)
        elif endpoint.interface not in (None, owner):
            findings.at_value((*path, "interface"), f"{endpoint.address} is an address of {owner!r}")
    elif endpoint.interface is not None and not interfaces.addresses[endpoint.interface]:
        findings.at_value((*path, "interface"), f"{endpoint.interface!r} has no address")


def _check_endpoint_addresses(
    settings: MptcpFile, interfaces: _Interfaces, path: DocumentPath, findings: Findings
) -> None:
    """Each address once, and no more than the kernel holds."""
    addresses: list[tuple[IpAddress, DocumentPath]] = []
    if isinstance(settings.endpoints, list):
        for position, endpoint in enumerate(settings.endpoints):
            own = interfaces.addresses.get(endpoint.interface or "", ())
            chosen = [endpoint.address] if endpoint.address is not None else [address.ip for address in own]
            # The kernel tells endpoints with ports apart by these.
            addresses += [(address, (*path, position)) for address in chosen if endpoint.port is None]
    else:
        further = list(interfaces.addresses.values())[1:]
        addresses = [(address.ip, path) for own in further for address in own]
    seen: set[IpAddress] = set()
    for address, where in addresses:
        if address in seen:
            findings.at_value(where, f"{address} is an endpoint already")
        seen.add(address)
    if len(addresses) > MAXIMUM_ENDPOINTS:
        findings.at_value(path, f"{len(addresses)} endpoints; a host has at most {MAXIMUM_ENDPOINTS}")


def _check_route(
    route: RouteFile, interfaces: _Interfaces | None, path: DocumentPath, findings: Findings
) -> None:
    if route.via is None and route.interface is None:
        findings.at_value(path, "a route needs 'via' or 'interface'")
    versions = {value.version for value in (route.to, route.via, route.source) if value is not None}
    if len(versions) > 1:
        findings.at_value(path, "a route cannot mix IPv4 and IPv6")
    elif not versions:
        findings.at_value(
            (*path, "to"), "'default' of which family?", "write '0.0.0.0/0' or '::/0', or say 'via'"
        )
    if interfaces is None:
        return
    if route.interface is not None and route.interface not in interfaces.addresses:
        hint = did_you_mean(route.interface, interfaces.addresses)
        findings.at_value((*path, "interface"), f"the node has no interface {route.interface!r}", hint)
    elif route.via is not None:
        _check_gateway(route.via, route.interface, interfaces, (*path, "via"), findings)
    if route.source is not None and interfaces.owner(route.source) is None:
        hint = _known_addresses(interfaces)
        findings.at_value((*path, "from"), f"the node has no address {route.source}", hint)


def _check_gateway(
    gateway: IpAddress, interface: str | None, interfaces: _Interfaces, path: DocumentPath, findings: Findings
) -> None:
    owner = interfaces.owner(gateway)
    if owner is not None:
        findings.at_value(path, f"{gateway} is the node's own address", "'via' names the next router's")
        return
    looked_at = interfaces
    if interface is not None:
        looked_at = _Interfaces({interface: interfaces.addresses[interface]})
    if looked_at.neighbour_of(gateway) is None:
        where = f"interface {interface!r}" if interface else "any interface"
        findings.at_value(path, f"{gateway} is not in a subnet of {where}", _known_addresses(looked_at))


def _known_addresses(interfaces: _Interfaces) -> str:
    shown = [str(address) for own in interfaces.addresses.values() for address in own]
    return f"known: {', '.join(shown[:8])}" if shown else "it has none"
