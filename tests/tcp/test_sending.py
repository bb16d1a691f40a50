"""What is sent, when, and again: windows, losses, time-outs."""

from __future__ import annotations

from dataclasses import replace
from errno import ETIMEDOUT
from itertools import pairwise

import pytest

from mptcp_stack.settings import StackSettings
from mptcp_stack.tcp.states import Recovery, State
from mptcp_stack.wire.tcp_options import TcpOptions
from tests.tcp.exchange import SETTINGS, Exchange, established, in_state, interactive, shown

MSS = 1000
NO_SACK = TcpOptions(maximum_segment_size=MSS, window_scale=0)


def sack(exchange: Exchange, *blocks: tuple[int, int]) -> TcpOptions:
    """Blocks relative to our initial sequence number."""
    return TcpOptions(
        sack_blocks=tuple(
            ((exchange.iss + start) & 0xFFFFFFFF, (exchange.iss + end) & 0xFFFFFFFF) for start, end in blocks
        )
    )


def sequences(exchange: Exchange) -> list[int]:
    """Where the segments with data start that were sent since the last look."""
    result = [exchange.sequence(segment) for segment in exchange.sent if len(segment.payload)]
    exchange.sent.clear()
    return result


def test_data_is_cut_into_segments_and_the_last_is_pushed() -> None:
    exchange = established()
    exchange.write(bytes(2500))
    assert [len(segment.payload) for segment in exchange.sent] == [1000, 1000, 500]
    assert [bool(segment.flags & 8) for segment in exchange.sent] == [False, False, True]


@pytest.mark.parametrize(("mss", "expected"), [(536, 536), (9000, 1460), (1, 88), (0, 536), (None, 536)])
def test_segments_fit_the_peers_mss_and_our_mtu(mss: int | None, expected: int) -> None:
    """RFC 9293 §3.7.1; as in Linux 0 says nothing, and below 88 it does not go."""
    exchange = established(Exchange(peer_options=TcpOptions(maximum_segment_size=mss)))
    exchange.write(bytes(5000))
    assert max(len(segment.payload) for segment in exchange.sent) == expected


def test_initial_window_is_ten_segments() -> None:
    exchange = established()
    exchange.write(bytes(50_000))
    assert sequences(exchange) == [1 + MSS * number for number in range(10)]
    exchange.send("A", 1, 1 + 2 * MSS)
    assert sequences(exchange) == [1 + MSS * number for number in range(10, 14)]


def test_nothing_is_sent_beyond_the_peers_window() -> None:
    exchange = Exchange()
    exchange.establish(window=2500)
    exchange.write(bytes(10_000))
    assert [len(segment.payload) for segment in exchange.sent] == [1000, 1000]
    exchange.sent.clear()
    exchange.send("A", 1, 2001, window=3000)
    assert sequences(exchange) == [2001, 3001, 4001]


def test_windows_are_scaled() -> None:
    options = TcpOptions(maximum_segment_size=MSS, window_scale=3)
    exchange = established(Exchange(peer_options=options))
    # The window of a SYN is never scaled (RFC 7323 §2.2).
    assert exchange.subflow.snd_wnd == 60_000
    exchange.send("A", 1, 1, window=1000)
    assert exchange.subflow.snd_wnd == 8000
    exchange.send("A", 1, 1, b"x")
    exchange.advance(100_000)
    window = exchange.expect("A").window
    assert window << exchange.stack.settings.receive_window_scale == 64_128


def test_shift_above_fourteen_is_taken_as_fourteen() -> None:
    """RFC 7323 §2.3."""
    exchange = established(Exchange(peer_options=TcpOptions(window_scale=200)))
    assert exchange.subflow.snd_wnd_scale == 14


def test_without_window_scaling_nothing_is_scaled() -> None:
    exchange = established(Exchange(peer_options=TcpOptions()))
    exchange.send("A", 1, 1, b"x", window=1000)
    exchange.advance(100_000)
    assert exchange.expect("A").window == 64_239
    assert exchange.subflow.snd_wnd == 1000


