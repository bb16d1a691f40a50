"""The state machine: its table, and every segment in every state (RFC 9293 §3.10.7)."""

from __future__ import annotations

from errno import ECONNREFUSED, ECONNRESET, EPIPE, ETIMEDOUT
from itertools import product

import pytest

from mptcp_stack.tcp.states import TRANSITIONS, Event, State, follow
from mptcp_stack.wire.tcp_options import TcpOptions
from tests.tcp.exchange import LETTERS, Exchange, established, in_state, shown

LIVING = [state for state in State if state is not State.CLOSED]
SYNCHRONIZED = [state for state in LIVING if state not in (State.SYN_SENT, State.SYN_RECEIVED)]


def test_every_state_can_be_reached_and_left() -> None:
    reached, waiting = {State.CLOSED}, [State.CLOSED]
    while waiting:
        state = waiting.pop()
        for (before, _), after in TRANSITIONS.items():
            if before is state and after not in reached:
                reached.add(after)
                waiting.append(after)
    assert reached == set(State)
    assert all(follow(state, Event.RESET) is State.CLOSED for state in LIVING)


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.CLOSED, Event.FIN_RECEIVED),
        (State.SYN_SENT, Event.FIN_SENT),
        (State.TIME_WAIT, Event.FIN_RECEIVED),
        (State.CLOSED, Event.RESET),
    ],
)
def test_an_impossible_event_is_an_error(state: State, event: Event) -> None:
    with pytest.raises(KeyError):
        follow(state, event)


@pytest.mark.parametrize("state", LIVING)
def test_every_segment_in_every_state(state: State) -> None:
    """All flags, at and beside the expected numbers, twice: no exception, and a bounded answer."""
    for flags in product("SAFRP", repeat=2):
        for seq, ack, payload in product((-1, 0, 1, 2, 3, 70_000), (-1, 0, 1, 2, 3), (b"", b"xy")):
            exchange = in_state(state)
            for _ in range(2):
                exchange.sent.clear()
                exchange.send("".join(set(flags)), seq, ack, payload)
                assert len(exchange.sent) <= 2


@pytest.mark.parametrize("state", SYNCHRONIZED)
def test_reset_at_the_next_number_ends_the_connection(state: State) -> None:
    exchange = in_state(state)
    exchange.send("R", exchange.subflow.rcv_nxt - exchange.subflow.irs)
    exchange.must_be_in(State.CLOSED)
    assert not exchange.stack.environment.subflows
    exchange.expect_nothing()
    expected = {State.CLOSE_WAIT: EPIPE, State.TIME_WAIT: None, State.LAST_ACK: ECONNRESET}
    assert exchange.application.error == expected.get(state, ECONNRESET)


@pytest.mark.parametrize("state", SYNCHRONIZED)
@pytest.mark.parametrize("offset", [1, 1000, 59_000])
def test_reset_elsewhere_in_the_window_is_challenged(state: State, offset: int) -> None:
    """RFC 5961 §3.2."""
    exchange = in_state(state)
    exchange.advance(1_000)
    exchange.sent.clear()
    exchange.send("R", exchange.subflow.rcv_nxt - exchange.subflow.irs + offset)
    exchange.must_be_in(state)
    if state is not State.TIME_WAIT:
        exchange.expect("A")
        assert exchange.stack.counters["TcpExtTCPChallengeACK"] == 1


@pytest.mark.parametrize("state", SYNCHRONIZED)
def test_reset_outside_the_window_is_dropped(state: State) -> None:
    exchange = in_state(state)
    for seq in (-1, -10_000, 10_000_000):
        exchange.send("R", seq)
    exchange.must_be_in(state)
    exchange.expect_nothing()
    assert exchange.stack.counters["StackDropOutOfWindow"] == 3


@pytest.mark.parametrize("state", [state for state in SYNCHRONIZED if state is not State.TIME_WAIT])
@pytest.mark.parametrize("seq", [0, 2, 3, 1000])
def test_syn_on_a_connection_is_challenged(state: State, seq: int) -> None:
    """RFC 5961 §4.2: once in a while, however many come."""
    exchange = in_state(state)
    for _ in range(5):
        exchange.send("S", seq)
    exchange.must_be_in(state)
    exchange.expect("A")
    exchange.expect_nothing()


