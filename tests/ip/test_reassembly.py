"""Fragments: whole packets in any order, nothing from overlapping ones, bounds on what waits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.packet import Packet, Raw

from mptcp_stack.counters import Counters
from mptcp_stack.ip.interface import LinkType
from mptcp_stack.ip.layer import Datagram
from mptcp_stack.ip.reassembly import (
    IPV4_LIFETIME_US,
    IPV6_LIFETIME_US,
    MAXIMUM_BYTES,
    MAXIMUM_BYTES_FROM_ONE_SOURCE,
    MAXIMUM_PACKETS_FROM_ONE_SOURCE,
    FragmentReassembly,
    reassembled_congestion,
)
from mptcp_stack.wire.ip_packet import Fragment, IpPacket
from tests.ip.single_host import FAR_V4, OUR_V4, OUR_V6, PEER_V4, PEER_V6, SingleHost, ethernet

DATA = bytes(index % 251 for index in range(2000))
SEGMENT = TCP(sport=40_000, dport=80, seq=7, flags="A") / Raw(DATA)
PIECE = 1000


def tcp_bytes(ipv6: bool = False) -> bytes:
    """The segment with its checksum."""
    header = IPv6(src=PEER_V6, dst=OUR_V6) if ipv6 else IP(src=PEER_V4, dst=OUR_V4)
    whole = header.__class__(bytes(header / SEGMENT))
    return bytes(whole.payload)


def v4_piece(data: bytes, start: int, end: int, tos: int = 0, identification: int = 9) -> Packet:
    more = "MF" if end < len(data) else 0
    return IP(
        src=PEER_V4, dst=OUR_V4, proto=6, id=identification, frag=start // 8, flags=more, tos=tos
    ) / Raw(data[start:end])


def v6_piece(data: bytes, start: int, end: int, tc: int = 0, next_header: int = 6) -> Packet:
    fragment = IPv6ExtHdrFragment(nh=next_header, id=9, offset=start // 8, m=int(end < len(data)))
    return IPv6(src=PEER_V6, dst=OUR_V6, tc=tc) / fragment / Raw(data[start:end])


def raw_host() -> SingleHost:
    return SingleHost(link_type=LinkType.RAW_IP)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1), (0, 0, 2, 2, 1)])
@pytest.mark.parametrize("is_ipv6", [False, True])
def test_fragments_in_any_order_become_the_segment(order: Sequence[int], is_ipv6: bool) -> None:
    host, data = raw_host(), tcp_bytes(is_ipv6)
    pieces = [(0, PIECE), (PIECE, 2 * PIECE), (2 * PIECE, len(data))]
    make = v6_piece if is_ipv6 else v4_piece
    results = [host.receive(make(data, *pieces[index])) for index in order]
    (whole,) = [result for result in results if result is not None]
    assert isinstance(whole, Datagram)
    assert whole is results[-1]
    assert bytes(whole.payload) == data
    prefix = "Ip6" if is_ipv6 else "Ip"
    assert host.counted(
        *(prefix + name for name in ("ReasmReqds", "ReasmOKs", "ReasmFails", "InDelivers"))
    ) == [
        len(order),
        1,
        0,
        1,
    ]
    assert host.drops() == ({"Fragment": len(order) - 3} if len(order) > 3 else {})
    assert host.layer.next_deadline_us() is None


def test_checksum_is_judged_over_the_whole() -> None:
    host, data = raw_host(), bytearray(tcp_bytes())
    data[1500] ^= 1
    for start in (0, PIECE):
        end = PIECE if not start else len(data)
        assert host.receive(v4_piece(bytes(data), start, end)) is None
    assert host.drops() == {"BadChecksum": 1}


def test_packets_with_other_numbers_protocols_or_addresses_are_not_mixed() -> None:
    host, data = raw_host(), tcp_bytes()
    host.receive(v4_piece(data, 0, PIECE))
    rest = v4_piece(data, PIECE, len(data))
    for changed in ({"id": 10}, {"proto": 17}, {"src": FAR_V4}):
        other = rest.copy()
        for name, value in changed.items():
            setattr(other, name, value)
        assert host.receive(other) is None
    assert isinstance(host.receive(rest), Datagram)


@pytest.mark.parametrize("is_ipv6", [False, True])
@pytest.mark.parametrize(
    "second", [(PIECE - 8, 2 * PIECE), (8, PIECE + 8), (0, 2 * PIECE)], ids=["tail", "shifted", "around"]
)
def test_overlap_discards_the_whole_packet(is_ipv6: bool, second: tuple[int, int]) -> None:
    """RFC 5722 §4; Linux does the same with IPv4."""
    host, data = raw_host(), tcp_bytes(is_ipv6)
    make = v6_piece if is_ipv6 else v4_piece
    for start, end in ((0, PIECE), second, (2 * PIECE, len(data))):
        assert host.receive(make(data, start, end)) is None
    prefix = "Ip6" if is_ipv6 else "Ip"
    assert host.counted(prefix + "ReasmFails", "IpExtReasmOverlaps") == [1, 0 if is_ipv6 else 1]
    assert host.drops() == {"Fragment": 2}


@pytest.mark.parametrize("pieces", [[(0, 8, 1), (16, 24, 0), (24, 32, 1)], [(0, 32, 1), (8, 16, 0)]])
def test_contradicting_lengths_discard_the_packet(pieces: list[tuple[int, int, int]]) -> None:
    host = raw_host()
    for start, end, more in pieces:
        packet = IP(src=PEER_V4, dst=OUR_V4, proto=6, frag=start // 8, flags=more) / Raw(bytes(end - start))
        assert host.receive(packet) is None
    assert host.counted("IpReasmFails") == [1]
    assert host.layer.next_deadline_us() is None


def test_packet_of_more_than_64_kib_is_refused() -> None:
    """The "ping of death"."""
    host = raw_host()
    for offset, length, more in ((0, 8, 1), (65_528, 400, 0)):
        host.receive(IP(src=PEER_V4, dst=OUR_V4, proto=1, frag=offset // 8, flags=more) / Raw(bytes(length)))
    assert host.counted("IpReasmFails") == [1]


def test_ipv6_packet_of_more_than_64_kib_is_reported() -> None:
    """RFC 8200 §4.5: a parameter problem that points to the fragment offset."""
    host = raw_host()
    host.receive(IPv6(src=PEER_V6, dst=OUR_V6) / IPv6ExtHdrFragment(nh=6, offset=8191, m=0) / Raw(bytes(400)))
    (error,) = host.sent()
    assert (error[ICMPv6ParamProblem].code, error[ICMPv6ParamProblem].ptr) == (0, 42)


def test_ipv6_fragment_of_an_odd_length_is_reported() -> None:
    """RFC 8200 §4.5: a parameter problem that points to the payload length."""
    host = raw_host()
    host.receive(IPv6(src=PEER_V6, dst=OUR_V6) / IPv6ExtHdrFragment(nh=6, offset=8, m=1) / Raw(bytes(13)))
    (error,) = host.sent()
    assert (error[ICMPv6ParamProblem].code, error[ICMPv6ParamProblem].ptr) == (0, 4)
    assert host.drops() == {"MalformedIp": 1}
    assert host.counted("Ip6InHdrErrors", "Icmp6OutParmProblems") == [1, 1]


@pytest.mark.parametrize("first", [bytes(16), bytes(IPv6ExtHdrDestOpt(nh=6)) + bytes(8)])
def test_ipv6_first_fragment_has_all_headers(first: bytes) -> None:
    """RFC 8200 §4.5, RFC 7112 §5: a tiny first fragment hides the upper layer, and is refused."""
    host = raw_host()
    kind = 60 if any(first) else 6
    packet = IPv6(src=PEER_V6, dst=OUR_V6) / IPv6ExtHdrFragment(nh=kind, offset=0, m=1) / Raw(first)
    assert host.receive(packet) is None
    (error,) = host.sent()
    assert error[ICMPv6ParamProblem].code == 3
    assert host.layer.next_deadline_us() is None


def test_tiny_ipv4_fragments_hide_nothing() -> None:
    """RFC 1858, RFC 3128: flags in a second fragment count as those of the whole, and cannot be rewritten."""
    host, data = raw_host(), tcp_bytes()
    host.receive(v4_piece(data, 0, 8))
    assert isinstance(host.receive(v4_piece(data, 8, len(data))), Datagram)
    host.receive(v4_piece(data, 0, 24))
    assert host.receive(v4_piece(data, 8, len(data))) is None
    assert host.counted("IpExtReasmOverlaps") == [1]


def test_headers_behind_the_fragment_header_are_walked() -> None:
    host, data = raw_host(), bytes(IPv6ExtHdrDestOpt(nh=6)) + tcp_bytes(ipv6=True)
    host.receive(v6_piece(data, 0, PIECE, next_header=60))
    whole = host.receive(v6_piece(data, PIECE, len(data), next_header=60))
    assert isinstance(whole, Datagram)
    assert bytes(whole.payload) == data[8:]


def test_fragments_within_fragments_are_refused() -> None:
    host = raw_host()
    inner = bytes(IPv6ExtHdrFragment(nh=6, id=1, offset=0, m=1)) + tcp_bytes(ipv6=True)
    host.receive(v6_piece(inner, 0, PIECE, next_header=44))
    assert host.receive(v6_piece(inner, PIECE, len(inner), next_header=44)) is None
    assert "MalformedIp" in host.drops()


def test_neighbour_discovery_in_fragments_is_ignored() -> None:
    """RFC 6980 §5."""
    host = SingleHost()
    message = bytes(IPv6(src=PEER_V6, dst=OUR_V6, hlim=255) / ICMPv6ND_NS(tgt=OUR_V6))[40:]
    for start, end in ((0, 16), (16, 24)):
        packet = v6_piece(message, start, end, next_header=58)
        packet.hlim = 255
        host.receive(ethernet(packet))
    assert host.drops() == {"IgnoredIcmp": 1}
    assert host.sent() == []


@pytest.mark.parametrize("is_ipv6", [False, True])
def test_incomplete_packet_is_given_up_and_reported(is_ipv6: bool) -> None:
    """RFC 792, RFC 4443 §3.3: time exceeded, code 1, quotes the first fragment.

    RFC 1812 §4.3.2.5, as in Linux: over IPv4 it is for network control, with the fragment's type of service.
    """
    host, data = raw_host(), tcp_bytes(is_ipv6)
    first = (v6_piece if is_ipv6 else v4_piece)(data, 0, PIECE)
    if is_ipv6:
        first.tc = 0x6A
    else:
        first.tos = 0x6A
    host.receive(first, at_us=5)
    lifetime_us = IPV6_LIFETIME_US if is_ipv6 else IPV4_LIFETIME_US
    assert host.layer.next_deadline_us() == 5 + lifetime_us
    host.layer.handle_deadline(4 + lifetime_us)
    assert host.sent() == []
    host.layer.handle_deadline(5 + lifetime_us)
    ((_, frame),) = host.layer.take_frames()
    error = (IPv6 if is_ipv6 else IP)(frame.to_bytes())
    quoted = frame.to_bytes()[48 if is_ipv6 else 28 :]
    if is_ipv6:
        assert (error.src, error.dst, error[ICMPv6TimeExceeded].code) == (OUR_V6, PEER_V6, 1)
        assert error.tc == 0
        assert quoted == bytes(first)[: 1280 - 48]
        assert host.counted("Ip6ReasmTimeout", "Ip6ReasmFails", "Icmp6OutTimeExcds") == [1, 1, 1]
    else:
        assert (error.src, error.dst, error[ICMP].type, error[ICMP].code) == (OUR_V4, PEER_V4, 11, 1)
        assert error.tos == 0xCA
        assert quoted == bytes(first)[: 576 - 28]
        assert host.counted("IpReasmTimeout", "IpReasmFails", "IcmpOutTimeExcds") == [1, 1, 1]
    assert host.layer.next_deadline_us() is None
    assert host.receive((v6_piece if is_ipv6 else v4_piece)(data, PIECE, len(data)), at_us=70_000_000) is None


def test_nothing_is_reported_without_the_first_fragment() -> None:
    host, data = raw_host(), tcp_bytes()
    host.receive(v4_piece(data, PIECE, len(data)))
    host.layer.handle_deadline(IPV4_LIFETIME_US)
    assert host.sent() == []
    assert host.counted("IpReasmTimeout") == [1]


def test_errors_about_fragments_have_a_rate() -> None:
    host, data = raw_host(), tcp_bytes()
    for number in range(20):
        host.receive(v4_piece(data, 0, PIECE, identification=number))
    host.layer.handle_deadline(IPV4_LIFETIME_US)
    assert len(host.sent()) == 6
    assert host.counted("IcmpOutRateLimitHost") == [14]


def test_no_error_is_sent_about_an_error() -> None:
    """RFC 1122 §3.2.2."""
    host = raw_host()
    quoted = bytes(ICMP(type=3, code=1) / IP(src=OUR_V4, dst=FAR_V4) / UDP()) + bytes(24)
    host.receive(IP(src=PEER_V4, dst=OUR_V4, proto=1, flags="MF") / Raw(quoted[: len(quoted) & ~7]))
    host.layer.handle_deadline(IPV4_LIFETIME_US)
    assert host.sent() == []


def test_big_echo_request_is_put_together() -> None:
    host = raw_host()
    message = bytes(IPv6(src=PEER_V6, dst=OUR_V6) / ICMPv6EchoRequest(id=1, seq=2, data=bytes(1400)))[40:]
    for start, end in ((0, 800), (800, len(message))):
        host.receive(v6_piece(message, start, end, next_header=58))
    (reply,) = host.sent()
    assert len(reply[ICMPv6EchoReply].data) == 1400


@pytest.mark.parametrize(
    ("fields", "whole"),
    [
        ((0, 0), 0),
        ((1, 1), 1),
        ((2, 2), 2),
        ((3, 3), 3),
        ((2, 3), 3),
        ((1, 3), 3),
        ((1, 2), 2),
        ((0, 1), None),
        ((0, 2), None),
        ((0, 3), None),
        ((0, 2, 3), None),
    ],
)
def test_congestion_marks_of_fragments_are_joined(fields: tuple[int, ...], whole: int | None) -> None:
    """RFC 3168 §5.3."""
    assert reassembled_congestion(sum(1 << field for field in set(fields))) == whole


def test_congestion_mark_of_one_fragment_is_that_of_the_packet() -> None:
    host, data = raw_host(), tcp_bytes()
    host.receive(v4_piece(data, 0, PIECE, tos=0x22))
    whole = host.receive(v4_piece(data, PIECE, len(data), tos=0x23))
    assert isinstance(whole, Datagram)
    assert whole.traffic_class == 0x23


def test_contradicting_congestion_marks_discard_the_packet() -> None:
    host, data = raw_host(), tcp_bytes()
    host.receive(v4_piece(data, 0, PIECE, tos=0))
    assert host.receive(v4_piece(data, PIECE, len(data), tos=3)) is None
    assert host.counted("IpReasmFails", "IpReasmOKs") == [1, 0]


# --- the table itself: hostile floods, and any fragments against a model ---


class Table:
    """A table that is fed without packets around the pieces."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.table = FragmentReassembly(self.counters, is_ipv6=False)

    def feed(
        self, start: int, data: bytes, has_more: bool, source: bytes = b"peer", identification: int = 1
    ) -> bytes | None:
        fragment = Fragment(identification, start, has_more)
        packet = IpPacket(source, b"ours", 6, memoryview(data), 64, 0, 20, fragment)
        whole = self.table.receive(packet, fragment, memoryview(data), 2, 0)
        return None if whole is None else bytes(whole.payload)