# --- losses ---


ROUND_TRIP_US = 100_000
NO_PROBES = replace(SETTINGS, tcp_early_retrans=False)


def distant(exchange: Exchange | None = None) -> Exchange:
    """Established, and the handshake took a round trip."""
    exchange = exchange or Exchange()
    exchange.connect()
    exchange.advance(ROUND_TRIP_US)
    exchange.send("SA", 0, 1, options=exchange.peer_options)
    exchange.expect("A", 1, 1)
    return exchange


def lossy_flight(settings: StackSettings = SETTINGS, segments: int = 10) -> Exchange:
    """Ten segments sent a round trip ago, nothing acknowledged."""
    exchange = distant(Exchange(settings=settings))
    exchange.write(bytes(segments * MSS))
    assert len(sequences(exchange)) == 10
    exchange.advance(ROUND_TRIP_US)
    return exchange


def test_third_duplicate_brings_the_retransmission_at_once() -> None:
    """RFC 8985 §6.2: as long as the path does not reorder, the third does not wait."""
    exchange = lossy_flight()
    for number in (2, 3):
        exchange.send("A", 1, 1, options=sack(exchange, (1001, 1001 + MSS * (number - 1))))
        assert sequences(exchange) == []
    exchange.send("A", 1, 1, options=sack(exchange, (1001, 4001)))
    assert sequences(exchange) == [1]
    assert exchange.subflow.recovery is Recovery.FAST
    assert exchange.subflow.congestion.slow_start_threshold == 5 * MSS
    assert exchange.stack.counters["TcpExtTCPSackRecovery"] == 1
    assert exchange.stack.counters["TcpExtTCPFastRetrans"] == 1


def test_recovery_ends_when_all_that_was_outstanding_is_acknowledged() -> None:
    exchange = lossy_flight()
    exchange.send("A", 1, 1, options=sack(exchange, (1001, 10_001)))
    exchange.send("A", 1, 10_001)
    assert exchange.subflow.recovery.name == "NONE"
    assert exchange.subflow.congestion.congestion_window == 5 * MSS


def test_two_holes_are_both_repaired_in_one_recovery() -> None:
    exchange = lossy_flight()
    exchange.send("A", 1, 1, options=sack(exchange, (1001, 3001), (4001, 10_001)))
    assert sequences(exchange) == [1, 3001]
    exchange.advance(ROUND_TRIP_US)
    exchange.send("A", 1, 10_001)
    assert exchange.subflow.recovery is Recovery.NONE
    assert exchange.stack.counters["TcpExtTCPSackRecovery"] == 1


def test_retransmission_that_is_lost_too_is_repeated_without_a_timeout() -> None:
    """RFC 8985 §6.2: what was sent a good while after it has arrived."""
    exchange = lossy_flight(segments=30)
    exchange.send("A", 1, 1, options=sack(exchange, (1001, 10_001)))
    assert sequences(exchange) == [1, 10_001, 11_001, 12_001, 13_001]
    exchange.advance(ROUND_TRIP_US)
    exchange.send("A", 1, 1, options=sack(exchange, (1001, 11_001)))
    assert sequences(exchange) == [1, 14_001]
    assert exchange.stack.counters["TcpExtTCPLostRetransmit"] == 1
    assert exchange.stack.counters["TcpExtTCPTimeouts"] == 0


