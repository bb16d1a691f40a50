"""Floods of SYNs (RFC 4987): memory stays bounded, and who is honest still gets through, with MPTCP."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mptcp_stack.mptcp.states import Mode
from mptcp_stack.settings import StackSettings, apply_sysctl
from mptcp_stack.stateless_answers import MAXIMUM_JOINS
from mptcp_stack.tcp.states import State
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.mptcp_options import MpCapable, MpJoinAck, MpJoinSyn, MptcpOption
from mptcp_stack.wire.tcp_options import TcpOptions
from mptcp_stack.wire.tcp_segment import ACK, SYN, TcpSegment
from tests.mptcp.attacker import MASK_32, Attacker
from tests.mptcp.network import PORT, Network, both_ways, join_all

SERVER = parse_address("10.0.1.1")
BACKLOG = 128
HALF_OPEN = BACKLOG + 1
"""One more than the backlog may be half open, as in Linux."""
SYNS = 20_000
ALWAYS = StackSettings(tcp_syncookies=2)
CAPABLE = MpCapable(1, 1, None, None, None, None)
SUBFLOW = frozenset({"subflow"})


def spoofed(number: int) -> bytes:
    """Addresses on the link that belong to nobody."""
    return bytes([10, 0, 1, 3 + number % 250])


def syn(number: int, *mptcp: MptcpOption) -> TcpSegment:
    options = TcpOptions(maximum_segment_size=1460, mptcp=mptcp)
    return TcpSegment(1024 + number // 250, PORT, number * 7919 & MASK_32, 0, SYN, 65535, options)


def flood(network: Network, attacker: Attacker, count: int, *mptcp: MptcpOption) -> None:
    for number in range(count):
        attacker.inject(network.server, spoofed(number), SERVER, syn(number, *mptcp))


@pytest.mark.parametrize("mptcp", [(), (CAPABLE,)], ids=["plain", "capable"])
def test_flood_of_first_syns(mptcp: tuple[MptcpOption, ...]) -> None:
    network = Network()
    listener = network.listen()
    attacker = Attacker(network, 1)
    flood(network, attacker, SYNS, *mptcp)
    server, counters = network.server, network.server.counters
    assert len(server.environment.requests) == HALF_OPEN
    assert not list(server.connections())
    assert not server.environment.subflows
    assert server.holdings()["tokens"] == (HALF_OPEN if mptcp else 0)
    assert counters["TcpExtSyncookiesSent"] == counters["TcpExtTCPReqQFullDoCookies"] == SYNS - HALF_OPEN
    assert counters["TcpExtListenDrops"] == 0
    near = network.connect()
    network.simulator.run_until(lambda: near.is_established and listener.has_ready)
    far = listener.accept()
    assert far is not None
    assert counters["TcpExtSyncookiesRecv"] == 1
    assert near.mode is far.mode is Mode.MPTCP
    both_ways(network, near, far, 100_000)
    assert near.mode is far.mode is Mode.MPTCP


def test_flood_of_joins_that_know_the_token() -> None:
    network = Network(2)
    near, far = network.establish()
    join_all(network, near, far, 1)
    attacker = Attacker(network, 1)
    for number in range(SYNS):
        attacker.inject(network.server, spoofed(number), SERVER, attacker.join_syn(far, 1024 + number // 250))
    assert len(far.subflows) < 64
    assert network.server._passive_opens._cookies.remembered_joins <= MAXIMUM_JOINS
    # The genuine subflow comes through, and the flood of before does not keep the connection from data.
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=SUBFLOW)
    network.simulator.run_until(lambda: len(near.subflows) == 2 and near.subflows[1].is_usable)
    assert network.server.counters["TcpExtSyncookiesRecv"] == 1
    assert network.server.counters["MPTcpExtMPJoinAckRx"] == 1
    both_ways(network, near, far, 100_000)


def test_joins_without_a_token_leave_nothing() -> None:
    network = Network(server_settings=ALWAYS)
    network.listen()
    attacker = Attacker(network, 1)
    near, _ = Network().establish()
    for number in range(100):
        attacker.inject(network.server, spoofed(number), SERVER, attacker.join_syn(near, 1024 + number))
    assert network.server._passive_opens._cookies.remembered_joins == 0
    assert network.server.counters["MPTcpExtMPJoinNoTokenFound"] == 100


@pytest.mark.parametrize("address", ["10.0.1.1", "fd00:1::1"])
@pytest.mark.parametrize("protocol", ["mptcp", "tcp"])
@pytest.mark.parametrize("timestamps", [True, False])
def test_always_cookies(address: str, protocol: str, timestamps: bool) -> None:
    """Data goes both ways; options that need the timestamp are there with it, and only with it."""
    network = Network(server_settings=replace(ALWAYS, tcp_timestamps=timestamps))
    near, far = network.establish(address, client=protocol)
    assert network.server.counters["TcpExtSyncookiesRecv"] == 1
    assert far.mode is (Mode.MPTCP if protocol == "mptcp" else Mode.PLAIN_TCP)
    for subflow in (near.subflows[0], far.subflows[0]):
        assert subflow.timestamps_enabled is subflow.sack_enabled is timestamps
        assert subflow.window_scale_enabled is timestamps
        assert subflow.snd_wnd_scale == (StackSettings().receive_window_scale if timestamps else 0)
    both_ways(network, near, far, 300_000)


def test_always_cookies_with_checksums_wanted_by_the_peer() -> None:
    network = Network(settings=StackSettings(checksum_enabled=True), server_settings=ALWAYS)
    near, far = network.establish()
    both_ways(network, near, far, 10_000)
    assert near.checksum_enabled
    assert far.checksum_enabled


def test_always_cookies_for_joins() -> None:
    network = Network(2, server_settings=ALWAYS)
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=SUBFLOW)
    near, far = network.establish()
    join_all(network, near, far)
    assert network.server.counters["TcpExtSyncookiesRecv"] == 2
    assert network.server._passive_opens._cookies.remembered_joins == 0
    both_ways(network, near, far, 100_000)


def third_packet(number: int, cookie: int, *mptcp: MptcpOption) -> TcpSegment:
    first = syn(number)
    sequence, acknowledgement = (first.sequence + 1) & MASK_32, (cookie + 1) & MASK_32
    options = TcpOptions(mptcp=mptcp)
    return TcpSegment(first.source_port, PORT, sequence, acknowledgement, ACK, 1000, options)


def test_acknowledgements_that_no_cookie_asked_for_are_reset() -> None:
    """Also when cookies are in use; before, they are not even looked at."""
    network = Network()
    listener = network.server.listen(None, PORT, backlog=0)
    attacker = Attacker(network, 1)
    counters = network.server.counters
    attacker.inject(network.server, spoofed(0), SERVER, third_packet(0, 5))
    assert (counters["TcpOutRsts"], counters["TcpExtSyncookiesFailed"]) == (1, 0)
    flood(network, attacker, 2)
    attacker.inject(network.server, spoofed(9), SERVER, third_packet(9, 5))
    assert (counters["TcpOutRsts"], counters["TcpExtSyncookiesFailed"]) == (2, 1)
    network.simulator.run_for(121_000_000)
    attacker.inject(network.server, spoofed(9), SERVER, third_packet(9, 5))
    assert (counters["TcpOutRsts"], counters["TcpExtSyncookiesFailed"]) == (3, 1)
    assert not listener.has_ready


def test_another_key_than_ours_is_plain_tcp() -> None:
    """The key's check is what keeps a peer from choosing this host's keys."""
    network = Network(server_settings=ALWAYS)
    network.listen()
    attacker = Attacker(network, 1)
    answers = network.server._passive_opens._cookies
    first = syn(0, CAPABLE)
    attacker.inject(network.server, spoofed(0), SERVER, first)
    four_tuple = SERVER, PORT, spoofed(0), first.source_port
    listener = next(network.server.listeners())
    cookie = answers._cookie(listener, four_tuple, first, network.simulator.now_us)
    keys = MpCapable(1, 1, b"client's", b"attacker", None, None)
    attacker.inject(network.server, spoofed(0), SERVER, third_packet(0, cookie, keys))
    assert network.server.environment.subflows[four_tuple].state is State.ESTABLISHED
    (connection,) = network.server.connections()
    assert connection.mode is Mode.PLAIN_TCP
    assert not network.server._tokens


def test_join_that_was_forgotten_becomes_no_connection_of_its_own() -> None:
    """Another join took its slot before the third packet came."""
    network = Network(server_settings=ALWAYS)
    near, far = network.establish()
    join_all(network, near, far, 1)
    attacker = Attacker(network, 1)
    answers, listener = network.server._passive_opens._cookies, next(network.server.listeners())
    first = syn(0, MpJoinSyn(False, 1, far.local_key.token, 1))
    attacker.inject(network.server, spoofed(0), SERVER, first)
    four_tuple = SERVER, PORT, spoofed(0), first.source_port
    cookie = answers._cookie(listener, four_tuple, first, network.simulator.now_us)
    assert answers._take_join(four_tuple, cookie) is not None
    resets = network.server.counters["TcpOutRsts"]
    attacker.inject(network.server, spoofed(0), SERVER, third_packet(0, cookie, MpJoinAck(bytes(20))))
    assert network.server.counters["TcpOutRsts"] == resets + 1
    assert list(network.server.connections()) == [far]
    assert len(far.subflows) == 1


def test_full_accept_queue_takes_neither_syns_nor_cookies() -> None:
    network = Network(server_settings=ALWAYS)
    listener = network.server.listen(None, PORT, backlog=0)
    counters = network.server.counters
    first, second = network.connect(), network.connect()
    network.simulator.run_until(lambda: first.is_established and second.is_established)
    network.simulator.run_for(100_000)
    assert counters["TcpExtListenOverflows"] == counters["TcpExtListenDrops"] == 1
    assert len(list(network.server.connections())) == 1
    network.connect()
    network.simulator.run_for(100_000)
    assert counters["TcpExtListenOverflows"] == counters["TcpExtListenDrops"] == 2
    assert counters["TcpExtSyncookiesSent"] == 2
    assert listener.accept() is not None


def test_without_cookies_what_is_too_much_is_dropped() -> None:
    settings = apply_sysctl(StackSettings(), "net.ipv4.tcp_syncookies", "0")
    network = Network(server_settings=settings)
    network.listen()
    flood(network, Attacker(network, 1), HALF_OPEN + 10)
    counters = network.server.counters
    assert counters["TcpExtTCPReqQFullDrop"] == counters["TcpExtListenDrops"] == 10
    assert counters["TcpExtSyncookiesSent"] == 0
