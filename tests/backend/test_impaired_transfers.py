"""Both kinds of host, on both sides, over the links of a phone: MPTCP on two impaired paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.backend.namespaces import NamespaceBackend
from testbed.host.protocol import Role, Workload, WorkloadKind
from testbed.topology import load_topology

pytestmark = [pytest.mark.root, pytest.mark.kernel]

BYTES = 1_500_000
UPLOAD_BYTES = 1_500_000
"""So long that the client is still sending when it joins: nobody joins a connection that is being closed."""


@pytest.mark.parametrize("client_stack", ["userspace", "kernel"])
@pytest.mark.parametrize("server_stack", ["userspace", "kernel"])
def test_a_phone_downloads_over_both_paths(lab_name: str, client_stack: str, server_stack: str) -> None:
    if not Path("/proc/sys/net/mptcp").exists():
        pytest.skip("this kernel has no MPTCP")
    stacks = {"client_stack": client_stack, "server_stack": server_stack}
    backend = NamespaceBackend()
    with backend.up(load_topology("wifi-and-lte", stacks), lab_name, seed=1) as lab:
        client, server = lab.host("client"), lab.host("server")
        for host in (client, server):
            host.set_limits(subflows=2, add_addr_accepted=2)
        second = lab.topology.node("client").interface("wwan0").addresses[0]
        client.add_endpoint(str(second.ip), flags=("subflow",), interface="wwan0")
        listening = server.start(
            Workload(WorkloadKind.TRANSFER, Role.LISTEN, "0.0.0.0", 0, send_bytes=BYTES, send_seed=2)
        )
        address = lab.topology.node("server").interface("eth0").addresses[0].ip
        connecting = client.start(
            Workload(
                WorkloadKind.TRANSFER, Role.CONNECT, str(address), listening.port, send_bytes=UPLOAD_BYTES
            )
        )
        (received,), (sent,) = connecting.result(), listening.result()
        assert (received.error, sent.error) == (None, None)
        assert received.bytes_received == BYTES
        assert received.sha256_received == sent.sha256_sent
        assert received.is_mptcp
        assert sent.is_mptcp
        counters = client.counters()
        assert counters["MPTcpExtMPJoinSynAckRx"] == 1
        # Both links down together carry 65 mbit/s.
        assert received.duration_us > 8 * BYTES / 65
    backend.close()