def test_flood_from_many_sources_is_bounded() -> None:
    table = Table()
    for number in range(20_000):
        table.feed(8 * (number % 2), bytes(1400), True, number.to_bytes(4, "big"))
        assert table.table.held_bytes <= MAXIMUM_BYTES
    assert table.table.held_bytes > MAXIMUM_BYTES * 0.99
    assert table.counters["IpReasmFails"] > 10_000


@pytest.mark.parametrize("size", [8, 1400])
def test_flood_from_one_source_leaves_room_for_others(size: int) -> None:
    table = Table()
    for number in range(5000):
        table.feed(8 * number % 60_000, bytes(size), True, identification=number // 40)
        assert len(table.table) <= MAXIMUM_PACKETS_FROM_ONE_SOURCE
        assert table.table.held_bytes <= MAXIMUM_BYTES_FROM_ONE_SOURCE
    assert table.feed(0, bytes(8), True, b"good") is None
    assert table.feed(8, bytes(8), False, b"good") == bytes(16)


def test_memory_comes_back() -> None:
    table = Table()
    for number in range(3000):
        table.feed(0, bytes(1000), True, (number % 500).to_bytes(4, "big"), number)
    assert table.table.held_bytes
    table.table.take_expired(IPV4_LIFETIME_US)
    assert (table.table.held_bytes, len(table.table), table.table.next_deadline_us) == (0, 0, None)


PIECES = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 6), st.booleans(), st.integers(0, 255)), max_size=40
)


