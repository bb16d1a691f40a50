"""Endpoints with ``laminar``: one for each address that the peer announces, not what routes choose."""

from __future__ import annotations

import pytest

from mptcp_stack.wire.addresses import parse_address
from tests.mptcp.network import Network, both_ways, join_all

SIGNAL = frozenset({"signal"})


def joined_from(laminar: list[str], announced: int) -> tuple[Network, list[bytes]]:
    """The server announces its second and further addresses; where the client joins them from."""
    network = Network(4)
    network.client.path_manager.set_limits(4, 4)
    network.server.path_manager.set_limits(4, 0)
    for link in range(2, 2 + announced):
        network.server.path_manager.add_endpoint(parse_address(f"10.0.{link}.1"), flags=SIGNAL)
    for address in laminar:
        network.client.path_manager.add_endpoint(parse_address(address), flags=frozenset({"laminar"}))
    near, far = network.establish()
    join_all(network, near, far, 1 + min(len(laminar), announced))
    sources = [subflow.local for subflow in near.subflows[1:]]
    both_ways(network, near, far, 100_000)
    return network, sources


@pytest.mark.parametrize(
    ("laminar", "announced", "sources"),
    [
        (["10.0.3.2"], 1, ["10.0.3.2"]),
        (["10.0.3.2", "10.0.4.2"], 2, ["10.0.3.2", "10.0.4.2"]),
        (["10.0.3.2"], 2, ["10.0.3.2"]),
    ],
)
def test_each_serves_one_address(laminar: list[str], announced: int, sources: list[str]) -> None:
    network, joined = joined_from(laminar, announced)
    assert joined == [parse_address(each) for each in sources]
    assert network.client.counters["MPTcpExtMPJoinSynTx"] == len(sources)


def test_that_of_the_first_subflow_is_in_use_already() -> None:
    network = Network(2)
    network.client.path_manager.set_limits(2, 2)
    network.server.path_manager.add_endpoint(parse_address("10.0.2.1"), flags=SIGNAL)
    network.client.path_manager.add_endpoint(parse_address("10.0.1.2"), flags=frozenset({"laminar"}))
    near, far = network.establish()
    both_ways(network, near, far, 100_000)
    assert network.client.counters["MPTcpExtEchoAddTx"] == 1
    assert network.client.counters["MPTcpExtMPJoinSynTx"] == 0


def test_the_other_family_is_no_use() -> None:
    network = Network(2)
    network.client.path_manager.set_limits(2, 2)
    network.server.path_manager.add_endpoint(parse_address("10.0.2.1"), flags=SIGNAL)
    network.client.path_manager.add_endpoint(parse_address("fd00::2"), flags=frozenset({"laminar"}))
    near, far = network.establish()
    both_ways(network, near, far, 100_000)
    assert network.client.counters["MPTcpExtEchoAddTx"] == 1
    assert network.client.counters["MPTcpExtMPJoinSynTx"] == 0
