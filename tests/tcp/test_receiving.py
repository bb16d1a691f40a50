"""What is taken and how it is acknowledged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.tcp.exchange import SETTINGS, Exchange, established, interactive

MSS = 1460
SMALL = replace(SETTINGS, receive_buffer_bytes=10_000)


def test_first_segments_are_acknowledged_at_once() -> None:
    """As Linux does for a sender in slow start, sixteen times."""
    exchange = established()
    for position in range(1, 17):
        exchange.send("A", position, 1, b"x")
        exchange.expect("A", 1, position + 1)
    exchange.send("A", 17, 1, b"x")
    exchange.expect_nothing()
    assert exchange.stack.counters["TcpExtDelayedACKs"] == 0


def test_acknowledgement_waits_for_an_answer() -> None:
    """RFC 5681 §4.2, with Linux's 40 ms."""
    exchange = interactive()
    exchange.send("A", 1, 1, b"hello")
    exchange.expect_nothing()
    assert [time_us for time_us, _ in exchange.advance(100_000)] == [40_000]
    exchange.expect("A", 1, 6)
    assert exchange.stack.counters["TcpExtDelayedACKs"] == 1


def test_every_second_full_segment_is_acknowledged_at_once() -> None:
    exchange = interactive()
    exchange.subflow.acknowledging.segment_bytes = 1000
    exchange.send("A", 1, 1, bytes(1000))
    exchange.expect_nothing()
    exchange.send("A", 1001, 1, bytes(1000))
    exchange.expect("A", 1, 2001)


def test_data_of_ours_carries_the_acknowledgement() -> None:
    exchange = interactive()
    exchange.send("A", 1, 1, b"hello")
    exchange.write(b"hi")
    exchange.expect("A", 1, 6, 2)
    exchange.advance(100_000)
    exchange.expect_nothing()


def test_gap_is_reported_at_once_with_its_blocks() -> None:
    """RFC 5681 §4.2, RFC 2018 §4."""
    exchange = established()
    exchange.send("A", 101, 1, bytes(50))
    segment = exchange.expect("A", 1, 1)
    assert [
        (start - exchange.peer_iss, end - exchange.peer_iss) for start, end in segment.options.sack_blocks
    ] == [(101, 151)]
    exchange.send("A", 1, 1, bytes(100))
    assert exchange.expect("A", 1, 151).options.sack_blocks == ()
    assert exchange.application.readable_bytes == 150


def test_repeated_data_is_acknowledged_at_once_and_not_taken_twice() -> None:
    exchange = established()
    exchange.send("A", 1, 1, b"hello")
    exchange.send("A", 1, 1, b"hello")
    exchange.expect("A", 1, 6)
    assert exchange.read() == b"hello"


def test_overlapping_data_counts_once() -> None:
    exchange = established()
    exchange.send("A", 1, 1, b"hello")
    exchange.send("A", 3, 1, b"llo world")
    assert exchange.read() == b"hello world"


def test_data_beyond_the_window_is_cut() -> None:
    exchange = Exchange(settings=SMALL)
    exchange.establish()
    for position in range(1, 10_001, 1500):
        exchange.send("A", position, 1, bytes(1500))
    assert exchange.application.readable_bytes == 10_000
    exchange.advance(100_000)
    exchange.sent.clear()
    exchange.send("A", 10_001, 1, bytes(100))
    assert exchange.application.readable_bytes == 10_000
    assert exchange.expect("A", 1, 10_001).window == 0


def test_window_opens_when_enough_was_read() -> None:
    """RFC 9293 §3.8.6.2.2: not for every byte."""
    exchange = Exchange(settings=SMALL)
    exchange.establish()
    for position in range(1, 10_001, 1250):
        exchange.send("A", position, 1, bytes(1250))
    exchange.advance(100_000)
    exchange.sent.clear()
    exchange.read(999)
    exchange.expect_nothing()
    exchange.read(5001)
    assert exchange.expect("A", 1, 10_001).window == 6000