def test_without_sack_three_duplicates_and_partial_acknowledgements() -> None:
    """RFC 6582 §3.2: one lost segment for each round trip, without waiting for the timer."""
    exchange = established(Exchange(peer_options=NO_SACK))
    exchange.write(bytes(10 * MSS))
    sequences(exchange)
    for _ in range(2):
        exchange.send("A", 1, 1)
    assert sequences(exchange) == []
    exchange.send("A", 1, 1)
    assert sequences(exchange) == [1]
    for _ in range(5):
        exchange.send("A", 1, 1)
    exchange.send("A", 1, 3001)
    assert sequences(exchange) == [3001]
    exchange.send("A", 1, 10_001)
    assert sequences(exchange) == []
    exchange.write(bytes(MSS))
    exchange.send("A", 1, 11_001)
    assert exchange.subflow.recovery is Recovery.NONE
    assert exchange.stack.counters["TcpExtTCPRenoRecovery"] == 1


def test_without_sack_duplicates_let_new_data_go() -> None:
    """RFC 3042 §2, then at half the rate (RFC 6937 §3): each means that a segment has left the network."""
    exchange = established(Exchange(peer_options=NO_SACK))
    exchange.write(bytes(30 * MSS))
    sequences(exchange)
    for _ in range(9):
        exchange.send("A", 1, 1)
    assert sequences(exchange) == [10_001, 11_001, 1, 12_001, 13_001]


def test_segments_that_are_no_duplicates_do_not_count() -> None:
    """RFC 5681 §2: data, another window, nothing outstanding."""
    exchange = established(Exchange(peer_options=NO_SACK))
    exchange.write(bytes(2 * MSS))
    sequences(exchange)
    exchange.send("A", 1, 1, b"abc")
    exchange.send("A", 4, 1, window=50_000)
    exchange.send("A", 4, 1, window=40_000)
    exchange.send("A", 4, 1, window=30_000)
    assert sequences(exchange) == []
    assert exchange.subflow.duplicate_acknowledgements == 0


def test_timeouts_back_off_and_the_connection_gives_up() -> None:
    """RFC 6298 §5.5; the handshake took no time, so that the first time-out is the floor's.

    The time that the settings allow counts from the first repetition, so that there is one more of them.
    """
    exchange = established(Exchange(settings=replace(NO_PROBES, tcp_retries2=5)))
    exchange.write(b"data")
    exchange.expect("A", 1, length=4)
    repeated = [(time_us, len(segment.payload)) for time_us, segment in exchange.advance(100_000_000)]
    assert [length for _, length in repeated] == [4] * 6
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(repeated)]
    assert gaps == [repeated[0][0] * 2**number for number in range(1, 6)]
    assert exchange.application.error == ETIMEDOUT
    exchange.sent.clear()


@pytest.mark.parametrize(("owned", "tries"), [(True, 16), (False, 9)])
def test_fin_that_nobody_waits_for_is_given_up_sooner(owned: bool, tries: int) -> None:
    exchange = established(Exchange(settings=NO_PROBES))
    if owned:
        exchange.shut_down()
    else:
        exchange.close()
    exchange.expect("FA", 1)
    assert len(exchange.advance(2_000_000_000)) == tries
    exchange.must_be_in(State.CLOSED)
    assert not list(exchange.stack.connections())
    exchange.sent.clear()


def test_slow_back_off_of_an_orphan_is_not_waited_for() -> None:
    """Linux: none is kept once the time-out has become the longest."""
    exchange = established(Exchange(settings=replace(NO_PROBES, maximum_rto_us=1_000_000)))
    exchange.close()
    exchange.expect("FA", 1)
    assert [time_us for time_us, _ in exchange.advance(2_000_000_000)] == [200_001, 600_003, 1_400_007]
    exchange.must_be_in(State.CLOSED)
    exchange.sent.clear()


def test_timeout_sends_one_segment_and_then_slow_start() -> None:
    exchange = lossy_flight(NO_PROBES)
    exchange.advance(200_000)
    assert sequences(exchange) == [1]
    assert exchange.subflow.congestion.congestion_window == MSS
    exchange.send("A", 1, 1001)
    assert sequences(exchange) == [1001, 2001]


