"""Records of connections that ended: who may follow, what is answered, how many there may be."""

from __future__ import annotations

from dataclasses import replace
from errno import EADDRNOTAVAIL

import pytest

from mptcp_stack.settings import StackSettings
from mptcp_stack.tcp.states import State
from mptcp_stack.wire.tcp_options import TcpOptions
from tests.tcp.exchange import OUR_PORT, OURS, PEER_PORT, PEERS, SETTINGS, Exchange, in_state

STAMPED = TcpOptions(maximum_segment_size=1000, window_scale=0, timestamp_value=500)


def stamp(value: int) -> TcpOptions:
    return replace(STAMPED, timestamp_value=value)


def in_time_wait(settings: StackSettings = SETTINGS, *, stamped: bool = False) -> Exchange:
    exchange = Exchange(settings=settings, peer_options=STAMPED if stamped else None)
    return in_state(State.TIME_WAIT, exchange)


def waiting(exchange: Exchange) -> int:
    return len(exchange.stack.environment.time_waits)


def reconnect(exchange: Exchange) -> None:
    exchange.stack.connect(PEERS, PEER_PORT, protocol="tcp", local=OURS, local_port=OUR_PORT)
    exchange.flush()


def test_nothing_of_the_connection_is_kept() -> None:
    exchange = in_time_wait()
    assert not exchange.stack.environment.subflows
    exchange.application.close()
    exchange.flush()
    assert not list(exchange.stack.connections())
    assert waiting(exchange) == 1
    assert exchange.stack.counters["TcpExtTW"] == 1


@pytest.mark.parametrize(("seq", "opens"), [(1, False), (2, False), (3, True), (70_000, True), (-5, False)])
def test_syn_needs_a_number_beyond_what_was_received(seq: int, opens: bool) -> None:
    """RFC 9293 §3.6.1."""
    exchange = in_time_wait()
    exchange.stack.listen(None, OUR_PORT, protocol="tcp")
    exchange.send("S", seq, options=exchange.peer_options)
    if opens:
        exchange.expect("SA", 2 + 65_537, seq + 1)
        assert waiting(exchange) == 0
    else:
        exchange.expect("A", 2, 2)
        assert waiting(exchange) == 1


@pytest.mark.parametrize(("value", "opens"), [(499, False), (500, False), (501, True)])
def test_syn_with_a_lower_number_needs_a_newer_timestamp(value: int, opens: bool) -> None:
    """RFC 6191 §2."""
    exchange = in_time_wait(StackSettings(), stamped=True)
    exchange.stack.listen(None, OUR_PORT, protocol="tcp")
    exchange.send("S", -1000, options=stamp(value))
    exchange.expect("SA" if opens else "A")


def test_syn_with_an_older_timestamp_opens_nothing() -> None:
    """RFC 7323 §5.3, whatever its number."""
    exchange = in_time_wait(StackSettings(), stamped=True)
    exchange.stack.listen(None, OUR_PORT, protocol="tcp")
    exchange.send("S", 5000, options=stamp(400))
    exchange.expect("A", 2, 2)
    assert exchange.stack.counters["TcpExtPAWSTimewait"] == 1


def test_new_syn_without_a_listener_is_acknowledged() -> None:
    exchange = in_time_wait()
    exchange.send("S", 5000)
    exchange.expect("A", 2, 2)
    assert waiting(exchange) == 1


def test_reset_ends_it_unless_assassination_is_forbidden() -> None:
    """RFC 1337."""
    for is_forbidden in (False, True):
        exchange = in_time_wait(replace(SETTINGS, tcp_rfc1337=is_forbidden))
        exchange.send("R", 2)
        exchange.expect_nothing()
        assert waiting(exchange) == is_forbidden


def test_number_of_records_is_bounded() -> None:
    exchange = in_state(State.FIN_WAIT_2, Exchange(settings=replace(SETTINGS, tcp_max_tw_buckets=0)))
    exchange.send("FA", 1, 2)
    assert waiting(exchange) == 0
    assert exchange.stack.counters["TcpExtTCPTimeWaitOverflow"] == 1
    assert exchange.stack.counters["TcpExtTW"] == 0


def test_active_open_needs_timestamps_to_follow() -> None:
    exchange = in_time_wait()
    with pytest.raises(OSError, match=str(EADDRNOTAVAIL)):
        reconnect(exchange)


def test_active_open_follows_beyond_the_old_numbers() -> None:
    """RFC 6191 §2: with timestamps, on a port that the application names."""
    exchange = in_time_wait(StackSettings(), stamped=True)
    reconnect(exchange)
    exchange.expect("S", 2 + 65_537)
    assert waiting(exchange) == 0
    assert exchange.stack.counters["TcpExtTWRecycled"] == 1


@pytest.mark.parametrize(("reuse", "wait_us", "follows"), [(1, 1_100_000, True), (1, 900_000, False)])
@pytest.mark.parametrize("other", [0, 2])
def test_port_that_the_stack_chooses(reuse: int, wait_us: int, follows: bool, other: int) -> None:
    """tcp_tw_reuse: 1 allows it after a second, 0 never, 2 on loopback only."""
    for setting in (reuse, other):
        settings = StackSettings(tcp_tw_reuse=setting, local_port_first=OUR_PORT, local_port_last=OUR_PORT)
        exchange = in_time_wait(settings, stamped=True)
        exchange.advance(wait_us)
        exchange.flush()
        if follows and setting == 1:
            exchange.stack.connect(PEERS, PEER_PORT, protocol="tcp")
        else:
            with pytest.raises(OSError, match=str(EADDRNOTAVAIL)):
                exchange.stack.connect(PEERS, PEER_PORT, protocol="tcp")


def test_half_closed_orphan_is_a_record_too() -> None:
    exchange = in_state(State.FIN_WAIT_1)
    exchange.close()
    exchange.send("A", 1, 2)
    assert not exchange.stack.environment.subflows
    assert not list(exchange.stack.connections())
    exchange.must_be_in(State.FIN_WAIT_2)
    exchange.send("A", 1, 2, b"nobody reads this")
    exchange.expect("R", 2)
    assert waiting(exchange) == 0


def test_fin_beside_the_acknowledgement_of_ours_is_not_lost() -> None:
    exchange = in_state(State.FIN_WAIT_1)
    exchange.close()
    exchange.send("FA", 1, 2)
    exchange.expect("A", 2, 2)
    exchange.must_be_in(State.TIME_WAIT)


def test_records_go_when_their_time_has_come() -> None:
    exchange = in_time_wait()
    exchange.advance(30_000_000)
    exchange.send("FA", 1, 2)
    exchange.advance(59_999_999)
    assert waiting(exchange) == 1
    exchange.advance(1)
    assert waiting(exchange) == 0
    assert exchange.stack.next_deadline_us() is None
