from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import (
    HBHOptUnknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Jumbo,
    PadN,
    RouterAlert,
)
from scapy.packet import Packet

from mptcp_stack.errors import ConfigurationError, MalformedPacketError
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.ip_packet import (
    IPV6_HEADER_LENGTH,
    MAXIMUM_EXTENSION_HEADERS,
    PROTOCOL_DESTINATION_OPTIONS,
    PROTOCOL_FRAGMENT,
    PROTOCOL_HOP_BY_HOP,
    PROTOCOL_NO_NEXT_HEADER,
    PROTOCOL_ROUTING,
    PROTOCOL_TCP,
    emit_ipv6_header,
    parse_ipv6,
    parse_quoted_packet,
)
from tests.wire.strategies import ipv6_addresses, uint8

SOURCE = parse_address("dead:beef:1::1")
DESTINATION = parse_address("dead:beef:1::2")
PAYLOAD = b"transport"


def ipv6(*extension_headers: Packet, payload: bytes = PAYLOAD) -> memoryview:
    """A packet that scapy has made; the last extension header names TCP."""
    packet = IPv6(src="dead:beef:1::1", dst="dead:beef:1::2")
    for header in extension_headers:
        packet /= header
    packet.lastlayer().nh = PROTOCOL_TCP
    return memoryview(bytes(packet / payload))


def chain(*headers: tuple[int, bytes], payload: bytes = PAYLOAD) -> memoryview:
    """A packet with these (kind, body after the next-header byte), byte by byte."""
    kinds = [kind for kind, _ in headers] + [PROTOCOL_TCP]
    extensions = b"".join(bytes((kinds[i + 1],)) + body for i, (_, body) in enumerate(headers))
    rest = extensions + payload
    return memoryview(emit_ipv6_header(SOURCE, DESTINATION, kinds[0], len(rest)) + rest)


@given(
    ipv6_addresses,
    ipv6_addresses,
    uint8,
    uint8,
    st.integers(0, 0xFFFFF),
    st.binary(max_size=64),
    st.binary(max_size=9),
)
def test_round_trip(
    source: bytes,
    destination: bytes,
    hop_limit: int,
    traffic_class: int,
    flow_label: int,
    payload: bytes,
    padding: bytes,
) -> None:
    header = emit_ipv6_header(
        source,
        destination,
        PROTOCOL_TCP,
        len(payload),
        hop_limit=hop_limit,
        traffic_class=traffic_class,
        flow_label=flow_label,
    )
    packet = parse_ipv6(memoryview(header + payload + padding))
    assert (packet.source, packet.destination, packet.protocol) == (source, destination, PROTOCOL_TCP)
    assert (packet.hop_limit, packet.traffic_class) == (hop_limit, traffic_class)
    assert packet.payload == payload
    assert packet.payload_offset == IPV6_HEADER_LENGTH
    assert not packet.is_fragment


def test_header_agrees_with_scapy() -> None:
    oracle = IPv6(src="dead:beef:1::1", dst="dead:beef:1::2", nh=6, hlim=255, tc=0xB8, fl=0x12345, plen=100)
    emitted = emit_ipv6_header(
        SOURCE, DESTINATION, 6, 100, hop_limit=255, traffic_class=0xB8, flow_label=0x12345
    )
    assert emitted == bytes(oracle)


@pytest.mark.parametrize(
    "extension_headers",
    [
        [IPv6ExtHdrHopByHop()],
        [IPv6ExtHdrHopByHop(options=[RouterAlert()])],
        [IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))])],
        [IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x1E, optdata=b"abc")])],
        [IPv6ExtHdrRouting(addresses=["dead:beef:2::1"], segleft=0)],
        [IPv6ExtHdrFragment(offset=0, m=0)],
        [
            IPv6ExtHdrHopByHop(),
            IPv6ExtHdrDestOpt(),
            IPv6ExtHdrRouting(addresses=["dead:beef:2::1"], segleft=0),
            IPv6ExtHdrFragment(offset=0, m=0),
            IPv6ExtHdrDestOpt(),
        ],
    ],
)
def test_extension_headers_are_walked(extension_headers: list[Packet]) -> None:
    data = ipv6(*extension_headers)
    packet = parse_ipv6(data)
    assert packet.protocol == PROTOCOL_TCP
    assert packet.payload == PAYLOAD
    assert packet.payload_offset == len(data) - len(PAYLOAD)
    assert not packet.is_fragment


