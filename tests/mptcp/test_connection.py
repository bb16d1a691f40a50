"""A connection from end to end in virtual time: handshake, data, close."""

from __future__ import annotations

import pytest

from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.wire.addresses import parse_address
from tests.mptcp.network import Network, both_ways

PORT_OF_MAPPED = 9

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


def test_listener_on_a_mapped_address_takes_ipv4_into_ipv6_sockets() -> None:
    network = Network()
    listener = network.server.listen(parse_address("::ffff:10.0.1.1"), PORT_OF_MAPPED)
    near = network.client.connect(parse_address("10.0.1.1"), PORT_OF_MAPPED)
    network.simulator.run_until(lambda: near.is_established)
    accepted: list[Connection] = []

    def has_accepted() -> bool:
        connection = listener.accept()
        if connection is not None:
            accepted.append(connection)
        return bool(accepted)

    network.simulator.run_until(has_accepted)
    assert accepted[0].is_ipv6_socket
