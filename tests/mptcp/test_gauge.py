"""The gauge MPCurrEstab counts sockets of MPTCP, those that fell back included, and none of plain TCP."""

from __future__ import annotations

import pytest

from tests.mptcp.network import Network, close_both


@pytest.mark.parametrize(
    ("client", "server", "counted"),
    [("mptcp", "mptcp", (1, 1)), ("mptcp", "tcp", (1, 0)), ("tcp", "mptcp", (0, 0)), ("tcp", "tcp", (0, 0))],
)
def test_what_is_counted(client: str, server: str, counted: tuple[int, int]) -> None:
    network = Network()
    near, far = network.establish(client=client, server=server)
    hosts = network.client, network.server
    assert tuple(host.counters["MPTcpExtMPCurrEstab"] for host in hosts) == counted
    close_both(network, near, far)
    assert [host.counters["MPTcpExtMPCurrEstab"] for host in hosts] == [0, 0]
