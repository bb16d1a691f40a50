"""Addresses of one link: connections over them, and announcements that name no link."""

from __future__ import annotations

from mptcp_stack.ip.interface import link_local_from_mac
from mptcp_stack.mptcp.connection import Connection
from tests.mptcp.network import PORT, Network, Transfer, join_all

CLIENT, SERVER = 2, 1


def link_local(link: int, host: int) -> bytes:
    return link_local_from_mac(bytes([2, 0, 0, 0, link, host]))


def connected(*, laminar: bool) -> tuple[Network, Connection, Connection]:
    """Over the first link; the server has announced its address on the second, where it listens too."""
    network = Network(2)
    for stack in (network.client, network.server):
        stack.path_manager.set_limits(2, 2)
    network.server.path_manager.add_endpoint(link_local(2, SERVER), flags=frozenset({"signal"}))
    if laminar:
        network.client.path_manager.add_endpoint(link_local(2, CLIENT), flags=frozenset({"laminar"}))
    network.server.listen(link_local(2, SERVER), PORT)
    listener = network.server.listen(link_local(1, SERVER), PORT)
    near = network.client.connect(link_local(1, SERVER), PORT, local=link_local(1, CLIENT))
    return network, near, network.accept(listener, near)


def test_an_announced_address_of_some_link_is_not_joined() -> None:
    """As in Linux: no route says on which link it is."""
    network, near, far = connected(laminar=False)
    transfer = Transfer(near, far, 300_000).without_shutdown()
    network.simulator.run_until(transfer.advance)
    network.simulator.run_for(1_000_000)
    counters = network.client.counters
    assert counters["MPTcpExtAddAddr"] == 1
    assert counters["MPTcpExtMPJoinSynTxConnectErr"] == 1
    assert counters["MPTcpExtMPJoinSynTx"] == 0
    assert len(near.subflows) == 1


def test_a_laminar_endpoint_names_the_link() -> None:
    network, near, far = connected(laminar=True)
    join_all(network, near, far)
    joined = near.subflows[1]
    assert (joined.local, joined.remote) == (link_local(2, CLIENT), link_local(2, SERVER))
    assert network.client.counters["MPTcpExtMPJoinSynTxConnectErr"] == 0
    transfer = Transfer(near, far, 300_000).without_shutdown()
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()