def test_timer_starts_anew_with_every_acknowledgement_that_moves() -> None:
    """RFC 6298 §5.3."""
    exchange = lossy_flight(NO_PROBES)
    for acknowledged in range(1, 5):
        exchange.advance(150_000)
        exchange.send("A", 1, 1 + acknowledged * MSS)
    assert exchange.stack.counters["TcpRetransSegs"] == 0


def test_data_after_a_repeated_handshake_waits_three_seconds() -> None:
    """RFC 6298 §5.7: without timestamps a repeated SYN gives no sample."""
    exchange = in_state(State.SYN_SENT, Exchange(settings=NO_PROBES))
    exchange.advance(2_500_000)
    exchange.sent.clear()
    exchange.send("SA", 0, 1, options=exchange.peer_options)
    exchange.sent.clear()
    exchange.write(bytes(5 * MSS))
    assert len(sequences(exchange)) == 1
    assert exchange.advance(2_900_000) == []
    assert len(exchange.advance(200_000)) == 1


# --- a window of zero ---


def test_zero_window_is_probed_until_it_opens() -> None:
    exchange = Exchange()
    exchange.establish(window=0)
    exchange.write(bytes(3000))
    exchange.expect_nothing()
    probes = exchange.advance(3_500_000)
    assert [exchange.sequence(segment) for _, segment in probes] == [0] * len(probes)
    assert [len(segment.payload) for _, segment in probes] == [0] * len(probes)
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(probes)]
    assert gaps[1:] == [2 * gap for gap in gaps[:-1]]
    assert exchange.stack.counters["TcpExtTCPWinProbe"] == len(probes) >= 3
    exchange.sent.clear()
    exchange.send("A", 1, 1, window=10_000)
    assert sequences(exchange) == [1, 1001, 2001]
    exchange.send("A", 1, 3001, window=10_000)
    assert exchange.advance(100_000) == []


def test_answered_probes_go_on_and_unanswered_ones_give_up() -> None:
    exchange = Exchange(settings=replace(SETTINGS, tcp_retries2=4, maximum_rto_us=1_000_000))
    exchange.establish(window=0)
    exchange.write(b"x")
    for _ in range(20):
        exchange.advance(1_000_000)
        exchange.send("A", 1, 1, window=0)
    assert exchange.application.error is None
    exchange.advance(10_000_000)
    assert exchange.application.error == ETIMEDOUT


def test_window_that_opens_a_little_is_used_when_nothing_is_in_flight() -> None:
    """RFC 9293 §3.8.6.2.1: no tiny segments while an acknowledgement is to come."""
    exchange = Exchange()
    exchange.establish(window=2500)
    exchange.write(bytes(5000))
    assert sequences(exchange) == [1, 1001]
    exchange.send("A", 1, 2001, window=300)
    exchange.expect_nothing()
    exchange.advance(exchange.subflow.round_trip.rto_us)
    assert sequences(exchange) == [2001]


def test_shrunken_window_is_respected() -> None:
    exchange = established()
    exchange.write(bytes(3000))
    exchange.sent.clear()
    exchange.send("A", 1, 3001, window=0)
    exchange.write(bytes(1000))
    assert sequences(exchange) == []


# --- the wrap of the sequence numbers ---


@pytest.mark.parametrize("distance", [0, 1, 2, 500, 1001, 5000, 1 << 31])
def test_sequence_numbers_wrap_on_both_sides(distance: int) -> None:
    start = ((1 << 32) - distance) & 0xFFFFFFFF
    exchange = established(Exchange(iss=start, peer_iss=start))
    exchange.write(bytes(4000))
    assert sequences(exchange) == [1, 1001, 2001, 3001]
    exchange.send("A", 1, 1, options=sack(exchange, (1001, 4001)))
    assert sequences(exchange) == [1]
    exchange.send("A", 1, 4001)
    for position in (1001, 1, 2001):
        exchange.send("A", position, 4001, bytes(1000))
    assert len(exchange.read()) == 3000
    exchange.sent.clear()
    exchange.send("FA", 3001, 4001)
    exchange.shut_down()
    exchange.send("A", 3002, 4002)
    assert exchange.subflow.state is State.CLOSED
    assert exchange.application.error is None


