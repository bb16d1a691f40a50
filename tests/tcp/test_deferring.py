"""TCP_DEFER_ACCEPT: what waits for data, and for how long."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from mptcp_stack.settings import StackSettings
from mptcp_stack.sockets.common_options import INTEGER, get_common, set_common
from mptcp_stack.tcp.deferring import seconds_of, timeouts_of
from mptcp_stack.tcp.socket_options import DEFAULT_SOCKET_OPTIONS
from mptcp_stack.tcp.states import State
from tests.mptcp.network import Network
from tests.tcp.exchange import OUR_PORT, SETTINGS, Exchange, shown

TCP_DEFER_ACCEPT = 9


def deferred(timeouts: int, settings: StackSettings = SETTINGS) -> Exchange:
    """With the bare third packet sent, a tenth of a second after the SYN."""
    exchange = Exchange(settings=settings)
    listener = exchange.stack.listen(None, OUR_PORT, protocol="tcp")
    listener.socket_options = replace(listener.socket_options, deferred_timeouts=timeouts)
    exchange.send("S", 0, options=exchange.peer_options)
    exchange.expect("SA", 0, 1)
    exchange.advance(100_000)
    exchange.send("A", 1, 1)
    exchange.expect_nothing()
    exchange.must_be_in(State.SYN_RECEIVED)
    return exchange


@pytest.mark.parametrize(
    ("seconds", "timeouts", "lasts"),
    [(-1, 0, 0), (0, 0, 0), (1, 1, 1), (2, 2, 3), (3, 2, 3), (4, 3, 7), (127, 7, 127), (248, 9, 367)],
)
def test_seconds_are_kept_as_timeouts(seconds: int, timeouts: int, lasts: int) -> None:
    assert timeouts_of(seconds) == timeouts
    assert seconds_of(timeouts) == lasts


@pytest.mark.parametrize(("asked", "told"), [(0, 0), (5, 7), (1 << 30, seconds_of(255)), (-7, 0)])
def test_option_tells_what_it_comes_to(asked: int, told: int) -> None:
    settings, name = StackSettings(), (int(socket.IPPROTO_TCP), TCP_DEFER_ACCEPT)
    options = set_common(DEFAULT_SOCKET_OPTIONS, settings, *name, INTEGER.pack(asked))
    assert get_common(options, settings, *name, 4) == INTEGER.pack(told)


def test_answer_is_repeated_once_at_the_end() -> None:
    exchange = deferred(3)
    sent = [time_us for time_us, segment in exchange.advance(10_000_000) if shown(segment) == "AS"]
    # Seven seconds after the first answer is the third timeout; the peer has answered all along.
    assert sent == [6_900_000]
    assert exchange.stack.counters["TcpExtTCPDeferAcceptDrop"] == 1
    exchange.send("A", 1, 1)
    exchange.must_be_in(State.ESTABLISHED)


def test_repetitions_for_deferring_may_be_more_than_for_silence() -> None:
    """tcp_synack_retries is for who has not acknowledged the answer."""
    exchange = deferred(3, replace(SETTINGS, tcp_synack_retries=1))
    exchange.advance(6_800_000)
    exchange.must_be_in(State.SYN_RECEIVED)
    exchange.send("A", 1, 1, b"data")
    exchange.must_be_in(State.ESTABLISHED)
    assert exchange.read() == b"data"


def test_nobody_waits_for_ever() -> None:
    exchange = deferred(3)
    exchange.advance(200_000_000)
    exchange.must_be_in(State.CLOSED)
    assert not len(exchange.stack.environment.requests)


def test_round_trip_is_none_of_the_application() -> None:
    """The data comes when it comes: without timestamps that says as much of the path as in Linux."""
    exchange = deferred(3)
    exchange.advance(300_000)
    exchange.send("A", 1, 1, b"data")
    assert exchange.subflow.round_trip.srtt_us == 400_000


@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_two_stacks(protocol: str) -> None:
    network = Network()
    listener = network.listen(protocol)
    listener.socket_options = replace(listener.socket_options, deferred_timeouts=4)
    near = network.connect(protocol=protocol)
    network.simulator.run_until(lambda: near.is_established)
    network.simulator.run_for(1_500_000)
    assert not listener.has_ready
    near.write(b"data")
    network.simulator.run_until(lambda: listener.has_ready)
    far = listener.accept()
    assert far is not None
    assert far.read(10) == b"data"
    assert far.is_mptcp is (protocol == "mptcp")


def test_cookies_cannot_wait() -> None:
    network = Network(server_settings=StackSettings(tcp_syncookies=2))
    listener = network.listen()
    listener.socket_options = replace(listener.socket_options, deferred_timeouts=4)
    network.connect()
    network.simulator.run_until(lambda: listener.has_ready)
