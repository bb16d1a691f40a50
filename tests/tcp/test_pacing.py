"""SO_MAX_PACING_RATE: that the spacing is as asked for, and what it leaves alone."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace
from errno import EINVAL, EOPNOTSUPP
from itertools import pairwise

import pytest

from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.settings import StackSettings, apply_sysctl
from mptcp_stack.sockets.options import get_option, set_option
from mptcp_stack.sockets.subflow_options import MPTCP_SUB_SETSOCKOPT, SUB_OPTION_HEAD
from mptcp_stack.tcp import pacing
from mptcp_stack.tcp.socket_options import UNLIMITED_RATE
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.tcp_segment import TcpSegment
from tests.mptcp.network import Network, Transfer, join_all
from tests.tcp.exchange import SETTINGS, Exchange, shown

SO_MAX_PACING_RATE = 47
RATE = 50_000
SEGMENT = 1000
DURATION_US = 2 * SEGMENT * 1_000_000 // RATE
"""Of a burst of two segments."""


def set_rate(connection: Connection, rate: int, size: int = 4) -> None:
    set_option(connection, socket.SOL_SOCKET, SO_MAX_PACING_RATE, rate.to_bytes(size, "little"))


def paced(settings: StackSettings = SETTINGS, rate: int = RATE) -> Exchange:
    """With 100 segments written, of which the first ten have left, and been acknowledged 100 ms later."""
    exchange = Exchange(settings=settings)
    exchange.connect()
    exchange.advance(100_000)
    exchange.send("SA", 0, 1, window=65535, options=exchange.peer_options)
    exchange.expect("A", 1, 1)
    exchange.subflow.snd_wnd = exchange.subflow.largest_send_window = 1 << 20
    set_rate(exchange.application, rate)
    exchange.write(bytes(50 * SEGMENT))
    assert len(exchange.sent) == 10
    exchange.sent.clear()
    exchange.advance(100_000)
    return exchange


def test_bursts_are_as_far_apart_as_the_rate_says() -> None:
    exchange = paced()
    exchange.send("A", 1, 1 + 10 * SEGMENT)
    assert len(exchange.sent) == 2
    times = [time_us for time_us, _ in exchange.advance(10 * DURATION_US)]
    # The first was late, by more than half its time.
    expected = [DURATION_US // 2 + burst * DURATION_US for burst in range(9)]
    assert times == [time_us for time_us in expected for _ in range(2)]


@pytest.mark.parametrize("least", [1, 4])
def test_length_of_bursts_is_a_setting(least: int) -> None:
    exchange = paced(apply_sysctl(SETTINGS, "net.ipv4.tcp_min_tso_segs", str(least)))
    exchange.send("A", 1, 1 + 10 * SEGMENT)
    assert len(exchange.sent) == least


def test_high_rate_has_longer_bursts() -> None:
    """What the rate gives in a millisecond."""
    exchange = paced(rate=8_000_000)
    exchange.subflow.congestion.congestion_window = 1 << 20
    exchange.send("A", 1, 1 + 10 * SEGMENT)
    assert len(exchange.sent) == 8_000_000 // 1024 // SEGMENT


@pytest.mark.parametrize(
    ("round_trip_us", "burst_bytes"),
    [(300, 65_000), (600, 32_000), (1_500, 16_000), (5_000, 10_000), (40_000, 10_000)],
)
def test_short_round_trips_let_more_than_a_quarter_of_the_window_leave_at_once(
    round_trip_us: int, burst_bytes: int
) -> None:
    """Half as much for each 512 us more, as in Linux's tcp_tso_autosize."""
    exchange = Exchange(settings=SETTINGS)
    exchange.connect()
    exchange.advance(round_trip_us)
    exchange.send("SA", 0, 1, window=65535, options=exchange.peer_options)
    subflow = exchange.subflow
    subflow.congestion.congestion_window = 40 * SEGMENT
    assert subflow.segment_bytes == SEGMENT
    assert subflow.maximum_burst_bytes() == burst_bytes


def test_no_probe_and_no_timeout_while_data_waits_for_its_time() -> None:
    """RFC 9293 §3.8.6.1 is for closed windows; the peer answers at once here, so nothing is in flight."""
    exchange = paced(rate=1000)
    for _ in range(5):
        exchange.send("A", 1, exchange.subflow.snd_nxt - exchange.iss)
        assert len(exchange.advance(2_000_000)) == 2
    counters = exchange.stack.counters
    assert counters["TcpExtTCPTimeouts"] == counters["TcpExtTCPWinProbe"] == 0
    assert counters["TcpExtTCPLossProbes"] == 0


def test_fin_waits_for_its_turn() -> None:
    exchange = paced()
    exchange.send("A", 1, 1 + 10 * SEGMENT)
    exchange.write(b"")
    exchange.shut_down()
    segments: list[TcpSegment] = []
    while not segments or "F" not in shown(segments[-1]):
        segments += [segment for _, segment in exchange.advance(DURATION_US)]
        exchange.send("A", 1, exchange.subflow.snd_nxt - exchange.iss)
    assert exchange.sequence(segments[-1]) + len(segments[-1].payload) == 1 + 50 * SEGMENT


