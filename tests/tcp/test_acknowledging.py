"""How long an acknowledgement waits."""

from __future__ import annotations

from mptcp_stack.tcp.states import State
from tests.tcp.exchange import Exchange, established, interactive


def bulk(exchange: Exchange) -> int:
    """Sixteen segments, so that the quick mode of the start is over; the next position."""
    for position in range(1, 17):
        exchange.send("A", position, 1, b"x")
        exchange.expect("A", 1, position + 1)
    return 17


def test_a_read_sends_what_is_owed_at_the_end_of_a_write() -> None:
    exchange = established()
    position = bulk(exchange)
    exchange.send("AP", position, 1, b"end")
    exchange.expect_nothing()
    exchange.read(5)
    exchange.expect_nothing()
    exchange.read()
    exchange.expect("A", 1, position + 3)


def test_a_read_sends_nothing_when_an_answer_is_expected() -> None:
    exchange = interactive()
    exchange.send("AP", 1, 1, b"question")
    exchange.read()
    exchange.expect_nothing()
    exchange.send("AP", 9, 1, b"?")
    exchange.read()
    exchange.expect("A", 1, 10)


def test_who_missed_the_answer_is_no_longer_interactive() -> None:
    exchange = interactive()
    exchange.send("A", 1, 1, b"question")
    assert [time_us for time_us, _ in exchange.advance(100_000)] == [40_000]
    exchange.sent.clear()
    exchange.send("A", 9, 1, b"question")
    exchange.expect("A", 1, 17)


def test_the_wait_grows_with_the_time_between_arrivals() -> None:
    """Not beyond the round trip, which is 150 ms here, nor 200 ms."""
    exchange = Exchange()
    exchange.connect()
    exchange.advance(150_000)
    exchange.send("SA", 0, 1, options=exchange.peer_options)
    exchange.expect("A", 1, 1)
    position = bulk(exchange)
    waits_us = []
    for _ in range(4):
        exchange.send("A", position, 1, b"x")
        position += 1
        waits_us += [time_us for time_us, _ in exchange.advance(300_000)]
        exchange.sent.clear()
    assert waits_us == [40_000, 80_000, 150_000, 150_000]


def test_a_pause_longer_than_the_time_out_brings_the_quick_mode_back() -> None:
    exchange = established()
    position = bulk(exchange)
    exchange.advance(2_000_000)
    exchange.send("A", position, 1, b"x")
    exchange.expect("A", 1, position + 1)


def test_repeated_data_ends_the_waiting() -> None:
    exchange = interactive()
    exchange.send("A", 1, 1, b"hello")
    exchange.send("A", 1, 1, b"hello")
    exchange.expect("A", 1, 6)
    exchange.send("A", 6, 1, b"hello")
    exchange.expect("A", 1, 11)


def test_smaller_full_segments_are_recognised() -> None:
    """Every second segment is acknowledged, also when they are smaller than those before."""
    exchange = interactive()
    exchange.subflow.acknowledging.segment_bytes = 1000
    exchange.send("A", 1, 1, bytes(300))
    exchange.expect_nothing()
    exchange.send("A", 301, 1, bytes(300))
    exchange.expect("A", 1, 601)


def test_a_fin_in_the_middle_waits_for_the_hole_to_be_filled() -> None:
    exchange = established()
    exchange.send("FA", 11, 1, bytes(10))
    exchange.must_be_in(State.ESTABLISHED)
    assert exchange.expect("A", 1, 1).options.sack_blocks == (
        (exchange.peer_iss + 11, exchange.peer_iss + 22),
    )
    exchange.send("A", 1, 1, bytes(10))
    exchange.must_be_in(State.CLOSE_WAIT)
    exchange.expect("A", 1, 22)
    assert len(exchange.read()) == 20
    assert exchange.application.end_of_stream


def test_a_fin_that_data_contradicts_is_forgotten() -> None:
    """A peer that says two things: the data counts, and nothing breaks."""
    exchange = established()
    exchange.send("FA", 5, 1)
    exchange.send("A", 1, 1, bytes(10))
    exchange.must_be_in(State.ESTABLISHED)
    exchange.send("FA", 11, 1)
    exchange.must_be_in(State.CLOSE_WAIT)
