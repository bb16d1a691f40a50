"""Data in SYNs between two of our own stacks (RFC 7413, RFC 8684 Appendix B)."""

from __future__ import annotations

from dataclasses import replace
from errno import ECONNRESET

import pytest

from mptcp_stack.listener import Listener
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.mptcp.early_data import bytes_taken
from mptcp_stack.mptcp.states import Mode
from mptcp_stack.settings import StackSettings
from mptcp_stack.tcp.fast_open import Mode as FastOpenMode
from mptcp_stack.tcp.fast_open import cookie_for
from mptcp_stack.wire.addresses import parse_address
from tests.mptcp.attacker import Attacker, must_come_to_rest
from tests.mptcp.network import PORT, Network, Transfer, both_ways, close_both

EARLY = bytes(range(256))
WITH_COOKIES = StackSettings(tcp_fastopen=FastOpenMode.CLIENT | FastOpenMode.SERVER)
WITHOUT_COOKIES = replace(
    WITH_COOKIES,
    tcp_fastopen=WITH_COOKIES.tcp_fastopen
    | FastOpenMode.CLIENT_WITHOUT_COOKIE
    | FastOpenMode.SERVER_WITHOUT_COOKIE,
)


def listen(network: Network, protocol: str = "mptcp", limit: int = 5) -> Listener:
    listener = network.listen(protocol)
    listener.socket_options = replace(listener.socket_options, fast_open_queue=limit)
    return listener


def open_early(network: Network, protocol: str = "mptcp", address: str = "10.0.1.1") -> Connection:
    return network.client.connect(parse_address(address), PORT, protocol=protocol, early=EARLY)


def accepted(network: Network, listener: Listener) -> Connection:
    found: list[Connection] = []

    def is_accepted() -> bool:
        connection = listener.accept()
        if connection is not None:
            found.append(connection)
        return bool(found)

    network.simulator.run_until(is_accepted)
    return found[0]


@pytest.mark.parametrize("address", ["10.0.1.1", "fd00:1::1"])
@pytest.mark.parametrize(("client", "server"), [("mptcp", "mptcp"), ("tcp", "mptcp"), ("mptcp", "tcp")])
def test_cookie_is_fetched_and_used(client: str, server: str, address: str) -> None:
    network = Network(settings=WITH_COOKIES)
    listener = listen(network, server)
    first = open_early(network, client, address)
    assert bytes_taken(first) == 0
    far = accepted(network, listener)
    both_ways(network, first, far, 2_000)
    second = open_early(network, client, address)
    assert bytes_taken(second) == len(EARLY)
    far = accepted(network, listener)
    assert not second.is_established
    assert far.read(1000) == EARLY
    network.simulator.run_until(lambda: second.is_established)
    transfers = Transfer(second, far, 30_000).without_shutdown()
    network.simulator.run_until(transfers.advance)
    both_ways(network, second, far, 30_000)
    assert far.mode is second.mode is (Mode.MPTCP if client == server == "mptcp" else Mode.PLAIN_TCP)
    assert network.client.counters["TcpExtTCPFastOpenActive"] == 1
    assert network.server.counters["TcpExtTCPFastOpenPassive"] == 1
    assert network.server.counters["TcpExtTCPFastOpenCookieReqd"] == 1


@pytest.mark.parametrize("dropped", range(6))
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("protocol", ["mptcp", "tcp"])
def test_each_early_packet_lost_in_turn(dropped: int, direction: str, protocol: str) -> None:
    network = Network(settings=WITHOUT_COOKIES)
    wire = network.simulator.links()["1"]
    chosen = wire.forward if direction == "forward" else wire.backward
    chosen.drop_if = lambda frame, index: index == dropped
    listener = listen(network, protocol)
    near = open_early(network, protocol)
    far = accepted(network, listener)
    network.simulator.run_until(lambda: near.is_established and far.readable_bytes == len(EARLY))
    assert far.read(1000) == EARLY
    both_ways(network, near, far, 5_000)


