"""Boxes between simulated hosts: what they do to connections."""

from __future__ import annotations

from mptcp_stack.device.in_memory import WireCounters
from testbed.backend.simulated.lab import SimulatedLab
from testbed.host.protocol import Role, Workload, WorkloadKind
from testbed.topology.load import load_topology
from testbed.topology.model import LinkEnd

SIZE = 1 << 20


def test_an_infinite_mapping_fits_into_its_packet() -> None:
    """After a wrong checksum the data goes on, behind one segment that says so and is not too long."""
    boxed = {"middlebox": 'rewrite: {after_bytes: 100000, direction: "->"}', "checksums": "1"}
    with SimulatedLab(load_topology("one-path", boxed), seed=1) as lab:
        listening = Workload(WorkloadKind.TRANSFER, Role.LISTEN, "::", 0, send_bytes=0)
        listener = lab.hosts["server"].start(listening)
        connecting = Workload(
            WorkloadKind.TRANSFER, Role.CONNECT, "10.0.2.2", listener.port, send_bytes=SIZE, send_seed=2
        )
        connector = lab.hosts["client"].start(connecting)
        (sent,), (received,) = connector.result(30.0), listener.result(30.0)
        (outgoing, _), _ = lab.wires(LinkEnd("client", "eth0"))
        assert isinstance(outgoing.counters, WireCounters)
        assert outgoing.counters.oversized == 0
        assert lab.hosts["client"].counters()["MPTcpExtInfiniteMapTx"] == 1
        assert lab.hosts["server"].counters()["MPTcpExtInfiniteMapRx"] == 1
    assert (sent.error, received.error, received.bytes_received) == (None, None, SIZE)
    assert sent.sha256_sent != received.sha256_received