# --- timestamps ---


def with_timestamps() -> Exchange:
    options = TcpOptions(maximum_segment_size=MSS, sack_permitted=True, timestamp_value=100, window_scale=0)
    return established(Exchange(settings=StackSettings(), peer_options=options))


def stamped(value: int, echo: int = 0) -> TcpOptions:
    return TcpOptions(timestamp_value=value, timestamp_echo=echo)


def test_timestamps_are_echoed_for_the_earliest_unacknowledged_segment() -> None:
    """RFC 7323 §4.3: the delay of our acknowledgement belongs to the round trip."""
    exchange = interactive(with_timestamps())
    exchange.send("A", 1, 1, b"a", options=stamped(110))
    exchange.send("A", 2, 1, b"b", options=stamped(150))
    exchange.advance(100_000)
    assert exchange.expect("A", ack=3).options.timestamp_echo == 110
    exchange.send("A", 3, 1, b"c", options=stamped(160))
    exchange.advance(100_000)
    assert exchange.expect("A", ack=4).options.timestamp_echo == 160


def test_older_timestamp_is_dropped_and_answered() -> None:
    """PAWS, RFC 7323 §5.3."""
    exchange = with_timestamps()
    exchange.send("A", 1, 1, b"old", options=stamped(99))
    assert exchange.application.readable_bytes == 0
    exchange.expect("A", 1, 1)
    assert exchange.stack.counters["TcpExtPAWSEstab"] == 1
    exchange.send("A", 1, 1, b"new", options=stamped(100))
    assert exchange.read() == b"new"


def test_timestamps_wrap() -> None:
    options = TcpOptions(timestamp_value=0xFFFFFFFE, window_scale=0)
    exchange = established(Exchange(settings=StackSettings(), peer_options=options))
    exchange.send("A", 1, 1, b"a", options=stamped(1))
    assert exchange.read() == b"a"


def test_timestamp_is_forgotten_after_24_days() -> None:
    """RFC 7323 §5.5."""
    exchange = with_timestamps()
    exchange.advance(25 * 86_400 * 1_000_000)
    exchange.send("A", 1, 1, b"a", options=stamped(50))
    assert exchange.read() == b"a"
    exchange.send("A", 2, 1, b"b", options=stamped(51))
    assert exchange.read() == b"b"


def test_a_segment_with_a_bad_acknowledgement_leaves_no_timestamp() -> None:
    """Or who guesses a sequence number alone could have all that is genuine dropped by PAWS."""
    exchange = with_timestamps()
    exchange.send("A", 1, 5000, options=stamped(1 << 30))
    exchange.send("S", 1, options=stamped(1 << 30))
    exchange.send("A", 1, 1, b"genuine", options=stamped(101))
    assert exchange.read() == b"genuine"


def test_reset_needs_no_current_timestamp() -> None:
    """RFC 7323 §5.2."""
    exchange = with_timestamps()
    exchange.send("R", 1, options=stamped(5))
    assert exchange.subflow.state is State.CLOSED


def test_echo_gives_a_sample_after_a_retransmission() -> None:
    exchange = with_timestamps()
    exchange.advance(100_000)
    exchange.write(b"x")
    exchange.sent.clear()
    exchange.advance(400_000)
    repeated = exchange.sent[-1]
    exchange.sent.clear()
    exchange.advance(50_000)
    exchange.send("A", 1, 2, options=stamped(100, repeated.options.timestamp_value or 0))
    assert shown(repeated) == "A"
    assert exchange.stack.counters["TcpRetransSegs"] >= 1
    assert exchange.subflow.round_trip.rto_us < 1_000_000
