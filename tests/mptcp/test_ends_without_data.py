"""A client that sends no data at all: only the end of its stream can show which protocol is spoken."""

from __future__ import annotations

import pytest

from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.tcp.socket_options import SocketOptions
from mptcp_stack.wire.addresses import parse_address
from tests.mptcp.network import PORT, Network, Transfer, close_both

ADDRESSES = ["10.0.1.1", "fd00:1::1"]


def begin(network: Network, address: str) -> tuple[Connection, Connection]:
    """The client shuts down at once."""
    listener = network.listen()
    near = network.connect(address)
    near.shutdown_write()
    accepted: list[Connection] = []

    def is_accepted() -> bool:
        connection = listener.accept()
        if connection is not None:
            accepted.append(connection)
        return bool(accepted)

    network.simulator.run_until(is_accepted)
    return near, accepted[0]


def answer(network: Network, near: Connection, far: Connection) -> None:
    """After the end of the request, as many servers do."""
    network.simulator.run_until(lambda: far.end_of_stream)
    transfer = Transfer(far, near, 20_000)
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()
    close_both(network, near, far)
    assert network.client.counters["TcpOutRsts"] == network.server.counters["TcpOutRsts"] == 0
    assert network.client.counters["TcpExtTCPAbortOnTimeout"] == 0


@pytest.mark.parametrize("address", ADDRESSES)
def test_server_that_missed_the_third_packet(address: str) -> None:
    """It speaks plain TCP, where only a FIN ends a stream."""
    network = Network()
    lost = [0]

    def is_third_packet(frame: bytes, index: int) -> bool:
        is_it = b"\x1e\x14\x01" in frame
        lost[0] += is_it
        return is_it

    network.simulator.links()["1"].forward.drop_if = is_third_packet
    near, far = begin(network, address)
    answer(network, near, far)
    assert lost == [1]
    assert not near.is_mptcp
    assert not far.is_mptcp


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("outage_us", [1_500_000, 2_500_000, 9_000_000])
def test_server_whose_answers_are_lost_for_long(address: str, outage_us: int) -> None:
    """It speaks MPTCP: the FIN brings the DATA_FIN, and the answer comes over what is left of the subflow."""
    network = Network()
    wire = network.simulator.links()["1"].backward
    near, far = begin(network, address)
    wire.is_up = False
    network.simulator.run_for(outage_us)
    wire.is_up = True
    answer(network, near, far)
    assert near.is_mptcp
    assert far.is_mptcp
    assert network.server.counters["MPTcpExtMPCapableFallbackACK"] == 0


@pytest.mark.parametrize("address", ADDRESSES)
def test_third_packet_that_waits_for_data_goes_before_the_end(address: str) -> None:
    """With TCP_DEFER_ACCEPT the client holds it back (tcp(7)), and its keys must not be lost for that."""
    network = Network()
    listener = network.listen()
    options = SocketOptions(deferred_timeouts=1)
    near = network.client.connect(parse_address(address), PORT, options=options)
    network.simulator.run_until(lambda: near.is_established)
    network.simulator.run_for(50_000)
    assert listener.accept() is None
    near.shutdown_write()
    far = network.accept(listener, near)
    answer(network, near, far)
    assert near.is_mptcp
    assert far.is_mptcp