def test_retransmissions_are_paced_but_for_that_of_a_timer() -> None:
    exchange = paced()
    exchange.send("A", 1, 1 + 10 * SEGMENT)
    exchange.advance(10 * DURATION_US)
    assert exchange.subflow.snd_nxt == exchange.iss + 1 + 30 * SEGMENT
    exchange.advance(2_000_000)
    assert exchange.stack.counters["TcpExtTCPTimeouts"] >= 1
    # Slow start from one segment on: each acknowledgement lets twice as much be sent again.
    for first, last in ((11, 13), (13, 17)):
        exchange.send("A", 1, 1 + first * SEGMENT)
        exchange.advance(10 * DURATION_US)
        assert exchange.subflow.snd_una == exchange.iss + 1 + first * SEGMENT
        exchange.sent.clear()
        exchange.send("A", 1, 1 + last * SEGMENT)
        assert len(exchange.sent) == 2
        times = [time_us for time_us, _ in exchange.advance(60_000)]
        assert times[0] == DURATION_US // 2
        assert {later - earlier for earlier, later in pairwise(times)} <= {0, DURATION_US}


def test_rate_of_the_window() -> None:
    """Twice the window in a round trip in slow start, then 1.2 times; both are settings."""
    exchange = paced(rate=UNLIMITED_RATE & 0xFFFFFFFF)
    subflow = exchange.subflow
    assert subflow.round_trip.srtt_us == 100_000
    assert pacing.rate(subflow) == 2 * 10 * SEGMENT * 10
    subflow.congestion.slow_start_threshold = subflow.congestion.congestion_window
    assert pacing.rate(subflow) == 12 * SEGMENT * 10
    exchange.stack.environment.settings = replace(SETTINGS, tcp_pacing_ca_ratio=300)
    assert pacing.rate(subflow) == 30 * SEGMENT * 10


def test_who_was_paced_once_is_paced_by_the_window() -> None:
    """As in Linux, where nothing ends it."""
    exchange = paced()
    set_rate(exchange.application, (1 << 32) - 1)
    subflow = exchange.subflow
    exchange.send("A", 1, 1 + 10 * SEGMENT)
    assert len(exchange.sent) == 2
    gap_us = 2 * SEGMENT * 1_000_000 // pacing.rate(subflow)
    times = sorted({time_us for time_us, _ in exchange.advance(50_000)})
    assert len(times) > 2
    assert {later - earlier - gap_us for earlier, later in pairwise(times)} <= {0, 1}


def test_a_rate_of_zero_is_none() -> None:
    exchange = paced(rate=0)
    exchange.send("A", 1, 1 + 10 * SEGMENT)
    assert len(exchange.sent) == 20


def test_nothing_is_made_for_who_does_not_ask() -> None:
    exchange = Exchange()
    exchange.establish()
    assert exchange.subflow.pacing is None


@pytest.mark.parametrize(
    ("written", "form", "read"),
    [
        (struct.pack("=I", 7), "=I", 7),
        (struct.pack("=I", (1 << 32) - 1), "=Q", UNLIMITED_RATE),
        (struct.pack("=Q", 1 << 40), "=Q", 1 << 40),
        (struct.pack("=Q", 1 << 40), "=I", (1 << 32) - 1),
    ],
)
def test_option_is_an_int_or_a_long(written: bytes, form: str, read: int) -> None:
    exchange = Exchange()
    exchange.establish()
    set_option(exchange.application, socket.SOL_SOCKET, SO_MAX_PACING_RATE, written)
    size = struct.calcsize(form)
    value = get_option(exchange.application, socket.SOL_SOCKET, SO_MAX_PACING_RATE, size)
    assert struct.unpack(form, value) == (read,)


def test_option_that_is_too_short() -> None:
    exchange = Exchange()
    exchange.establish()
    with pytest.raises(OSError, match="expected an unsigned int") as raised:
        set_option(exchange.application, socket.SOL_SOCKET, SO_MAX_PACING_RATE, b"\1\2\3")
    assert raised.value.errno == EINVAL


def test_subflow_of_mptcp_has_its_own_rate() -> None:
    """The connection has none, as in Linux; the other subflow goes on as fast as it can."""
    network = Network(2)
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=frozenset({"subflow"}))
    near, far = network.establish()
    join_all(network, near, far)
    with pytest.raises(OSError, match="single subflows") as raised:
        set_rate(near, RATE)
    assert raised.value.errno == EOPNOTSUPP
    slow, fast = near.subflows
    option = struct.pack("=I", 20_000)
    head = SUB_OPTION_HEAD.pack(slow.identifier, socket.SOL_SOCKET, SO_MAX_PACING_RATE, len(option))
    set_option(near, socket.IPPROTO_TCP, MPTCP_SUB_SETSOCKOPT, head + option)
    begin_us = network.simulator.now_us
    sent_before = slow.snd_nxt
    transfer = Transfer(near, far, 1_000_000).without_shutdown()
    network.simulator.run_until(transfer.advance)
    elapsed_us = network.simulator.now_us - begin_us
    assert slow.snd_nxt - sent_before <= 12 * slow.segment_bytes + 20_000 * elapsed_us // 1_000_000
    assert fast.snd_nxt - fast.snd_iss > 900_000