class Model:
    """The rules, byte by byte: what is there twice is ignored, what overlaps or contradicts starts anew."""

    def __init__(self) -> None:
        self.known: dict[int, int] = {}
        self.length: int | None = None

    def feed(self, start: int, data: bytes, has_more: bool) -> bytes | None:
        positions = range(start, start + len(data))
        last = max(self.known, default=-1)
        if has_more:
            is_sound = self.length is None or positions.stop <= self.length
        else:
            is_sound = positions.stop > last and self.length in (None, positions.stop)
        there = sum(position in self.known for position in positions)
        if is_sound and there == len(data):
            return None
        if not is_sound or there:
            self.known, self.length = {}, None
            return None
        self.known.update(zip(positions, data, strict=True))
        if not has_more:
            self.length = positions.stop
        if len(self.known) != self.length:
            return None
        whole = bytes(self.known[position] for position in range(self.length))
        self.known, self.length = {}, None
        return whole


@settings(max_examples=400, deadline=None)
@given(PIECES)
def test_any_fragments_give_what_the_model_gives(pieces: list[tuple[int, int, bool, int]]) -> None:
    table, model = Table(), Model()
    for unit, length, has_more, filling in pieces:
        data = bytes([filling]) * (8 * length)
        assert table.feed(8 * unit, data, has_more) == model.feed(8 * unit, data, has_more)
    assert not table.table.held_bytes or len(table.table) == 1


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 8000))
def test_shuffled_and_repeated_fragments_become_the_packet(seed: int, length: int) -> None:
    rng = random.Random(seed)
    data = rng.randbytes(length)
    cuts = sorted({0, *(8 * rng.randrange(-(-length // 8)) for _ in range(30)), length})
    pieces = list(pairwise(cuts))
    arriving = [pieces[0], *rng.choices(pieces, k=len(pieces)), *pieces]
    rng.shuffle(arriving)
    table = Table()
    whole = [
        result for start, end in arriving if (result := table.feed(start, data[start:end], end < length))
    ]
    assert whole[0] == data
