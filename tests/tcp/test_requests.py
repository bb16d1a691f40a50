"""Requests (RFC 4987 §3): what is kept between our SYN/ACK and the third packet, and what becomes of it."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace

import pytest

from mptcp_stack.settings import StackSettings
from mptcp_stack.tcp.states import State
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.mptcp_options import MpCapable, MptcpOption
from mptcp_stack.wire.tcp_options import TcpOptions
from mptcp_stack.wire.tcp_segment import SYN, TcpSegment
from tests.mptcp.attacker import Attacker, must_come_to_rest
from tests.mptcp.network import PORT, Network
from tests.tcp.exchange import OUR_PORT, SETTINGS, Exchange, in_state

SERVER, SPOOFED = parse_address("10.0.1.1"), parse_address("10.0.1.77")
CAPABLE = MpCapable(1, 1, None, None, None, None)
FLAGS = ["S", "SA", "A", "A", "A", "R", "RA", "FA", "SF", ""]
TIMESTAMPS = TcpOptions(maximum_segment_size=1000, sack_permitted=True, timestamp_value=500, window_scale=7)


def test_no_connection_before_the_third_packet() -> None:
    exchange = in_state(State.SYN_RECEIVED)
    assert exchange.stack.holdings()["half-open connections"] == 1
    assert not list(exchange.stack.connections())
    exchange.send("A", 1, 1)
    exchange.must_be_in(State.ESTABLISHED)
    assert exchange.stack.holdings()["half-open connections"] == 0
    assert next(exchange.stack.listeners()).accept() is exchange.application


@pytest.mark.parametrize(("mptcp", "most_bytes"), [((), 1200), ((CAPABLE,), 1500)], ids=["plain", "capable"])
def test_memory_of_a_half_open_connection(mptcp: tuple[MptcpOption, ...], most_bytes: int) -> None:
    """Also when the SYN has all options, and data that nobody has asked for."""
    network = Network(server_settings=StackSettings(tcp_syncookies=0, tcp_max_syn_backlog=4096))
    network.server.listen(None, PORT, backlog=4096)
    attacker, count = Attacker(network, 1), 500

    def flood(first_port: int) -> None:
        for port in range(first_port, first_port + count):
            syn = TcpSegment(
                port, PORT, port << 16, 0, SYN, 65535, replace(TIMESTAMPS, mptcp=mptcp), bytes(900)
            )
            attacker.inject(network.server, SPOOFED, SERVER, syn)

    flood(1024)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    flood(2048)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(network.server.environment.requests) == 2 * count
    assert (after - before) / count < most_bytes


@pytest.mark.parametrize("at_us", [0, 20_000, 400_000])
def test_round_trip_from_our_answer_to_the_third_packet(at_us: int) -> None:
    exchange = in_state(State.SYN_RECEIVED)
    exchange.advance(at_us)
    exchange.send("A", 1, 1)
    assert exchange.subflow.round_trip.srtt_us == max(1, at_us)


def test_timestamps_give_a_round_trip_also_after_a_repeated_answer() -> None:
    """RFC 7323 §4: the echo says which of both was answered."""
    exchange = Exchange(settings=replace(SETTINGS, tcp_timestamps=True), peer_options=TIMESTAMPS)
    exchange.listen()
    ((_, answer),) = exchange.advance(1_000_000)
    exchange.advance(50_000)
    echo = TcpOptions(timestamp_value=600, timestamp_echo=answer.options.timestamp_value or 0)
    exchange.send("A", 1, 1, options=echo)
    assert exchange.subflow.round_trip.srtt_us == 50_000
    assert exchange.subflow.segments_sent_again == 1


def test_options_that_were_agreed_hold_whatever_changed_since() -> None:
    exchange = Exchange(settings=replace(SETTINGS, tcp_timestamps=True), peer_options=TIMESTAMPS)
    exchange.listen()
    (request,) = exchange.stack.environment.requests.all()
    exchange.stack.environment.settings = replace(
        SETTINGS, tcp_timestamps=False, tcp_sack=False, tcp_window_scaling=False
    )
    exchange.send("A", 1, 1, options=TcpOptions(timestamp_value=501, timestamp_echo=0))
    subflow = exchange.subflow
    assert subflow.timestamps_enabled
    assert subflow.sack_enabled
    assert (subflow.snd_wnd_scale, subflow.rcv_wnd_scale) == (7, request.agreed.window_scale)
    assert subflow.rcv_right_edge == subflow.rcv_nxt + request.window


def test_data_of_the_third_packet_is_taken() -> None:
    exchange = in_state(State.SYN_RECEIVED)
    exchange.send("FA", 1, 1, b"all of it")
    exchange.must_be_in(State.CLOSE_WAIT)
    assert exchange.read() == b"all of it"


def test_closed_listener_forgets_its_requests_and_no_others() -> None:
    exchange = in_state(State.SYN_RECEIVED)
    other = exchange.stack.listen(None, OUR_PORT + 1, protocol="tcp")
    other.close()
    assert len(exchange.stack.environment.requests) == 1
    next(exchange.stack.listeners()).close()
    assert not len(exchange.stack.environment.requests)
    exchange.expect_nothing()
    assert exchange.advance(100_000_000) == []


def test_each_request_keeps_its_own_time() -> None:
    """They share one timer, and those that were repeated wait longer than those that came later."""
    network = Network()
    network.listen()
    attacker = Attacker(network, 1)
    starts: dict[int, int] = {}
    for port in range(1024, 1034):
        network.simulator.run_for(70_000)
        starts[port] = network.simulator.now_us
        attacker.inject(network.server, SPOOFED, SERVER, attacker.syn(port))
    network.simulator.run_for(600_000)
    requests = network.server.environment.requests
    assert {request.timeouts for request in requests.all()} == {0, 1}
    for request in requests.all():
        wait_us = 3_000_000 if request.timeouts else 1_000_000
        assert request.deadline_us == starts[request.four_tuple[3]] + wait_us
    assert network.server.counters["TcpExtTCPSynRetrans"] == sum(
        request.timeouts for request in requests.all()
    )


def test_half_open_joins_count_for_the_backlog() -> None:
    """As in Linux, where they wait with the listener's other requests."""
    network = Network(2)
    _, far = network.establish()
    network.simulator.run_for(100_000)
    (listener,) = network.server.listeners()
    attacker = Attacker(network, 1)
    attacker.inject(network.server, SPOOFED, SERVER, attacker.join_syn(far, 999))
    assert listener.half_open == 1
    assert len(far.subflows) == 1
    network.simulator.run_for(200_000_000)
    assert listener.half_open == 0


