"""A connection from end to end in virtual time: handshake, data, close."""

from __future__ import annotations

import pytest

from tests.mptcp.network import Network, both_ways

FALLBACKS = [
    "MPTcpExtMPCapableFallbackACK",
    "MPTcpExtMPCapableFallbackSYNACK",
    "MPTcpExtMPCapableDataFallback",
    "MPTcpExtDssFallback",
    "MPTcpExtSimultConnectFallback",
    "MPTcpExtFallbackFailed",
]


@pytest.mark.parametrize("address", ["10.0.1.1", "fd00:1::1", "::ffff:10.0.1.1"])
@pytest.mark.parametrize("length", [0, 1, 1420, 100_000, 3_000_000])
def test_data_is_intact_both_ways(address: str, length: int) -> None:
    network = Network()
    near, far = network.establish(address)
    assert near.is_mptcp
    assert far.is_mptcp
    both_ways(network, near, far, length)
    client, server = network.client.counters, network.server.counters
    assert client["MPTcpExtMPCapableSYNTX"] == client["MPTcpExtMPCapableSYNACKRX"] == 1
    assert server["MPTcpExtMPCapableSYNRX"] == server["MPTcpExtMPCapableACKRX"] == 1
    for counters in (client, server):
        assert {name: counters[name] for name in FALLBACKS} == dict.fromkeys(FALLBACKS, 0)
        assert counters["MPTcpExtMPCurrEstab"] == counters["TcpCurrEstab"] == 0
        assert counters["TcpOutRsts"] == 0