def test_server_of_plain_tcp_answers_within_one_round_trip() -> None:
    network = Network(settings=WITHOUT_COOKIES)
    listener = listen(network, "tcp")
    near = open_early(network, "tcp")
    far = accepted(network, listener)
    far.write(b"answer")
    network.simulator.run_until(lambda: near.readable_bytes == 6)
    assert near.read(10) == b"answer"
    assert network.client.counters["TcpOutSegs"] <= 3
    assert far.read(1000) == EARLY
    close_both(network, near, far)


def test_server_that_takes_no_data_gets_it_after_the_handshake() -> None:
    network = Network(settings=WITHOUT_COOKIES, server_settings=StackSettings(tcp_fastopen=0))
    listener = listen(network)
    near = open_early(network)
    assert bytes_taken(near) == len(EARLY)
    far = accepted(network, listener)
    near.write(b"more")
    network.simulator.run_until(lambda: far.readable_bytes == len(EARLY) + 4)
    assert far.read(1000) == EARLY + b"more"
    assert near.mode is far.mode is Mode.MPTCP
    assert network.client.counters["TcpExtTCPFastOpenActiveFail"] == 1
    both_ways(network, near, far, 5_000)


def test_checksums_hold_for_what_follows() -> None:
    """RFC 8684 §B.2: the data sequence, all of which has checksums, begins after the data of the SYN."""
    network = Network(settings=replace(WITHOUT_COOKIES, checksum_enabled=True))
    listener = listen(network)
    near = open_early(network)
    far = accepted(network, listener)
    assert far.read(1000) == EARLY
    network.simulator.run_until(lambda: near.is_established)
    both_ways(network, near, far, 20_000)
    assert network.server.counters["MPTcpExtDataCsumErr"] == 0
    assert far.mode is Mode.MPTCP


def test_forged_syns_fill_the_queue_and_no_more() -> None:
    """Who gets no answer cannot finish: what he opened is bounded, and goes away."""
    network = Network(settings=WITHOUT_COOKIES)
    listener = listen(network, "tcp", limit=3)
    attacker = Attacker(network, 1)
    for number in range(50):
        segment = attacker.syn(1024 + number)
        segment.payload = EARLY
        segment.destination_port = PORT
        attacker.inject(network.server, parse_address("10.0.1.77"), parse_address("10.0.1.1"), segment)
    counters = network.server.counters
    assert counters["TcpExtTCPFastOpenPassive"] == 3
    assert counters["TcpExtTCPFastOpenListenOverflow"] == 47
    while (connection := listener.accept()) is not None:
        connection.close()
    must_come_to_rest(network, attacker)
    assert listener.fast_open is not None
    assert listener.fast_open.pending == 0


def test_reset_before_the_third_packet_is_the_applications_error() -> None:
    network = Network(settings=WITHOUT_COOKIES)
    listener = listen(network, "tcp")
    near = open_early(network, "tcp")
    far = accepted(network, listener)
    near.abort()
    network.simulator.run_until(lambda: far.is_closed)
    assert far.error == ECONNRESET
    assert far.read(1000) == EARLY


def test_wrong_cookie_is_replaced() -> None:
    network = Network(settings=WITH_COOKIES)
    listener = listen(network)
    local, remote = parse_address("10.0.1.2"), parse_address("10.0.1.1")
    network.client.environment.fast_open.remember(local, remote, b"forged!!", 1460)
    near = open_early(network)
    far = accepted(network, listener)
    network.simulator.run_until(lambda: near.is_established and far.readable_bytes == len(EARLY))
    assert far.read(1000) == EARLY
    key = network.server.environment.fast_open.drawn_keys[0]
    assert network.client.environment.fast_open.remembered(local, remote) == (
        cookie_for(key, remote, local),
        1460,
    )
    both_ways(network, near, far, 1_000)


def test_closing_before_the_third_packet_is_in_order() -> None:
    network = Network(settings=WITHOUT_COOKIES)
    listener = listen(network)
    near = open_early(network)
    far = accepted(network, listener)
    far.read(1000)
    far.close()
    network.simulator.run_until(lambda: near.is_established)
    near.close()
    network.simulator.run_until(
        lambda: not list(network.client.connections()) and not list(network.server.connections())
    )
    assert near.error is far.error is None