def test_join_whose_connection_is_gone_is_refused() -> None:
    network = Network(2)
    near, far = network.establish()
    network.simulator.run_for(100_000)
    attacker = Attacker(network, 1)
    attacker.inject(network.server, SPOOFED, SERVER, attacker.join_syn(far, 999))
    (request,) = network.server.environment.requests.all()
    third = attacker.third_of_join(far, request)
    near.abort()
    network.simulator.run_until(lambda: far.is_closed)
    resets = network.server.counters["TcpOutRsts"]
    attacker.inject(network.server, SPOOFED, SERVER, third)
    assert network.server.counters["TcpOutRsts"] == resets + 1
    assert network.server.counters["MPTcpExtMPJoinRejected"] == 1
    must_come_to_rest(network, attacker)


@pytest.mark.parametrize("seed", range(20))
def test_anything_between_answer_and_third_packet(seed: int) -> None:
    """Taken, or answered, or a counted drop; the table stays as small as it is."""
    rng = random.Random(seed)
    exchange = Exchange(settings=replace(SETTINGS, tcp_timestamps=True), peer_options=TIMESTAMPS)
    exchange.listen()
    requests, counters = exchange.stack.environment.requests, exchange.stack.counters
    while len(requests):
        before = counters.snapshot()
        exchange.sent.clear()
        exchange.send(
            rng.choice(FLAGS),
            rng.choice([0, 1, 1, 1, 2, -1, 60_000, 70_000, rng.randrange(1 << 32)]),
            rng.choice([0, 1, 1, 2, -1, rng.randrange(1 << 32)]),
            rng.randbytes(rng.choice([0, 0, 1, 1400])),
            rng.choice([0, 1, 65535]),
            TcpOptions(timestamp_value=rng.choice([None, 0, 499, 500, 501])),
        )
        told = {name for name, count in counters.snapshot().items() if count != before[name]}
        assert told - {"IpInReceives", "IpInDelivers", "TcpInSegs", "IpExtInNoECTPkts"} or exchange.sent
        assert len(requests) <= 1
        exchange.advance(rng.choice([0, 1_000, 300_000]))
    listener = next(exchange.stack.listeners())
    assert listener.half_open == 0
