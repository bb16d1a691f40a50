"""Between our SYN/ACK and the third packet: what a request takes, and what ends it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mptcp_stack.settings import apply_sysctl
from mptcp_stack.tcp.states import State
from mptcp_stack.wire.tcp_options import TcpOptions
from tests.tcp.exchange import OUR_PORT, SETTINGS, Exchange, in_state


def half_open() -> Exchange:
    return in_state(State.SYN_RECEIVED)


def test_repeated_syn_is_answered_at_a_bounded_rate() -> None:
    exchange = half_open()
    for _ in range(5):
        exchange.send("S", 0, options=exchange.peer_options)
    exchange.expect("SA", 0, 1)
    exchange.expect_nothing()
    assert exchange.stack.counters["TcpExtTCPACKSkippedSynRecv"] == 4
    exchange.advance(500_000)
    exchange.send("S", 0, options=exchange.peer_options)
    exchange.expect("SA", 0, 1)


def test_timer_starts_anew_with_a_repeated_syn() -> None:
    exchange = half_open()
    exchange.advance(800_000)
    exchange.send("S", 0, options=exchange.peer_options)
    exchange.expect("SA", 0, 1)
    assert [at_us for at_us, _ in exchange.advance(1_500_000)] == [1_000_000]


@pytest.mark.parametrize(
    ("flags", "sequence", "answer"), [("S", 100, "RA"), ("SA", 100, "R"), ("R", 1, None), ("RA", 1, None)]
)
def test_reset_or_other_syn_in_the_window_ends_it(flags: str, sequence: int, answer: str | None) -> None:
    exchange = half_open()
    exchange.send(flags, sequence, 1)
    exchange.must_be_in(State.CLOSED)
    if answer is not None:
        exchange.expect(answer)
    exchange.expect_nothing()
    counters = exchange.stack.counters
    assert (counters["TcpAttemptFails"], counters["TcpExtEmbryonicRsts"]) == (1, 1)
    assert not list(exchange.stack.connections())


@pytest.mark.parametrize("sequence", [-1, 70_000])
@pytest.mark.parametrize("flags", ["A", "S"])
def test_out_of_the_window_is_answered_by_an_acknowledgement(sequence: int, flags: str) -> None:
    exchange = half_open()
    exchange.send(flags, sequence, 1)
    exchange.send(flags, sequence, 1)
    exchange.expect("A", 1, 1)
    exchange.expect_nothing()
    exchange.must_be_in(State.SYN_RECEIVED)


def test_reset_elsewhere_in_the_window_is_challenged() -> None:
    """RFC 5961 §3.2."""
    exchange = half_open()
    for _ in range(3):
        exchange.send("R", 100)
    exchange.expect("A", 1, 1)
    exchange.expect_nothing()
    assert exchange.stack.counters["TcpExtTCPChallengeACK"] == 1
    exchange.must_be_in(State.SYN_RECEIVED)


def test_data_out_of_the_window_is_always_answered() -> None:
    """Two ends cannot answer each other for ever with it."""
    exchange = half_open()
    for _ in range(3):
        exchange.send("A", 70_000, 1, b"x")
        exchange.expect("A", 1, 1)
    exchange.expect_nothing()


def test_reset_out_of_the_window_is_ignored() -> None:
    exchange = half_open()
    exchange.send("R", 70_000)
    exchange.expect_nothing()
    exchange.must_be_in(State.SYN_RECEIVED)


def test_old_timestamp_is_out_of_the_window() -> None:
    exchange = Exchange(settings=replace(SETTINGS, tcp_timestamps=True))
    exchange.peer_options = TcpOptions(maximum_segment_size=1000, timestamp_value=500)
    exchange.listen()
    exchange.send("A", 1, 1, options=TcpOptions(timestamp_value=499))
    exchange.expect("A", 1, 1)
    exchange.must_be_in(State.SYN_RECEIVED)
    assert exchange.stack.counters["TcpExtPAWSEstab"] == 1
    exchange.send("A", 1, 1, options=TcpOptions(timestamp_value=500))
    exchange.must_be_in(State.ESTABLISHED)


def test_unacceptable_acknowledgement_is_reset_and_the_request_stays() -> None:
    exchange = half_open()
    exchange.send("A", 1, 7)
    assert exchange.sequence(exchange.expect("R")) == 7
    exchange.must_be_in(State.SYN_RECEIVED)
    exchange.send("A", 1, 1)
    exchange.must_be_in(State.ESTABLISHED)
    assert exchange.stack.counters["TcpPassiveOpens"] == 1


def test_request_that_times_out_is_no_failed_attempt() -> None:
    exchange = half_open()
    exchange.advance(200_000_000)
    counters = exchange.stack.counters
    assert counters["TcpExtTCPTimeouts"] == SETTINGS.tcp_synack_retries + 1
    assert counters["TcpExtTCPSynRetrans"] == SETTINGS.tcp_synack_retries
    assert (counters["TcpAttemptFails"], counters["TcpExtTCPAbortOnTimeout"]) == (0, 0)
    assert not list(exchange.stack.connections())


@pytest.mark.parametrize(("asked", "granted"), [(-1, 4096), (0, 0), (5, 5), (4097, 4096)])
def test_backlog_is_bounded_by_somaxconn(asked: int, granted: int) -> None:
    exchange = Exchange()
    assert exchange.stack.listen(None, OUR_PORT, backlog=asked).backlog == granted


def test_somaxconn_is_a_sysctl() -> None:
    assert apply_sysctl(SETTINGS, "net.core.somaxconn", "7").somaxconn == 7
