"""A segment that is not full waits for company (RFC 9293 §3.7.4, §3.8.6.2.1)."""

from __future__ import annotations

from dataclasses import replace

from mptcp_stack.tcp.socket_options import DEFAULT_SOCKET_OPTIONS

from .exchange import Exchange, established

MSS = 1000


def lengths(exchange: Exchange) -> list[int]:
    found = [len(segment.payload) for segment in exchange.sent]
    exchange.sent.clear()
    return found


def test_second_small_segment_waits_for_the_acknowledgement_of_the_first() -> None:
    exchange = established()
    exchange.write(bytes(100))
    exchange.write(bytes(200))
    exchange.write(bytes(300))
    assert lengths(exchange) == [100]
    exchange.send("A", 1, 101)
    assert lengths(exchange) == [500]


def test_small_segment_does_not_wait_for_full_ones() -> None:
    """Minshall's form of the rule: full segments on their way do not count."""
    exchange = established()
    exchange.write(bytes(2 * MSS))
    exchange.write(bytes(100))
    assert lengths(exchange)[-1] == 100


def test_full_segments_leave_while_a_small_one_is_on_its_way() -> None:
    exchange = established()
    exchange.write(bytes(100))
    exchange.write(bytes(2 * MSS + 50))
    assert sum(lengths(exchange)) == 100 + 2 * MSS


def test_no_delay_sends_every_write() -> None:
    exchange = established()
    exchange.subflow.take_socket_options(replace(DEFAULT_SOCKET_OPTIONS, no_delay=True))
    exchange.write(bytes(100))
    exchange.write(bytes(200))
    assert lengths(exchange) == [100, 200]


def test_cork_holds_a_small_segment_for_200_ms_at_most() -> None:
    exchange = established()
    exchange.subflow.take_socket_options(replace(DEFAULT_SOCKET_OPTIONS, cork=True))
    exchange.write(bytes(100))
    assert exchange.advance(199_000) == []
    exchange.advance(2_000)
    assert lengths(exchange) == [100]


def test_end_of_the_stream_ends_the_waiting() -> None:
    exchange = established()
    exchange.write(bytes(100))
    exchange.write(bytes(200))
    exchange.sent.clear()
    exchange.shut_down()
    exchange.expect("FA", seq=101, length=200)


def test_segments_are_at_most_half_of_a_small_window() -> None:
    exchange = Exchange()
    exchange.establish(window=1200)
    exchange.write(bytes(3000))
    assert lengths(exchange) == [600, 600]


def test_first_small_segment_leaves_with_a_sequence_number_taken_over_from_before() -> None:
    exchange = Exchange()
    exchange.connect()
    exchange.subflow.begin_at(exchange.iss)
    assert exchange.subflow.last_small_end == exchange.iss
