"""ICMP errors about our segments (RFC 5461, RFC 5927)."""

from __future__ import annotations

from errno import ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EPROTO, ETIMEDOUT

import pytest

from mptcp_stack.ip.layer import IcmpError, IcmpErrorKind
from mptcp_stack.tcp.icmp_errors import on_icmp_error
from mptcp_stack.tcp.states import State
from tests.tcp.exchange import MASK, OUR_PORT, OURS, PEER_PORT, PEERS, Exchange, in_state


def error(exchange: Exchange, kind: IcmpErrorKind, offset: int = 0, length: int = 8) -> IcmpError:
    """One that quotes a segment of ours at ``offset`` from our initial number."""
    quoted = OUR_PORT.to_bytes(2, "big") + PEER_PORT.to_bytes(2, "big")
    quoted += ((exchange.iss + offset) & MASK).to_bytes(4, "big")
    return IcmpError(
        source=OURS,
        destination=PEERS,
        protocol=6,
        transport=memoryview(quoted)[:length],
        kind=kind,
        mtu=None,
        icmp_source=PEERS,
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (IcmpErrorKind.PORT_UNREACHABLE, ECONNREFUSED),
        (IcmpErrorKind.HOST_UNREACHABLE, EHOSTUNREACH),
        (IcmpErrorKind.NETWORK_UNREACHABLE, ENETUNREACH),
        (IcmpErrorKind.HOST_REFUSED, EHOSTUNREACH),
        (IcmpErrorKind.NETWORK_REFUSED, ENETUNREACH),
        (IcmpErrorKind.TIME_EXCEEDED, EHOSTUNREACH),
        (IcmpErrorKind.PARAMETER_PROBLEM, EPROTO),
    ],
)
def test_attempt_to_connect_ends(kind: IcmpErrorKind, expected: int) -> None:
    exchange = in_state(State.SYN_SENT)
    on_icmp_error(exchange.stack.environment, error(exchange, kind), exchange.now_us)
    assert exchange.application.error == expected


@pytest.mark.parametrize("kind", list(IcmpErrorKind))
@pytest.mark.parametrize("state", [state for state in State if state not in (State.CLOSED, State.SYN_SENT)])
def test_connection_goes_on(state: State, kind: IcmpErrorKind) -> None:
    if state is State.SYN_RECEIVED:
        kind = IcmpErrorKind.PORT_UNREACHABLE
    exchange = in_state(state)
    offset = 0 if state is State.SYN_RECEIVED else exchange.subflow.snd_una - exchange.iss
    on_icmp_error(exchange.stack.environment, error(exchange, kind, offset), exchange.now_us)
    exchange.must_be_in(state)


@pytest.mark.parametrize("offset", [1, -1, 1000, 1 << 30])
def test_error_about_nothing_in_flight_is_ignored(offset: int) -> None:
    """RFC 5927 §4.1."""
    exchange = in_state(State.SYN_SENT)
    on_icmp_error(
        exchange.stack.environment, error(exchange, IcmpErrorKind.PORT_UNREACHABLE, offset), exchange.now_us
    )
    exchange.must_be_in(State.SYN_SENT)
    assert exchange.stack.counters["TcpExtOutOfWindowIcmps"] == 1


def test_quotation_that_is_cut_short_is_ignored() -> None:
    exchange = in_state(State.SYN_SENT)
    on_icmp_error(
        exchange.stack.environment,
        error(exchange, IcmpErrorKind.PORT_UNREACHABLE, length=7),
        exchange.now_us,
    )
    exchange.must_be_in(State.SYN_SENT)


@pytest.mark.parametrize(
    "kind",
    [
        IcmpErrorKind.NETWORK_UNREACHABLE,
        IcmpErrorKind.HOST_UNREACHABLE,
        IcmpErrorKind.TIME_EXCEEDED,
        IcmpErrorKind.PARAMETER_PROBLEM,
    ],
)
def test_half_open_connection_is_forgotten(kind: IcmpErrorKind) -> None:
    exchange = in_state(State.SYN_RECEIVED)
    environment = exchange.stack.environment
    on_icmp_error(environment, error(exchange, kind, offset=1), exchange.now_us)
    exchange.must_be_in(State.SYN_RECEIVED)
    on_icmp_error(environment, error(exchange, kind), exchange.now_us)
    exchange.must_be_in(State.CLOSED)
    exchange.expect_nothing()
    counters = exchange.stack.counters
    assert (counters["TcpExtListenDrops"], counters["TcpExtOutOfWindowIcmps"]) == (1, 1)


def test_attempt_that_crossed_another_ends() -> None:
    """RFC 9293 §3.5, figure 7: in SYN_RECEIVED as in SYN_SENT."""
    exchange = in_state(State.SYN_SENT)
    exchange.send("S", 0)
    exchange.must_be_in(State.SYN_RECEIVED)
    on_icmp_error(
        exchange.stack.environment, error(exchange, IcmpErrorKind.PORT_UNREACHABLE), exchange.now_us
    )
    assert exchange.application.error == ECONNREFUSED


@pytest.mark.parametrize("was_heard_of", [False, True])
def test_error_is_what_a_timeout_ends_with_unless_the_peer_was_heard_of(was_heard_of: bool) -> None:
    """RFC 5461 §2.2."""
    exchange = in_state(State.ESTABLISHED)
    exchange.write(b"x")
    on_icmp_error(
        exchange.stack.environment, error(exchange, IcmpErrorKind.HOST_UNREACHABLE, 1), exchange.now_us
    )
    if was_heard_of:
        exchange.send("A", 1, 1)
    exchange.advance(2_000_000_000)
    assert exchange.application.error == (ETIMEDOUT if was_heard_of else EHOSTUNREACH)