@pytest.mark.parametrize(("offset", "more"), [(0, 1), (3, 0), (3, 1)])
def test_fragments_are_recognised(offset: int, more: int) -> None:
    packet = parse_ipv6(ipv6(IPv6ExtHdrFragment(offset=offset, m=more)))
    assert packet.is_fragment
    assert packet.protocol == PROTOCOL_TCP
    assert packet.payload == PAYLOAD


def test_nothing_is_walked_within_a_fragment() -> None:
    """The bytes of a later fragment are no headers, whatever its next-header field says."""
    data = chain((PROTOCOL_FRAGMENT, bytes.fromhex("00000900000001")), payload=b"\xff" * 8)
    data = memoryview(bytes(data[:40]) + bytes((PROTOCOL_DESTINATION_OPTIONS,)) + bytes(data[41:]))
    packet = parse_ipv6(data)
    assert packet.is_fragment
    assert packet.protocol == PROTOCOL_DESTINATION_OPTIONS


def test_no_next_header_ends_the_walk() -> None:
    data = emit_ipv6_header(SOURCE, DESTINATION, PROTOCOL_NO_NEXT_HEADER, 0) + bytes(14)
    packet = parse_ipv6(memoryview(data))
    assert packet.protocol == PROTOCOL_NO_NEXT_HEADER
    assert bytes(packet.payload) == b""


@pytest.mark.parametrize(
    "headers",
    [
        [IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment()],
        [IPv6ExtHdrRouting(addresses=["dead:beef:2::1"], segleft=0)],
    ],
)
def test_truncated_at_every_length_is_malformed(headers: list[Packet]) -> None:
    data = ipv6(*headers)
    for length in range(len(data)):
        with pytest.raises(MalformedPacketError):
            parse_ipv6(data[:length])
        # The same once more with a payload length that agrees, as long as a header is cut.
        if 40 < length < len(data) - len(PAYLOAD):
            shortened = bytes(data[:4]) + (length - 40).to_bytes(2, "big") + bytes(data[6:length])
            with pytest.raises(MalformedPacketError):
                parse_ipv6(memoryview(shortened))


PADDING = bytes.fromhex("00010400000000")


def test_number_of_extension_headers_is_bounded() -> None:
    header = (PROTOCOL_DESTINATION_OPTIONS, PADDING)
    assert parse_ipv6(chain(*[header] * MAXIMUM_EXTENSION_HEADERS)).protocol == PROTOCOL_TCP
    with pytest.raises(MalformedPacketError, match="extension headers"):
        parse_ipv6(chain(*[header] * (MAXIMUM_EXTENSION_HEADERS + 1)))


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([(PROTOCOL_HOP_BY_HOP, PADDING)] * 2, id="hop-by-hop options not first"),
        pytest.param([(PROTOCOL_ROUTING, bytes.fromhex("00000100000000"))], id="segments left"),
        pytest.param([(PROTOCOL_HOP_BY_HOP, bytes.fromhex("00050600000000"))], id="option too long"),
        pytest.param([(PROTOCOL_HOP_BY_HOP, bytes.fromhex("00010300000005"))], id="option without length"),
        pytest.param([(PROTOCOL_DESTINATION_OPTIONS, bytes.fromhex("00400400000000"))], id="discard"),
        pytest.param(
            [(PROTOCOL_DESTINATION_OPTIONS, bytes.fromhex("00800400000000"))], id="discard and report"
        ),
        pytest.param([(PROTOCOL_DESTINATION_OPTIONS, bytes.fromhex("00c20400020000"))], id="jumbo elsewhere"),
        pytest.param([(PROTOCOL_HOP_BY_HOP, bytes.fromhex("00c20400020000"))], id="jumbo with a length"),
        pytest.param([(PROTOCOL_DESTINATION_OPTIONS, bytes.fromhex("ff000000000000"))], id="header too long"),
    ],
)
def test_what_rfc_8200_wants_discarded_is_malformed(headers: list[tuple[int, bytes]]) -> None:
    with pytest.raises(MalformedPacketError):
        parse_ipv6(chain(*headers))