def test_challenges_have_a_rate() -> None:
    exchange = established()
    for _ in range(100):
        exchange.send("R", 2)
    exchange.expect("A", 1, 1)
    exchange.expect_nothing()
    exchange.advance(500_000)
    exchange.send("R", 2)
    exchange.expect("A", 1, 1)


@pytest.mark.parametrize("ack", [2, 1 << 20, -70_000, -(1 << 20)])
def test_acknowledgement_of_what_was_not_sent_or_is_long_past_is_challenged(ack: int) -> None:
    """RFC 5961 §5.2: its data is not taken either."""
    exchange = established()
    exchange.send("A", 1, ack, b"evil")
    assert exchange.application.readable_bytes == 0
    exchange.expect("A", 1, 1)
    assert exchange.stack.counters["StackDropBadAcknowledgement"] == 1


def test_segment_without_ack_is_dropped() -> None:
    exchange = established()
    exchange.send("", 1, payload=b"evil")
    assert exchange.application.readable_bytes == 0
    exchange.expect_nothing()


# --- opening ---


def test_connection_refused() -> None:
    exchange = in_state(State.SYN_SENT)
    exchange.send("RA", 0, 1)
    assert exchange.application.error == ECONNREFUSED
    exchange.expect_nothing()


@pytest.mark.parametrize("flags", ["R", "RA"])
def test_reset_that_acknowledges_nothing_of_ours_does_not_refuse(flags: str) -> None:
    exchange = in_state(State.SYN_SENT)
    exchange.send(flags, 0, 7)
    exchange.must_be_in(State.SYN_SENT)
    exchange.expect_nothing()


def test_old_connection_of_the_peer_is_reset() -> None:
    """RFC 9293 §3.5.1, figure 9: the peer answers our SYN out of a connection that we have forgotten."""
    exchange = in_state(State.SYN_SENT)
    exchange.send("A", 500, 300)
    exchange.expect("R", 300)
    exchange.must_be_in(State.SYN_SENT)
    exchange.send("SA", 0, 1, options=exchange.peer_options)
    exchange.expect("A", 1, 1)


def test_wrong_third_packet_does_not_end_the_handshake() -> None:
    """RFC 9293 §3.10.7.4, fifth step: a RST for the segment, and nothing else happens."""
    exchange = in_state(State.SYN_RECEIVED)
    exchange.send("A", 1, 12345)
    exchange.expect("R", 12345)
    exchange.must_be_in(State.SYN_RECEIVED)
    exchange.send("A", 1, 1)
    exchange.must_be_in(State.ESTABLISHED)


def test_repeated_syn_gets_the_same_answer() -> None:
    exchange = in_state(State.SYN_RECEIVED)
    exchange.send("S", 0, options=exchange.peer_options)
    exchange.expect("SA", 0, 1)
    assert len(exchange.stack.environment.requests) == 1


def test_simultaneous_open() -> None:
    """RFC 9293 §3.5, figure 7: no segment may be answered by its like for ever."""
    exchange = in_state(State.SYN_SENT, Exchange(peer_options=TcpOptions(window_scale=3)))
    exchange.send("S", 0, options=exchange.peer_options)
    exchange.expect("SA", 0, 1)
    exchange.must_be_in(State.SYN_RECEIVED)
    exchange.send("SA", 0, 1, options=exchange.peer_options)
    exchange.must_be_in(State.ESTABLISHED)
    assert exchange.subflow.snd_wnd == 60_000
    exchange.sent.clear()
    exchange.send("SA", 0, 1, options=exchange.peer_options)
    exchange.expect("A", 1, 1)
    exchange.send("A", 1, 1, b"data")
    assert exchange.read() == b"data"