def test_right_edge_of_the_window_never_moves_back() -> None:
    """RFC 9293 §3.8.6: small segments that cost a lot of memory must not shrink it."""
    exchange = Exchange(settings=SMALL)
    exchange.establish()
    edge = 0
    for position in range(1, 3000, 10):
        exchange.send("A", position, 1, bytes(10))
        exchange.advance(50_000)
        segment = exchange.expect("A", 1)
        new_edge = exchange.acknowledgement(segment) + segment.window
        assert new_edge >= edge
        edge = new_edge


def test_what_was_once_offered_is_taken_though_another_subflow_used_up_the_window() -> None:
    """RFC 8684 §3.3.4: one window for all of them, but each subflow keeps its right edge."""
    exchange = Exchange(settings=SMALL)
    exchange.establish()
    exchange.send("A", 1, 1, b"x")
    exchange.advance(100_000)
    assert exchange.acknowledgement(exchange.sent[-1]) + exchange.sent.pop().window == 10_001
    exchange.application.receive_buffer.receive(2, bytes(4000))
    exchange.send("A", 0, 1)
    assert exchange.expect("A").window == 5999
    exchange.send("A", 8000, 1, bytes(1000))
    assert exchange.stack.counters["StackDropOutOfWindow"] == 1
    assert exchange.subflow.reassembly.piece_count == 1


@pytest.mark.parametrize("seq", [0, -10])
def test_probe_is_answered_but_not_at_any_rate(seq: int) -> None:
    """RFC 9293 §3.8.6.1; the answers have Linux's rate, so that two ends cannot keep each other busy."""
    exchange = established()
    for _ in range(50):
        exchange.send("A", seq, 1)
    exchange.expect("A", 1, 1)
    exchange.expect_nothing()
    assert exchange.stack.counters["TcpExtTCPACKSkippedSeq"] == 49
    exchange.advance(500_000)
    exchange.send("A", seq, 1)
    exchange.expect("A", 1, 1)


def test_small_segments_out_of_order_are_bounded_by_the_window() -> None:
    exchange = Exchange(settings=SMALL)
    exchange.establish()
    for position in range(3, 30_000, 2):
        exchange.send("A", position, 1, b"x")
    assert exchange.subflow.reassembly.piece_count <= 5000
    exchange.sent.clear()
    for position in range(1, 10_000, 1000):
        exchange.send("A", position, 1, bytes(1000))
    assert exchange.application.readable_bytes == 10_000
    assert exchange.subflow.reassembly.is_empty


def test_without_sack_no_blocks_are_sent() -> None:
    exchange = Exchange(settings=replace(SETTINGS, tcp_sack=False))
    exchange.establish()
    exchange.send("A", 101, 1, bytes(50))
    assert exchange.expect("A", 1, 1).options.sack_blocks == ()


def test_syn_with_data_is_answered_for_the_syn_alone() -> None:
    exchange = Exchange()
    exchange.stack.listen(None, 1000, protocol="tcp")
    exchange.send("S", 0, payload=b"early", options=exchange.peer_options)
    exchange.expect("SA", 0, 1)
    exchange.send("A", 1, 1, b"early")
    assert exchange.read() == b"early"


def test_our_mss_follows_the_mtu() -> None:
    exchange = Exchange(mtu=576)
    exchange.stack.listen(None, 1000, protocol="tcp")
    exchange.send("S", 0, options=exchange.peer_options)
    assert exchange.expect("SA").options.maximum_segment_size == 536


def test_blocks_that_full_segments_have_no_room_for_follow_them() -> None:
    exchange = established()
    exchange.send("A", 101, 1, bytes(50), flush=False)
    length = exchange.subflow.segment_bytes
    exchange.write(bytes(2 * length))
    full = exchange.expect("A", 1, 1, length)
    assert full.options.sack_blocks == ()
    exchange.expect("A", 1 + length, 1, length)
    assert exchange.expect("A", 1 + 2 * length, 1).options.sack_blocks


def test_no_duplicate_is_forgotten_when_several_arrive_at_once() -> None:
    exchange = established()
    exchange.send("A", 1, 1, bytes(300))
    exchange.expect("A", 1, 301)
    for start in (1, 101, 201):
        exchange.send("A", start, 1, bytes(100), flush=False)
    exchange.flush()
    told = [exchange.expect("A", 1, 301).options.sack_blocks for _ in range(3)]
    assert [start - exchange.peer_iss for ((start, _),) in told] == [1, 101, 201]
