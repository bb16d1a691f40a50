"""Endpoints with a port (RFC 8684 §3.4.1) between two stacks of ours; see also packets/mptcp/subflows."""

from __future__ import annotations

import pytest

from mptcp_stack.errors import ConfigurationError
from tests.mptcp.network import PORT, Network, Transfer, join_all
from tests.mptcp.test_joins import SIGNAL, server_address

JOIN_PORT = 10100


@pytest.mark.parametrize(("link", "joins"), [(1, 1), (2, 1)])
def test_announced_port_is_joined(link: int, joins: int) -> None:
    """Also at the address that the connection has already: that is another end."""
    network = Network(2)
    network.client.path_manager.set_limits(2, 2)
    network.server.path_manager.add_endpoint(server_address(4, link), flags=SIGNAL, port=JOIN_PORT)
    near, far = network.establish()
    join_all(network, near, far, subflows=1 + joins)
    assert (near.subflows[1].remote, near.subflows[1].remote_port) == (server_address(4, link), JOIN_PORT)
    transfer = Transfer(near, far, 300_000).without_shutdown()
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()
    counters = network.server.counters
    assert [counters[f"MPTcpExtMPJoinPort{name}Rx"] for name in ("Syn", "Ack")] == [joins, joins]
    assert network.client.counters["MPTcpExtMPJoinPortSynAckRx"] == joins
    assert network.client.counters["MPTcpExtPortAdd"] == 1


def test_port_is_free_again_after_its_endpoint() -> None:
    network = Network()
    manager = network.server.path_manager
    first = manager.add_endpoint(server_address(4, 1), flags=SIGNAL, port=JOIN_PORT)
    manager.delete_endpoint(first)
    manager.add_endpoint(server_address(4, 1), flags=SIGNAL, port=JOIN_PORT)
    manager.flush_endpoints()
    network.server.listen(server_address(4, 1), JOIN_PORT)


def test_port_of_removed_endpoint_takes_no_join() -> None:
    """The client joins late: by then nobody listens, and the connection goes on."""
    network = Network(2)
    network.client.path_manager.set_limits(2, 2)
    manager = network.server.path_manager
    endpoint = manager.add_endpoint(server_address(4, 2), flags=SIGNAL, port=JOIN_PORT)
    near, far = network.establish()
    network.simulator.run_until(lambda: network.client.counters["MPTcpExtMPJoinSynTx"] == 1)
    manager.delete_endpoint(endpoint)
    network.simulator.run_for(2_000_000)
    assert len(near.subflows) == len(far.subflows) == 1
    assert network.server.counters["MPTcpExtMPJoinSynRx"] == 0
    transfer = Transfer(near, far, 1000).without_shutdown()
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()


@pytest.mark.parametrize(
    ("flags", "port", "problem"),
    [
        ({"signal"}, 0, "1 to 65535"),
        ({"signal", "subflow"}, JOIN_PORT, "excludes subflow"),
        (set(), JOIN_PORT, "needs the flag signal"),
        ({"signal"}, PORT, "the port is taken"),
    ],
)
def test_bad_ports_are_refused(flags: set[str], port: int, problem: str) -> None:
    network = Network()
    network.server.listen(server_address(4, 1), PORT)
    with pytest.raises(ConfigurationError, match=problem):
        network.server.path_manager.add_endpoint(server_address(4, 1), flags=frozenset(flags), port=port)
    assert network.server.path_manager.endpoints() == []


def test_port_at_an_address_of_nobody_is_refused() -> None:
    network = Network()
    with pytest.raises(ConfigurationError, match="no interface has it"):
        network.server.path_manager.add_endpoint(server_address(4, 2), flags=SIGNAL, port=JOIN_PORT)
