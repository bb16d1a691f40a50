"""Disconnecting a connection, which is done when the call returns: its socket may connect again at once."""

from __future__ import annotations

from errno import ECONNRESET, ENOTCONN

import pytest

from mptcp_stack.wire.addresses import parse_address
from tests.mptcp.network import PORT, Network, Transfer, join_all


def test_all_subflows_are_reset_and_nothing_is_kept() -> None:
    network = Network(2)
    network.client.path_manager.set_limits(1, 0)
    network.server.path_manager.set_limits(1, 0)
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=frozenset({"subflow"}))
    near, far = network.establish()
    join_all(network, near, far)
    far.write(b"never read")
    network.simulator.run_until(lambda: near.readable_bytes > 0)
    assert near.disconnect() == 0
    assert near.is_closed
    assert (near.read(100), near.error) == (b"", ENOTCONN)
    assert list(network.client.connections()) == []
    network.simulator.run_until(lambda: far.error is not None)
    assert far.error == ECONNRESET
    network.simulator.run_for(1_000_000)
    assert not any(amount for kind, amount in network.client.holdings().items() if kind != "listeners")
    counters = network.client.counters
    assert [counters[f"MPTcpExt{name}"] for name in ("MPFastcloseTx", "MPRstTx")] == [1, 2]
    assert network.server.counters["MPTcpExtMPFastcloseRx"] >= 1


@pytest.mark.parametrize("protocol", ["mptcp", "tcp"])
def test_the_same_ports_are_free_at_once(protocol: str) -> None:
    """Before anything was sent: the reset goes first, the new SYN behind it."""
    network = Network()
    listener = network.listen(protocol)
    remote, local = parse_address("10.0.1.1"), parse_address("10.0.1.2")

    def connect() -> Transfer:
        near = network.client.connect(remote, PORT, protocol=protocol, local=local, local_port=4711)
        network.simulator.run_until(lambda: near.is_established and listener.has_ready)
        far = listener.accept()
        assert far is not None
        return Transfer(near, far, 100_000).without_shutdown()

    first = connect()
    network.simulator.run_until(first.advance)
    assert first.sender.disconnect() == (ECONNRESET if protocol == "tcp" else 0)
    second = connect()
    network.simulator.run_until(second.advance)
    second.must_be_intact()
    assert first.receiver.error == ECONNRESET
    assert second.sender.local_key.value != first.sender.local_key.value or protocol == "tcp"


def test_while_connecting_and_twice() -> None:
    network = Network()
    near = network.connect()
    assert near.disconnect() == 0
    assert near.disconnect() == 0
    plain = network.connect(protocol="tcp")
    network.simulator.run_for(1_000)
    assert [plain.disconnect(), plain.disconnect()] == [ECONNRESET, 0]
    network.simulator.run_for(1_000_000)
    assert list(network.client.connections()) == []
    assert network.server.counters["TcpInErrs"] == 0
