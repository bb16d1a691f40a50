"""A silent peer is asked whether it lives, when the application wants that (RFC 9293 §3.8.4)."""

from __future__ import annotations

from errno import ETIMEDOUT

from mptcp_stack.tcp.socket_options import SocketOptions
from mptcp_stack.tcp.states import State

from .exchange import Exchange, established

SECOND_US = 1_000_000
OPTIONS = SocketOptions(
    keep_alive=True, keep_idle_us=10 * SECOND_US, keep_interval_us=2 * SECOND_US, keep_count=3
)


def asking(options: SocketOptions = OPTIONS) -> Exchange:
    exchange = established()
    exchange.subflow.take_socket_options(options)
    return exchange


def times_s(exchange: Exchange, seconds: int) -> list[int]:
    return [round(at_us / SECOND_US) for at_us, _ in exchange.advance(seconds * SECOND_US)]


def test_nothing_is_sent_unasked() -> None:
    exchange = established()
    assert exchange.advance(10_000 * SECOND_US) == []
    assert exchange.subflow.keep_alive is None


def test_unanswered_probes_end_in_a_reset() -> None:
    exchange = asking()
    assert times_s(exchange, 15) == [10, 12, 14]
    for _ in range(3):
        exchange.expect("A", seq=0, length=0)
    exchange.must_be_in(State.ESTABLISHED)
    exchange.advance(SECOND_US)
    exchange.expect("AR")
    assert exchange.application.error == ETIMEDOUT
    assert exchange.stack.counters["TcpExtTCPKeepAlive"] == 3


def test_answers_keep_the_connection() -> None:
    exchange = asking()
    for _ in range(10):
        assert len(times_s(exchange, 10)) == 1
        exchange.send("A", 1, 1)
    exchange.must_be_in(State.ESTABLISHED)


def test_what_arrives_puts_the_probe_off() -> None:
    exchange = asking()
    exchange.advance(6 * SECOND_US)
    exchange.send("A", 1, 1)
    assert times_s(exchange, 11) == [10]


def test_turning_it_off_ends_the_asking() -> None:
    exchange = asking()
    exchange.subflow.take_socket_options(SocketOptions())
    assert exchange.advance(100 * SECOND_US) == []


def test_option_set_before_the_handshake_counts() -> None:
    exchange = Exchange()
    exchange.connect()
    exchange.subflow.take_socket_options(OPTIONS)
    exchange.send("SA", 0, 1, options=exchange.peer_options)
    exchange.expect("A", 1, 1)
    assert times_s(exchange, 11) == [10]
