"""Endpoints with ``fullmesh``, of the accepting side, and flushed at once (RFC 8684 §3.2, §3.4)."""

from __future__ import annotations

import pytest

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.wire.addresses import parse_address
from tests.mptcp.network import Network, both_ways, join_all

SIGNAL = frozenset({"signal"})
SUBFLOW = frozenset({"subflow"})
FULLMESH = frozenset({"subflow", "fullmesh"})


def client_address(link: int) -> bytes:
    return parse_address(f"10.0.{link}.2")


def server_address(link: int) -> bytes:
    return parse_address(f"10.0.{link}.1")


@pytest.mark.parametrize(("endpoints", "limit", "joins"), [(1, 5, 3), (2, 5, 5), (2, 4, 4)])
def test_each_endpoint_with_each_address(endpoints: int, limit: int, joins: int) -> None:
    """The initial address is a fullmesh endpoint too; one more address is announced."""
    network = Network(3)
    network.client.path_manager.set_limits(limit, 1)
    network.server.path_manager.set_limits(limit, 2)
    network.server.path_manager.add_endpoint(server_address(2), flags=SIGNAL)
    for link in range(1, 2 + endpoints):
        network.client.path_manager.add_endpoint(client_address(link), flags=FULLMESH)
    near, far = network.establish()
    join_all(network, near, far, 1 + joins)
    both_ways(network, near, far, 100_000)
    assert network.client.counters["MPTcpExtMPJoinSynTx"] == joins
    assert network.server.counters["MPTcpExtMPJoinAckRx"] == joins


@pytest.mark.parametrize(("before", "after"), [(SUBFLOW, {"fullmesh"}), (FULLMESH, set[str]())])
def test_changed_fullmesh_makes_the_subflow_anew(before: frozenset[str], after: set[str]) -> None:
    network = Network(2)
    identifier = network.client.path_manager.add_endpoint(client_address(2), flags=before)
    near, far = network.establish()
    join_all(network, near, far)
    old = near.subflows[1]
    network.client.path_manager.set_flags(identifier, frozenset(after))
    network.simulator.run_until(lambda: old not in near.subflows and len(near.subflows) == 2)
    assert network.client.counters["MPTcpExtMPJoinSynTx"] == 2
    assert network.client.counters["MPTcpExtRmSubflow"] == 1
    assert network.client.counters["MPTcpExtRmAddrTx"] == 0
    join_all(network, near, far)
    both_ways(network, near, far, 10_000)


def test_fullmesh_and_signal_exclude_each_other_in_a_change() -> None:
    manager = Network(2).client.path_manager
    identifier = manager.add_endpoint(client_address(2), flags=SIGNAL)
    with pytest.raises(ConfigurationError, match="exclude each other"):
        manager.set_flags(identifier, frozenset({"fullmesh"}))


def test_accepting_side_misses_what_was_there_before_accept() -> None:
    network = Network(2)
    network.server.path_manager.add_endpoint(server_address(2), flags=SUBFLOW)
    near, far = network.establish()
    both_ways(network, near, far, 10_000)
    assert network.server.counters["MPTcpExtMPJoinSynTxCreatSkErr"] == 1
    assert network.server.counters["MPTcpExtMPJoinSynTx"] == 0


def test_flush_withdraws_all_at_once() -> None:
    network = Network(3)
    network.client.path_manager.set_limits(2, 2)
    for link in (2, 3):
        network.server.path_manager.add_endpoint(server_address(link), flags=SIGNAL)
    near, far = network.establish()
    join_all(network, near, far, 3)
    network.server.path_manager.flush_endpoints()
    network.simulator.run_until(lambda: len(near.subflows) == len(far.subflows) == 1)
    assert network.server.counters["MPTcpExtRmAddrTx"] == network.client.counters["MPTcpExtRmAddr"] == 2
    assert network.server.counters["MPTcpExtRmSubflow"] == 2
    both_ways(network, near, far, 10_000)
