"""Probes of a window that is closed (RFC 9293 §3.8.6.1)."""

from __future__ import annotations

from dataclasses import replace
from errno import ETIMEDOUT

from mptcp_stack.tcp.socket_options import DEFAULT_SOCKET_OPTIONS
from mptcp_stack.tcp.states import State

from .exchange import SETTINGS, Exchange, established


def closed_window(retries: int = 15) -> Exchange:
    exchange = Exchange(settings=replace(SETTINGS, tcp_retries2=retries))
    exchange.establish(window=0)
    return exchange


def test_connection_that_never_waits_has_no_timer_for_it() -> None:
    exchange = established()
    exchange.write(bytes(5000))
    exchange.send("A", 1, 5001)
    assert exchange.subflow.probing is None


def test_user_timeout_ends_the_probing_exactly() -> None:
    exchange = closed_window()
    exchange.subflow.take_socket_options(replace(DEFAULT_SOCKET_OPTIONS, user_timeout_us=2_000_000))
    exchange.write(b"x")
    first_us, _ = exchange.advance(1_500_000)[0]
    exchange.advance(first_us + 500_000 - 1)
    exchange.must_be_in(State.ESTABLISHED)
    exchange.advance(1)
    exchange.must_be_in(State.CLOSED)
    assert exchange.application.error == ETIMEDOUT
    assert exchange.stack.counters["TcpExtTCPAbortOnTimeout"] == 1


def test_orphan_gives_up_sooner() -> None:
    exchange = Exchange(settings=replace(SETTINGS, tcp_orphan_retries=3))
    exchange.establish(window=0)
    exchange.write(b"x")
    exchange.close()
    exchange.advance(10_000_000)
    assert exchange.stack.counters["TcpExtTCPWinProbe"] == 3
    assert exchange.stack.counters["TcpExtTCPAbortOnTimeout"] == 1
    exchange.must_be_in(State.CLOSED)


def test_fin_waits_for_a_window_too() -> None:
    exchange = closed_window()
    exchange.shut_down()
    exchange.expect_nothing()
    assert exchange.advance(1_500_000)
    exchange.sent.clear()
    exchange.send("A", 1, 1, window=1)
    exchange.expect("FA", 1, 1)


def test_back_off_begins_anew_after_data_was_sent() -> None:
    exchange = closed_window()
    exchange.write(b"x")
    exchange.advance(10_000_000)
    exchange.send("A", 1, 1, window=1)
    exchange.send("A", 1, 2, window=0)
    exchange.sent.clear()
    exchange.write(b"y")
    waited_us, probe = exchange.advance(2_000_000)[0]
    assert waited_us == max(exchange.subflow.round_trip.rto_us, 200_000)
    assert exchange.sequence(probe) == 1