def test_jumbo_payload() -> None:
    payload = bytes(70000)
    jumbo = IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=len(payload) + 8)])
    header = bytes(IPv6(src="dead:beef:1::1", dst="dead:beef:1::2", plen=0) / jumbo)[:48]
    header = header[:40] + bytes((PROTOCOL_TCP,)) + header[41:]
    packet = parse_ipv6(memoryview(header + payload + b"padding"))
    assert packet.protocol == PROTOCOL_TCP
    assert len(packet.payload) == len(payload)
    assert packet.payload_offset == 48
    with pytest.raises(MalformedPacketError, match="jumbo"):
        parse_ipv6(memoryview(header + payload[:-1]))


def test_jumbo_option_is_required_and_must_need_to_be_there() -> None:
    padded = bytearray(chain((PROTOCOL_HOP_BY_HOP, PADDING)))
    padded[4:6] = b"\0\0"
    with pytest.raises(MalformedPacketError, match="jumbo"):
        parse_ipv6(memoryview(padded))
    small = bytearray(chain((PROTOCOL_HOP_BY_HOP, bytes.fromhex("00c20400000010"))))
    small[4:6] = b"\0\0"
    with pytest.raises(MalformedPacketError, match="jumbo"):
        parse_ipv6(memoryview(small))


def test_super_segment_without_jumbo_option() -> None:
    header = emit_ipv6_header(SOURCE, DESTINATION, PROTOCOL_TCP, 0)
    assert len(parse_ipv6(memoryview(header + bytes(70000))).payload) == 70000
    assert len(parse_ipv6(memoryview(header + bytes(65536))).payload) == 65536
    for padding in (6, 65535):
        assert bytes(parse_ipv6(memoryview(header + bytes(padding))).payload) == b""


@pytest.mark.parametrize("first", [0x00, 0x40, 0x50, 0x70])
def test_other_versions_are_malformed(first: int) -> None:
    data = bytearray(ipv6())
    data[0] = first
    with pytest.raises(MalformedPacketError, match="version"):
        parse_ipv6(memoryview(data))


@pytest.mark.parametrize(("source", "payload_length"), [(SOURCE, 65536), (bytes(4), 0)])
def test_impossible_header_is_refused(source: bytes, payload_length: int) -> None:
    with pytest.raises(ConfigurationError):
        emit_ipv6_header(source, DESTINATION, PROTOCOL_TCP, payload_length)


def test_quoted_packet_may_be_cut_short() -> None:
    data = bytearray(ipv6(IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(m=1), payload=b"12345678"))
    data[4:6] = (1400).to_bytes(2, "big")
    packet = parse_quoted_packet(memoryview(data))
    assert (packet.source, packet.destination, packet.protocol) == (SOURCE, DESTINATION, PROTOCOL_TCP)
    assert bytes(packet.payload) == b"12345678"
    assert packet.is_fragment


@pytest.mark.parametrize("length", range(48))
def test_quoted_packet_needs_its_headers(length: int) -> None:
    with pytest.raises(MalformedPacketError):
        parse_quoted_packet(ipv6(IPv6ExtHdrDestOpt())[:length])
