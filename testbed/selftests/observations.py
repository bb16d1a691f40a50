"""What was seen of a run beside its verdict: when what happened, what was carried, and over which network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from testbed.host.protocol import TrafficSeries
from testbed.topology.impairments import impairment_text
from testbed.topology.model import LinkEnd, Topology


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """Something that the case did or waited for."""

    at_us: int
    """Since the case began."""
    text: str


@dataclass(frozen=True, slots=True)
class TransferRecord:
    """How one end of a connection saw its data."""

    host: str
    local: str
    """As "address port", like ``remote``; empty for a connection that never came to be."""
    remote: str
    bytes_sent: int
    bytes_received: int
    duration_us: int
    is_mptcp: bool
    error: str = ""
    traffic: TrafficSeries | None = None
    """Its times are since the case began."""

    @property
    def delivery_us(self) -> int:
        """Until the last byte had arrived here, as far as samples tell; else the whole time."""
        traffic = self.traffic
        if traffic is None or not traffic.times_us:
            return self.duration_us
        arrived = (
            time_us
            for time_us, received in zip(traffic.times_us, traffic.received, strict=True)
            if received >= self.bytes_received
        )
        return next(arrived, traffic.times_us[-1]) - traffic.times_us[0]


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node of the run's topology."""

    name: str
    kind: str
    stack: str
    interfaces: tuple[tuple[str, tuple[str, ...]], ...]
    """Name and addresses of each."""


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """A link of the run's topology, with what was asked of it in each direction; empty for nothing."""

    first: str
    second: str
    forward: str = ""
    backward: str = ""
    realised_forward: str = ""
    """What enforced it, and where; empty where nothing was asked."""
    realised_backward: str = ""
    achieved_forward: dict[str, int] = field(default_factory=dict)
    """What became of the packets, by the names of what counted them; zeros are left out."""
    achieved_backward: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopologyRecord:
    """The network of a run."""

    name: str
    nodes: tuple[NodeRecord, ...]
    links: tuple[LinkRecord, ...]


Realised = dict[LinkEnd, str]
"""Sending end → what impairs what it sends."""


Achieved = Mapping[LinkEnd, Mapping[str, int]]
"""Sending end → what became of the packets of that direction, by the names of what counted them."""


def topology_record(topology: Topology, realised: Realised, achieved: Achieved) -> TopologyRecord:
    """A topology as records keep it."""
    return TopologyRecord(
        topology.name,
        tuple(
            NodeRecord(
                node.name,
                str(node.kind),
                str(node.stack or ""),
                tuple(
                    (interface.name, tuple(str(address) for address in interface.addresses))
                    for interface in node.interfaces
                ),
            )
            for node in topology.nodes
        ),
        tuple(
            LinkRecord(
                str(link.first),
                str(link.second),
                impairment_text(link.forward),
                impairment_text(link.backward),
                realised.get(link.first, ""),
                realised.get(link.second, ""),
                _counted(achieved.get(link.first, {})),
                _counted(achieved.get(link.second, {})),
            )
            for link in topology.links
        ),
    )


def _counted(counters: Mapping[str, int]) -> dict[str, int]:
    return {name: value for name, value in counters.items() if value}
