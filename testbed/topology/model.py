"""The resolved topology: everything explicit, nothing left to guess. Backends build exactly this.

``load`` reads a file, ``check`` finds its problems, ``resolve`` derives what it does not say and returns a
:class:`Topology`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Literal

from mptcp_stack.device.link_model import FourStates, GilbertElliott, Slot
from testbed.middlebox.settings import BoxSettings

IpAddress = IPv4Address | IPv6Address
IpInterface = IPv4Interface | IPv6Interface
IpNetwork = IPv4Network | IPv6Network


class Realisation(StrEnum):
    """What impairs the links of a lab."""

    AUTO = "auto"
    """netem where the kernel has it, else the emulator; for a rate alone the kernel's token bucket."""
    EMULATOR = "emulator"
    """A process of the testbed that forwards frames under the link model."""
    NETEM = "netem"
    """The kernel's netem."""


class NodeKind(StrEnum):
    HOST = "host"
    ROUTER = "router"
    SWITCH = "switch"
    MIDDLEBOX = "middlebox"


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
    """A namespace: a host, a router (forwards), or a switch (a bridge that joins its interfaces).

    A middlebox is a bridge of two; what it does to packets is among the boxes of its first link.
    """

    name: str
    kind: NodeKind
    stack: StackKind | None = None
    """Set for hosts only."""
    interfaces: tuple[Interface, ...] = ()
    routes: tuple[Route, ...] = ()
    mptcp: MptcpSettings = MptcpSettings()
    sysctls: tuple[tuple[str, str], ...] = ()
    """Kernel settings in the node's namespace, e.g. ``("net.mptcp.checksum_enabled", "1")``."""

    @property
    def is_bridge(self) -> bool:
        """Whether it passes frames on, and has no addresses."""
        return self.kind in (NodeKind.SWITCH, NodeKind.MIDDLEBOX)

    def interface(self, name: str) -> Interface:
        """Raises KeyError for a name that the node has not."""
        for interface in self.interfaces:
            if interface.name == name:
                return interface
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Impairment:
    """What a link does to packets in one direction, in tc-netem's words.

    :class:`mptcp_stack.device.link_model.LinkSettings` says what each of them means.
    """

    rate_bit_s: int | None = None
    packet_overhead_bytes: int = 0
    cell_bytes: int = 0
    cell_overhead_bytes: int = 0
    limit_packets: int | None = None
    limit_bytes: int | None = None
    """Of the queue. None for both: as much as suits the rate."""
    delay_us: int = 0
    jitter_us: int = 0
    delay_correlation: float = 0.0
    distribution: str = "uniform"
    loss: float = 0.0
    loss_correlation: float = 0.0
    loss_model: GilbertElliott | FourStates | None = None
    duplicate: float = 0.0
    duplicate_correlation: float = 0.0
    corrupt: float = 0.0
    corrupt_correlation: float = 0.0
    reorder: float = 0.0
    reorder_correlation: float = 0.0
    gap: int = 1
    slot: Slot | None = None
    seed: int | None = None
    """Of this direction's randomness; None: derived from the lab's seed."""

    @property
    def is_nothing(self) -> bool:
        return self == Impairment(seed=self.seed)

    @property
    def is_rate_only(self) -> bool:
        """Whether a token bucket is all that it takes."""
        return self == Impairment(rate_bit_s=self.rate_bit_s, seed=self.seed)


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
    middlebox: tuple[BoxSettings, ...] = ()
    """What changes or drops its packets, the first of them nearest to ``first``."""
    is_emulated: bool = False
    """Whether an emulator is in its middle even where nothing is asked of it yet."""
    built_as: str = ""
    """The first end that it had when the lab was built, where a cable has been plugged in elsewhere since."""


@dataclass(frozen=True, slots=True)
class LinkSet:
    """A link is cut, or mended, at one of its ends."""

    at_us: int
    """Since the lab began to run, as with every event."""
    end: LinkEnd
    up: bool
    kind: Literal["set"] = "set"


@dataclass(frozen=True, slots=True)
class LinkImpaired:
    """Other impairments take the place of those in force; None leaves a direction as it is."""

    at_us: int
    end: LinkEnd
    forward: Impairment | None
    backward: Impairment | None
    kind: Literal["impair"] = "impair"


@dataclass(frozen=True, slots=True)
class BoxesChanged:
    """Other boxes take the place of those on a link; none are all switched off."""

    at_us: int
    end: LinkEnd
    boxes: tuple[BoxSettings, ...]
    kind: Literal["middlebox"] = "middlebox"


@dataclass(frozen=True, slots=True)
class AddressAdded:
    at_us: int
    end: LinkEnd
    address: IpInterface
    kind: Literal["add_address"] = "add_address"


@dataclass(frozen=True, slots=True)
class AddressRemoved:
    at_us: int
    end: LinkEnd
    address: IpAddress
    kind: Literal["remove_address"] = "remove_address"


@dataclass(frozen=True, slots=True)
class Moved:
    """The cable of an interface is plugged into another switch."""

    at_us: int
    end: LinkEnd
    switch: str
    addresses: tuple[IpInterface, ...] | None = None
    """What the interface has there; None: the lowest free ones."""
    kind: Literal["move_to"] = "move_to"


Event = LinkSet | LinkImpaired | BoxesChanged | AddressAdded | AddressRemoved | Moved


@dataclass(frozen=True, slots=True)
class Topology:
    name: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    source: Path | None = None
    """The file that it came from."""
    impairments: Realisation = Realisation.AUTO
    """What is to impair its links."""
    events: tuple[Event, ...] = ()
    """What happens while it runs, in the order of their times."""
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