def test_connection_of_a_port_with_itself() -> None:
    exchange = Exchange()
    connection = exchange.stack.connect(
        exchange.interface.addresses[0].address,
        1000,
        protocol="tcp",
        local=exchange.interface.addresses[0].address,
        local_port=1000,
    )
    exchange.flush()
    assert connection.is_established
    connection.write(b"to myself")
    exchange.flush()
    assert connection.read(100) == b"to myself"
    connection.close()
    exchange.advance(200_000_000)
    assert not exchange.stack.environment.subflows


def test_syn_is_repeated_by_the_schedule() -> None:
    """RFC 6298 §5.5 with Linux's four linear time-outs, and six tries after them."""
    exchange = in_state(State.SYN_SENT)
    times = [time_us for time_us, segment in exchange.advance(130_000_000) if shown(segment) == "S"]
    assert times == [1_000_000 * second for second in (1, 2, 3, 4, 5, 7, 11, 19, 35, 67)]
    assert exchange.application.error is None
    exchange.advance(2_000_000)
    assert exchange.application.error == ETIMEDOUT


def test_syn_ack_is_repeated_by_the_schedule() -> None:
    exchange = in_state(State.SYN_RECEIVED)
    times = [time_us for time_us, segment in exchange.advance(70_000_000) if shown(segment) == "AS"]
    assert times == [1_000_000 * second for second in (1, 3, 7, 15, 31)]
    assert not len(exchange.stack.environment.requests)


# --- closing ---


@pytest.mark.parametrize(
    ("state", "after"),
    [
        (State.ESTABLISHED, State.CLOSE_WAIT),
        (State.FIN_WAIT_1, State.CLOSING),
        (State.FIN_WAIT_2, State.TIME_WAIT),
    ],
)
def test_fin_is_acknowledged_at_once_and_again_when_repeated(state: State, after: State) -> None:
    exchange = in_state(state)
    ack = exchange.subflow.snd_una - exchange.subflow.snd_iss
    exchange.send("FA", 1, ack)
    exchange.must_be_in(after)
    exchange.advance(0)
    exchange.expect("A", ack=2)
    exchange.send("FA", 1, ack)
    exchange.expect("A", ack=2)
    exchange.expect_nothing()


def test_fin_with_the_acknowledgement_of_ours() -> None:
    exchange = in_state(State.FIN_WAIT_1)
    exchange.send("FA", 1, 2)
    exchange.must_be_in(State.TIME_WAIT)
    exchange.expect("A", 2, 2)


def test_simultaneous_close() -> None:
    exchange = in_state(State.CLOSING)
    exchange.send("A", 2, 2)
    exchange.must_be_in(State.TIME_WAIT)
    exchange.expect_nothing()
    exchange.send("A", 2, 2)
    exchange.expect_nothing()


def test_fin_is_acknowledged_although_the_acknowledgement_of_ours_comes_with_it() -> None:
    exchange = in_state(State.FIN_WAIT_1)
    exchange.send("FA", 1, 1, flush=False)
    exchange.send("A", 2, 2)
    exchange.must_be_in(State.TIME_WAIT)
    exchange.expect("A", 2, 2)
    exchange.expect_nothing()


def test_last_acknowledgement_ends_everything() -> None:
    exchange = in_state(State.LAST_ACK)
    exchange.send("A", 2, 2)
    exchange.must_be_in(State.CLOSED)
    assert not exchange.stack.environment.subflows
    assert exchange.application.is_closed


def test_fin_waits_for_the_bytes_before_it() -> None:
    exchange = established()
    exchange.send("FA", 4, 1, b"def")
    exchange.expect("A", ack=1)
    exchange.must_be_in(State.ESTABLISHED)
    exchange.send("A", 1, 1, b"abc")
    exchange.sent.clear()
    exchange.send("FA", 4, 1, b"def")
    exchange.must_be_in(State.CLOSE_WAIT)
    assert exchange.read() == b"abcdef"
    assert exchange.application.end_of_stream


@pytest.mark.parametrize("state", [State.CLOSE_WAIT, State.CLOSING, State.LAST_ACK])
def test_data_beyond_the_fin_is_not_taken(state: State) -> None:
    exchange = in_state(state)
    exchange.send("A", 2, 1, b"too late")
    assert exchange.application.readable_bytes == 0
    exchange.must_be_in(state)
    exchange.expect_nothing()


