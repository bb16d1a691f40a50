"""Fast Open's cookies, its cache of them, its pauses and its queue (RFC 7413)."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from mptcp_stack.counters import Counters
from mptcp_stack.errors import ConfigurationError
from mptcp_stack.mptcp.early_data import bytes_taken
from mptcp_stack.settings import StackSettings, apply_sysctl
from mptcp_stack.tcp.fast_open import FastOpen, FastOpenQueue, Mode, cookie_for
from mptcp_stack.tcp.siphash import siphash
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.tcp_options import TcpOptions
from tests.tcp.exchange import OUR_PORT, OURS, PEER_PORT, PEERS, SETTINGS, Exchange, shown

CLIENT = replace(SETTINGS, tcp_fastopen=int(Mode.CLIENT | Mode.CLIENT_WITHOUT_COOKIE))
ASKING = replace(SETTINGS, tcp_fastopen=int(Mode.CLIENT))


def opened(settings: StackSettings, data: bytes) -> Exchange:
    """In SYN_SENT, with the SYN still to be looked at."""
    exchange = Exchange(settings=settings)
    exchange.connection = exchange.stack.connect(
        PEERS, PEER_PORT, protocol="tcp", local=OURS, local_port=OUR_PORT, early=data
    )
    exchange.flush()
    return exchange


@pytest.mark.parametrize(
    ("length", "expected"),
    [(0, "310e0edd47db6f72"), (1, "fd67dc93c539f874"), (8, "6224939a79f5f593"), (15, "e545be4961ca29a1")],
)
def test_siphash_gives_the_values_of_its_authors(length: int, expected: str) -> None:
    assert siphash(bytes(range(16)), bytes(range(length))).to_bytes(8, "little").hex() == expected


def test_cookie_is_that_of_linux() -> None:
    """As its kernel gave it for this key and these addresses."""
    key = struct.pack("<4I", 0xA1A1A1A1, 0xB2B2B2B2, 0xC3C3C3C3, 0xD4D4D4D4)
    local, remote = parse_address("192.168.0.1"), parse_address("192.0.2.1")
    assert cookie_for(key, local, remote).hex() == "3021b9d889017eeb"


def test_key_is_a_sysctl_as_in_linux() -> None:
    name = "net.ipv4.tcp_fastopen_key"
    two = apply_sysctl(SETTINGS, name, "1-2-3-4,a0000000-0-0-0").tcp_fastopen_keys
    assert two == (struct.pack("<4I", 1, 2, 3, 4), struct.pack("<4I", 0xA0000000, 0, 0, 0))
    for wrong in ("", "1-2-3", "1-2-3-4-5", "1-2-3-x", "100000000-0-0-0", "1-2-3-4,1-2-3-4,1-2-3-4"):
        with pytest.raises(ConfigurationError, match="tcp_fastopen_key"):
            apply_sysctl(SETTINGS, name, wrong)


def test_cache_of_cookies_is_bounded_and_forgets_the_oldest() -> None:
    host = FastOpen(bytes, Counters())
    for number in range(3000):
        host.remember(OURS, number.to_bytes(4, "big"), b"cookie", 1000)
    known = [number for number in range(3000) if host.remembered(OURS, number.to_bytes(4, "big"))]
    assert known == list(range(3000 - 1024, 3000))


@pytest.mark.parametrize("taken", [0, 1, 60, 100])
def test_rest_of_the_data_is_sent_again(taken: int) -> None:
    exchange = opened(CLIENT, bytes(range(100)))
    assert exchange.expect("S", 0, length=100).options.fast_open_cookie is None
    exchange.send("SA", 0, 1 + taken, options=exchange.peer_options)
    segment = exchange.expect("A", 1 + taken, 1, length=100 - taken)
    assert bytes(segment.payload) == bytes(range(taken, 100))
    exchange.send("A", 1, 101)
    exchange.write(b"next")
    exchange.expect("A", 101, 1, length=4)
    assert exchange.stack.counters["TcpExtTCPFastOpenActive"] == (taken == 100)
    assert exchange.stack.counters["TcpExtTCPFastOpenActiveFail"] == (taken < 100)


def test_acknowledgement_of_more_than_was_sent_is_refused() -> None:
    exchange = opened(CLIENT, bytes(100))
    exchange.expect("S", 0, length=100)
    exchange.send("SA", 0, 102, options=exchange.peer_options)
    exchange.expect("R", 102)
    assert not exchange.application.is_established


def test_data_goes_after_crossing_syns() -> None:
    """RFC 9293 §3.5, figure 7: nobody believed our SYN."""
    exchange = opened(CLIENT, bytes(100))
    exchange.expect("S", 0, length=100)
    exchange.send("S", 0, options=exchange.peer_options)
    exchange.expect("SA", 0, 1, length=0)
    exchange.send("A", 1, 1)
    exchange.expect("A", 1, 1, length=100)


def test_segment_size_of_the_server_is_remembered() -> None:
    exchange = opened(ASKING, b"")
    assert exchange.expect("S", 0, length=0).options.fast_open_cookie == b""
    exchange.send("SA", 0, 1, options=TcpOptions(maximum_segment_size=700, fast_open_cookie=b"a cookie"))
    exchange.expect("A", 1, 1)
    second = exchange.stack.connect(PEERS, PEER_PORT, protocol="tcp", local=OURS, early=bytes(5000))
    exchange.flush()
    segment = exchange.expect("S", length=660)
    assert segment.options.fast_open_cookie == b"a cookie"
    assert bytes_taken(second) == 660


def test_cookie_that_nobody_asked_for_is_ignored() -> None:
    exchange = Exchange(settings=ASKING)
    exchange.connect()
    exchange.send("SA", 0, 1, options=TcpOptions(maximum_segment_size=700, fast_open_cookie=b"a cookie"))
    assert exchange.stack.environment.fast_open.remembered(OURS, PEERS) is None
    assert not exchange.stack.may_begin_early(PEERS)


def test_no_data_goes_for_a_while_after_a_black_hole() -> None:
    """RFC 7413 §4.1.3.1; each time for twice as long."""
    settings = apply_sysctl(CLIENT, "net.ipv4.tcp_fastopen_blackhole_timeout_sec", "100")
    exchange = opened(settings, bytes(100))
    exchange.expect("S", 0, length=100)
    exchange.advance(1_500_000)
    exchange.expect("S", 0, length=0)
    assert exchange.stack.may_begin_early(PEERS)
    exchange.advance(1_000_000)
    exchange.expect("S", 0, length=0)
    assert not exchange.stack.may_begin_early(PEERS)
    assert exchange.stack.counters["TcpExtTCPFastOpenBlackhole"] == 1
    exchange.advance(100_000_000)
    exchange.flush()
    assert exchange.stack.may_begin_early(PEERS)
    host, now_us = exchange.stack.environment.fast_open, exchange.now_us
    for shift in range(1, 10):
        host.disable_for_a_while(now_us)
        paused_us = 100_000_000 << min(shift, 6)
        assert host.is_disabled(100_000_000, now_us + paused_us - 1)
        assert not host.is_disabled(100_000_000, now_us + paused_us)


def test_queue_keeps_the_place_of_what_was_reset_for_a_minute() -> None:
    queue, counters = FastOpenQueue(), Counters()
    queue.pending = 2
    assert queue.has_room(3, counters, 0)
    assert not queue.has_room(2, counters, 0)
    queue.on_end(keeps_place=True, now_us=0)
    assert not queue.has_room(2, counters, 59_999_999)
    assert counters["TcpExtTCPFastOpenListenOverflow"] == 2
    assert queue.has_room(2, counters, 60_000_000)
    queue.on_end(keeps_place=False, now_us=0)
    assert queue.pending == 0


@pytest.mark.parametrize("mode", [0, int(Mode.SERVER), int(Mode.SERVER_WITHOUT_COOKIE)])
def test_data_of_a_syn_is_dropped_when_nobody_asked_for_it(mode: int) -> None:
    exchange = Exchange(settings=replace(SETTINGS, tcp_fastopen=mode))
    exchange.stack.listen(None, OUR_PORT, protocol="tcp")
    exchange.send("S", 0, payload=bytes(100), options=exchange.peer_options)
    exchange.expect("SA", 0, 1)
    exchange.send("A", 1, 1, payload=bytes(100))
    assert exchange.application.readable_bytes == 100
    assert all(shown(segment) == "A" for segment in exchange.sent)
