"""Hosts joined by two links, for measurements that compare stacks over the same impairments.

Every pair has links of its own, which are impaired alike and with the same seeds, so that all pairs are
measured in one lab, one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from testbed.errors import LabError
from testbed.host.protocol import ConnectionResult, Role, Workload, WorkloadKind
from testbed.topology.load import load_text
from testbed.topology.problems import ProblemCollector

if TYPE_CHECKING:
    from testbed.host.client import HostClient, RunningWorkload
    from testbed.selftests.clock import Clock
    from testbed.topology.model import Impairment, Link, Node, Topology

STACKS = ("userspace", "kernel")
"""Of both ends: what is measured next to each other."""
LINK_MTU = 1500
_PATIENCE_S = 30.0
_ENDLESS_BYTES = 1 << 40


def two_path_topology(stacks: Sequence[str]) -> Topology:
    """For each stack a client and a server, joined by ``eth0`` and by ``eth1``."""
    nodes = "".join(
        f"  {stack}-client: {{stack: {stack}}}\n  {stack}-server: {{stack: {stack}}}\n" for stack in stacks
    )
    # Something to begin with, so that the links get what impairs them later.
    links = "".join(
        f"  - {{endpoints: [{stack}-client, {stack}-server], impair: delay 1ms}}\n" * 2 for stack in stacks
    )
    text = f"version: 1\nname: two-links\nimpairments: emulator\nnodes:\n{nodes}links:\n{links}"
    return load_text(text, ProblemCollector("two links"))


def impaired(topology: Topology, impairments: Sequence[Impairment]) -> Topology:
    """With these impairments of the links, both directions alike; for labs whose links can't be changed."""
    links = [
        replace(link, forward=impairment, backward=impairment)
        for link, impairment in zip(topology.links, impairments, strict=True)
    ]
    return replace(topology, links=tuple(links))


@dataclass(frozen=True, slots=True)
class Carried:
    """Data that the server's application had, so long after the client had called connect."""

    received_bytes: int
    duration_us: int

    @property
    def mbit_s(self) -> float:
        return self.received_bytes * 8 / self.duration_us


@dataclass(frozen=True, slots=True)
class HostPair:
    """A client, a server, and the links between them."""

    stack: str
    client: HostClient
    server: HostClient
    links: tuple[Link, ...]
    client_addresses: tuple[str, ...]
    addresses: tuple[str, ...]
    """Of the server, like the client's one for each link."""

    def allow_both_paths(self) -> None:
        """The server announces its second address, and the client joins it."""
        self.server.set_limits(1, 0)
        self.client.set_limits(1, 1)
        self.server.add_endpoint(self.addresses[1], flags=("signal",), interface="eth1")

    def start_sending(self, seconds: float) -> Sending:
        """The client connects and sends as fast as it can, for so long at most."""
        workload = Workload(
            WorkloadKind.TRANSFER,
            Role.LISTEN,
            "0.0.0.0",
            0,
            verify=False,
            # whoever has closed its direction takes no more subflows
            hold_open_after=True,
            timeout_us=round((seconds + _PATIENCE_S) * 1e6),
        )
        receiving = self.server.start(workload)
        sending = self.client.start(
            replace(
                workload,
                role=Role.CONNECT,
                address=self.addresses[0],
                port=receiving.port,
                send_bytes=_ENDLESS_BYTES,
            )
        )
        return Sending(sending, receiving)

    def send_for(self, seconds: float, clock: Clock) -> Carried:
        """What the client gets through from its call to connect on.

        Raises LabError for a connection that fails or falls back.
        """
        began_us = clock.now_us()
        sending = self.start_sending(seconds)
        clock.sleep(seconds)
        received_bytes = sending.received_bytes()
        duration_us = clock.now_us() - began_us
        for name, result in zip((self.client.name, self.server.name), sending.stop(), strict=True):
            # the second one to be stopped hears it from the first
            if result.error not in ("stopped", "ECONNRESET"):
                raise LabError(f"{name}: {result.error} ({result.detail})")
            if not result.is_mptcp:
                raise LabError(f"{name}: the connection fell back to TCP")
        return Carried(received_bytes, duration_us)


class Sending:
    """A connection on which the client sends without end."""

    def __init__(self, client: RunningWorkload, server: RunningWorkload) -> None:
        self._client = client
        self._server = server

    def received_bytes(self) -> int:
        """What the server's application has."""
        return self._server.progress().bytes_received

    def stop(self) -> tuple[ConnectionResult, ConnectionResult]:
        """Abort it. Returns what the client and the server say of it."""
        self._server.stop()
        self._client.stop()
        (sent,), (received,) = (each.result(_PATIENCE_S) for each in (self._client, self._server))
        return sent, received


def host_pairs(topology: Topology, hosts: Mapping[str, HostClient]) -> list[HostPair]:
    """Of a lab of :func:`two_path_topology`."""
    pairs = []
    for node in topology.nodes:
        stack, _, position = node.name.partition("-")
        if position != "server":
            continue
        links = tuple(link for link in topology.links if link.second.node == node.name)
        client = topology.node(f"{stack}-client")
        pairs.append(
            HostPair(stack, hosts[client.name], hosts[node.name], links, _addresses(client), _addresses(node))
        )
    return pairs


def _addresses(node: Node) -> tuple[str, ...]:
    return tuple(
        next(str(address.ip) for address in interface.addresses if address.version == 4)
        for interface in node.interfaces
    )