def test_half_closed_connection_still_receives() -> None:
    exchange = in_state(State.FIN_WAIT_2)
    exchange.send("A", 1, 2, b"still here")
    assert exchange.read() == b"still here"
    exchange.advance(3_600_000_000)
    exchange.send("FA", 11, 2)
    exchange.must_be_in(State.TIME_WAIT)


def test_half_closed_connection_still_sends() -> None:
    exchange = in_state(State.CLOSE_WAIT)
    exchange.write(b"the answer")
    exchange.expect("A", 1, 2, 10)
    exchange.send("A", 2, 11)
    exchange.shut_down()
    exchange.expect("AF", 11, 2)
    exchange.must_be_in(State.LAST_ACK)


def test_orphan_does_not_wait_for_the_peers_fin_for_ever() -> None:
    exchange = established()
    exchange.close()
    exchange.expect("AF", 1)
    exchange.send("A", 1, 2)
    exchange.must_be_in(State.FIN_WAIT_2)
    exchange.advance(59_000_000)
    exchange.must_be_in(State.FIN_WAIT_2)
    exchange.advance(2_000_000)
    exchange.must_be_in(State.CLOSED)
    assert not list(exchange.stack.connections())


def test_data_for_a_closed_application_is_answered_with_a_reset() -> None:
    exchange = established()
    exchange.close()
    exchange.sent.clear()
    exchange.send("A", 1, 2, b"nobody reads this")
    assert "R" in shown(exchange.sent[-1])
    exchange.must_be_in(State.CLOSED)


def test_time_wait_lasts_a_minute_from_the_last_fin() -> None:
    exchange = in_state(State.TIME_WAIT)
    exchange.advance(50_000_000)
    exchange.send("FA", 1, 2)
    exchange.expect("A", 2, 2)
    exchange.advance(59_999_999)
    exchange.must_be_in(State.TIME_WAIT)
    exchange.advance(1)
    exchange.must_be_in(State.CLOSED)
    assert not exchange.stack.environment.subflows
    assert exchange.stack.counters["TcpExtTW"] == 1


def test_segment_without_length_is_not_answered_in_time_wait() -> None:
    """Two ends in TIME_WAIT would answer each other for a minute; what is out of place is, at a rate."""
    exchange = in_state(State.TIME_WAIT)
    for _ in range(10):
        exchange.send("A", 2, 2)
    exchange.expect_nothing()
    for seq in (1, 3) * 10:
        exchange.send("A", seq, 2)
    exchange.expect("A", 2, 2)
    exchange.expect_nothing()


def test_closing_during_the_handshake_sends_the_fin_after_it() -> None:
    """RFC 9293 §3.10.4. Only a simultaneous open has an application by then."""
    exchange = in_state(State.SYN_SENT)
    exchange.send("S", 0)
    exchange.expect("SA", 0, 1)
    exchange.subflow.close()
    exchange.flush()
    exchange.expect_nothing()
    exchange.send("A", 1, 1)
    exchange.expect("AF", 1, 1)
    exchange.must_be_in(State.FIN_WAIT_1)


def test_segment_for_nobody_gets_a_reset() -> None:
    """RFC 9293 §3.10.7.1."""
    exchange = Exchange()
    exchange.send("A", 77, 33, b"abc")
    exchange.expect("R", 33)
    exchange.send("F", 77, 0, b"abc")
    exchange.expect("AR", ack=81)
    exchange.send("R", 5, 5)
    exchange.expect_nothing()


def test_options_of_a_syn() -> None:
    exchange = Exchange(peer_options=TcpOptions())
    exchange.stack.listen(None, 1000, protocol="tcp")
    exchange.send("S", 0, options=TcpOptions())
    answer = exchange.expect("SA", 0, 1)
    assert answer.options.window_scale is None
    assert not answer.options.sack_permitted
    assert answer.options.maximum_segment_size == 1460
    assert set(LETTERS) == set("SAFRP")
