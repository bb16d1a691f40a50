"""The resolved topology: everything explicit, nothing left to guess. Backends build exactly this.

``load`` reads a file, ``check`` finds its problems, ``resolve`` derives what it does not say and returns a
:class:`Topology`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path

IpAddress = IPv4Address | IPv6Address
IpInterface = IPv4Interface | IPv6Interface
IpNetwork = IPv4Network | IPv6Network


class NodeKind(StrEnum):
    HOST = "host"
    ROUTER = "router"
    SWITCH = "switch"


class StackKind(StrEnum):
    """What a host speaks."""

    USERSPACE = "userspace"
    """The bundled stack; the kernel holds no address of this host."""
    KERNEL = "kernel"
    """The kernel's own MPTCP."""
    TCP = "tcp"
    """The kernel's TCP with ``net.mptcp.enabled=0``: a host that has never heard of MPTCP."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One end of a link, in its node's namespace."""

    name: str
    mac: str
    mtu: int
    addresses: tuple[IpInterface, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """A route of one node. With ``source`` it applies to packets from that address only (policy routing)."""

    destination: IpNetwork
    interface: str
    gateway: IpAddress | None = None
    source: IpAddress | None = None
    metric: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What ``ip mptcp endpoint add`` takes. ``flags`` ⊆ {signal, subflow, backup, fullmesh}."""

    address: IpAddress
    flags: frozenset[str]
    interface: str | None = None
    identifier: int | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class MptcpSettings:
    """What ``ip mptcp limits set`` takes, and the endpoints. Defaults are the kernel's."""

    subflows_limit: int = 2
    add_addr_accepted_limit: int = 0
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A namespace: a host, a router (forwards), or a switch (a bridge that joins its interfaces)."""

    name: str
    kind: NodeKind
    stack: StackKind | None = None
    """Set for hosts only."""
    interfaces: tuple[Interface, ...] = ()
    routes: tuple[Route, ...] = ()
    mptcp: MptcpSettings = MptcpSettings()
    sysctls: tuple[tuple[str, str], ...] = ()
    """Kernel settings in the node's namespace, e.g. ``("net.mptcp.checksum_enabled", "1")``."""

    def interface(self, name: str) -> Interface:
        """Raises KeyError for a name that the node has not."""
        for interface in self.interfaces:
            if interface.name == name:
                return interface
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Impairment:
    """What a link does to packets in one direction. Only ``rate`` can be realised so far."""

    rate_bit_s: int | None = None


@dataclass(frozen=True, slots=True)
class LinkEnd:
    node: str
    interface: str

    def __str__(self) -> str:
        return f"{self.node}:{self.interface}"


@dataclass(frozen=True, slots=True)
class Link:
    """A veth pair. ``forward`` impairs packets from ``first`` to ``second``, ``backward`` the others."""

    first: LinkEnd
    second: LinkEnd
    mtu: int = 1500
    forward: Impairment = Impairment()
    backward: Impairment = Impairment()


@dataclass(frozen=True, slots=True)
class Topology:
    name: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    source: Path | None = None
    """The file that it came from."""
    node_by_name: dict[str, Node] = field(
        init=False, repr=False, compare=False, hash=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        self.node_by_name.update({node.name: node for node in self.nodes})

    def node(self, name: str) -> Node:
        """Raises KeyError for an unknown name."""
        return self.node_by_name[name]

    def hosts(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.kind is NodeKind.HOST)
