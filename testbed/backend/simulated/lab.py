"""A lab in virtual time, built from a resolved topology."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from types import TracebackType
from typing import Self

from mptcp_stack.device.capture import Direction
from mptcp_stack.device.in_memory import Wire
from mptcp_stack.ip.interface import Interface, InterfaceAddress, LinkType
from mptcp_stack.ip.routing import Route
from mptcp_stack.simulator import Link as SimulatedLink
from mptcp_stack.simulator import Simulator
from mptcp_stack.wire.frame import Frame
from testbed.backend.agents import host_configuration
from testbed.backend.impaired_links import Built, ImpairedLink, direction_seed
from testbed.backend.link_control import FORWARD, LinkControl
from testbed.backend.reconfiguration import Replugging, network_change, node_changes, repluggings
from testbed.backend.simulated.clock import VirtualClock
from testbed.backend.simulated.event_loop import VirtualTimeLoop
from testbed.backend.simulated.forwarding import Router, Switch
from testbed.backend.simulated.hosts import SimulatedClient, simulated_host
from testbed.backend.simulated.links import SimulatedRealiser, wire_settings
from testbed.backend.simulated.packet_filter import PacketFilter
from testbed.errors import CapabilityError, LabError, UsageError
from testbed.host.host_stack import HostStackError
from testbed.host.userspace_set_up import change_network
from testbed.middlebox.settings import BoxCounters, BoxSettings, Nat44, Nat66
from testbed.topology.model import Impairment, Link, LinkEnd, Node, NodeKind, StackKind, Topology
from testbed.topology.model import Interface as TopologyInterface


class SimulatedLab:
    """Hosts by name in ``hosts``; what can be done to the network between them. Close it after use."""

    def __init__(self, topology: Topology, seed: int) -> None:
        """Raises CapabilityError for hosts that only a kernel can be, LabError for what a host refuses."""
        self.topology = topology
        self.simulator = Simulator(seed)
        self.loop = VirtualTimeLoop(self.simulator)
        self.clock = VirtualClock(self.simulator, self.loop)
        self.hosts: dict[str, SimulatedClient] = {}
        self._seed = seed
        self._interfaces: dict[LinkEnd, Interface] = {}
        self._links: dict[LinkEnd, SimulatedLink] = {}
        self._carried: dict[tuple[str, str], int] = {}
        self._switches: dict[str, Switch] = {}
        self._routers: dict[str, Router] = {}
        self._neighbours = _stations(topology)
        try:
            for node in topology.nodes:
                self._add_node(node)
        except HostStackError as error:
            raise LabError(str(error)) from None
        for link in topology.links:
            added = self.simulator.link(
                link.first.node,
                self._interfaces[link.first],
                link.second.node,
                self._interfaces[link.second],
                wire_settings(link.forward, link.mtu),
                wire_settings(link.backward, link.mtu),
            )
            self._links[link.first] = self._links[link.second] = added
        self.simulator.add_tap(self._count)
        self._realiser = SimulatedRealiser(self._links, self.simulator, self._seed_of, self._learn_neighbours)
        for link in topology.links:
            if link.middlebox:
                self.links.put_boxes(link, link.middlebox)

    @property
    def links(self) -> LinkControl:
        """What the links do to packets, and how to change it."""
        topology = self.topology
        every = tuple(ImpairedLink(link, link.first, link.second) for link in topology.links)
        return LinkControl(Built(topology, every), topology.links, tuple, _no_rate, self._realiser)

    def _seed_of(self, link: Link) -> int:
        return direction_seed(self._seed, link.built_as or str(link.first), FORWARD)

    def _learn_neighbours(self) -> None:
        """Routers ask nobody: they know who has which address, and who is behind a translator's."""
        self._neighbours.clear()
        self._neighbours.update(_stations(self.topology))
        for link in self.topology.links:
            for box in self._realiser.boxes_on(link):
                if isinstance(box, Nat44 | Nat66):
                    inside = link.first if box.direction == FORWARD else link.second
                    described = self.topology.node(inside.node).interface(inside.interface)
                    self._neighbours[ip_address(box.address).packed] = _mac(described)

    def reconfigure(self, topology: Topology) -> None:
        """Make of this lab's topology another one: see :mod:`testbed.topology.changes`."""
        before, self.topology = self.topology, topology
        for replugging in repluggings(before, topology):
            self._replug(replugging)
        self._learn_neighbours()
        for change in node_changes(before, topology):
            node = change.after.name
            if node in self.hosts:
                self.hosts[node].host.change_network(network_change(change))
            else:
                change_network(self._routers[node].ip, network_change(change))

    def _replug(self, replugging: Replugging) -> None:
        old, new = replugging.old, replugging.new
        switch = self._switches[new.node]
        if new not in self._interfaces:
            described = self.topology.node(new.node).interface(new.interface)
            self._interfaces[new] = switch.add_port(described.name, _mac(described), described.mtu)
        link = self._links.pop(old)
        self.simulator.replug(link.name, self._interfaces[old], new.node, self._interfaces[new])
        self._links[new] = link
        self._switches[old.node].unplugged(self._interfaces[old])

    def set_link(self, node: str, interface: str, up: bool) -> None:
        """Cut a link, or mend it: packets on their way are lost. Raises UsageError for an unknown end."""
        self._link(node, interface).set_up(up)

    def impair(
        self, node: str, interface: str, words: Mapping[str, str], *, sent: bool, received: bool
    ) -> None:
        """Raises UsageError."""
        self.links.change_at(f"{node}:{interface}", words, sent=sent, received=received)

    def put_impairments(
        self, node: str, interface: str, forward: Impairment | None, backward: Impairment | None
    ) -> None:
        """Raises UsageError."""
        self.links.put_at(f"{node}:{interface}", forward, backward)

    def set_middlebox(self, node: str, interface: str, boxes: Sequence[BoxSettings]) -> None:
        """Raises UsageError for an unknown link."""
        self.links.put_boxes(self.links.link_at(f"{node}:{interface}"), boxes)

    def box_counters(self) -> Mapping[LinkEnd, Sequence[BoxCounters]]:
        """See :class:`testbed.backend.link_control.LinkControl`."""
        return self.links.box_counters()

    def schedule(self, delay_s: float, action: Callable[[], None]) -> None:
        """While time passes in the simulation."""
        self.loop.call_later(delay_s, action)

    def interface_bytes(self, node: str, interface: str) -> tuple[int, int]:
        """Received and transmitted bytes. Raises UsageError for an unknown interface."""
        (outgoing, _), (incoming, _) = self.wires(LinkEnd(node, interface))
        return (
            self._carried.get((incoming.name, "delivered"), 0),
            self._carried.get((outgoing.name, "sent"), 0),
        )

    def filter(self, router: str, rules: Sequence[str], hook: str) -> None:
        """What it knows of nftables' words. Raises CapabilityError for others."""
        self._routers[router].packet_filter = PacketFilter(rules, hook) if rules else None

    def filtered(self, node: str) -> list[int]:
        """Raises CapabilityError: the filters of simulated routers do not count."""
        raise CapabilityError("no counters of packet filters in virtual time")

    def intercept(self, host: str, port: int) -> None:
        """Nothing: a transparent listener of the bundled stack needs no more."""

    def wires(self, end: LinkEnd) -> tuple[tuple[Wire, Direction], tuple[Wire, Direction]]:
        """Both directions of the link at ``end``, as seen from there; UsageError for an unknown end."""
        link = self._link(end.node, end.interface)
        outgoing, incoming = link.forward, link.backward
        if end in {each.second for each in self.topology.links}:
            outgoing, incoming = incoming, outgoing
        return (outgoing, Direction.OUTBOUND), (incoming, Direction.INBOUND)

    def close(self) -> None:
        """End every workload and the event loop."""
        for host in self.hosts.values():
            host.close()
        self.loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _add_node(self, node: Node) -> None:
        match node.kind:
            case NodeKind.HOST:
                self._add_host(node)
            case NodeKind.ROUTER:
                self._add_router(node)
            case NodeKind.SWITCH | NodeKind.MIDDLEBOX:
                self._add_switch(node)

    def _add_host(self, node: Node) -> None:
        if node.stack is not StackKind.USERSPACE:
            raise CapabilityError(f"{node.name}: no {node.stack} stack in virtual time, only userspace")
        host = simulated_host(host_configuration(node, self._seed), self.simulator)
        for interface in host.stack.ip.interfaces:
            self._interfaces[LinkEnd(node.name, interface.name)] = interface
        self.hosts[node.name] = SimulatedClient(host, node.name, self.loop)

    def _add_router(self, node: Node) -> None:
        router = self._routers[node.name] = Router(self._neighbours)
        for described in node.interfaces:
            self._interfaces[LinkEnd(node.name, described.name)] = router.ip.add_interface(
                described.name,
                link_type=LinkType.ETHERNET,
                mac=_mac(described),
                mtu=described.mtu,
                addresses=[
                    InterfaceAddress(address.ip.packed, address.network.prefixlen)
                    for address in described.addresses
                ],
            )
        for route in node.routes:
            router.ip.routes.add(
                Route(
                    route.destination.network_address.packed,
                    route.destination.prefixlen,
                    router.ip.interface(route.interface),
                    gateway=route.gateway.packed if route.gateway is not None else None,
                    source=route.source.packed if route.source is not None else None,
                    metric=route.metric,
                )
            )
        self.simulator.add_stack(node.name, router)

    def _add_switch(self, node: Node) -> None:
        switch = self._switches[node.name] = Switch()
        for described in node.interfaces:
            port = switch.add_port(described.name, _mac(described), described.mtu)
            self._interfaces[LinkEnd(node.name, described.name)] = port
        self.simulator.add_stack(node.name, switch)

    def _link(self, node: str, interface: str) -> SimulatedLink:
        end = LinkEnd(node, interface)
        if end not in self._links:
            ends = ", ".join(map(str, self._links))
            raise UsageError(f"this lab has no link at {end} (there are {ends})")
        return self._links[end]

    def _count(self, _now_us: int, wire: str, direction: str, frame: Frame) -> None:
        key = (wire, direction)
        self._carried[key] = self._carried.get(key, 0) + len(frame)


def _stations(topology: Topology) -> dict[bytes, bytes]:
    """Packed address → MAC address of every interface."""
    return {
        address.ip.packed: _mac(interface)
        for node in topology.nodes
        for interface in node.interfaces
        for address in interface.addresses
    }


def _no_rate(node: str, interface: str, rate_bit_s: int) -> None:
    raise AssertionError("every link of a simulation is changed as a whole")


def _mac(interface: TopologyInterface) -> bytes:
    return bytes.fromhex(interface.mac.replace(":", ""))
