from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, IPOption_Router_Alert
from scapy.packet import Packet

from mptcp_stack.errors import ConfigurationError, MalformedPacketError
from mptcp_stack.wire.checksum import checksum_of
from mptcp_stack.wire.ip_packet import (
    IPV4_HEADER_LENGTH,
    PROTOCOL_TCP,
    emit_ipv4_header,
    parse_ipv4,
    parse_quoted_packet,
)
from tests.wire.strategies import ipv4_addresses, uint8, uint16

SOURCE = bytes((10, 0, 1, 1))
DESTINATION = bytes((10, 0, 1, 2))


def ipv4(payload: bytes, **fields: str | int | list[Packet]) -> bytes:
    """A packet that scapy has made."""
    packet = IP(src="10.0.1.1", dst="10.0.1.2", proto=PROTOCOL_TCP)
    for name, value in fields.items():
        packet.setfieldval(name, value)
    return bytes(packet) + payload


def with_checksum(header: bytes) -> bytes:
    blank = header[:10] + b"\0\0" + header[12:]
    return blank[:10] + checksum_of((blank,)).to_bytes(2, "big") + blank[12:]


@given(ipv4_addresses, ipv4_addresses, uint8, uint8, uint8, uint16, st.binary(max_size=64), st.booleans())
def test_round_trip(
    source: bytes,
    destination: bytes,
    protocol: int,
    hop_limit: int,
    traffic_class: int,
    identification: int,
    payload: bytes,
    dont_fragment: bool,
) -> None:
    header = emit_ipv4_header(
        source,
        destination,
        protocol,
        len(payload),
        identification=identification,
        hop_limit=hop_limit,
        traffic_class=traffic_class,
        dont_fragment=dont_fragment,
    )
    packet = parse_ipv4(memoryview(header + payload))
    assert (packet.source, packet.destination, packet.protocol) == (source, destination, protocol)
    assert (packet.hop_limit, packet.traffic_class) == (hop_limit, traffic_class)
    assert packet.payload == payload
    assert packet.payload_offset == IPV4_HEADER_LENGTH
    assert not packet.is_fragment


def test_header_agrees_with_scapy() -> None:
    oracle = bytes(IP(src="10.0.1.1", dst="10.0.1.2", proto=6, id=77, flags="DF", ttl=9, tos=0xB8, len=120))
    emitted = emit_ipv4_header(
        SOURCE, DESTINATION, 6, 100, identification=77, hop_limit=9, traffic_class=0xB8
    )
    assert emitted == oracle


def test_payload_is_a_view_and_not_a_copy() -> None:
    data = bytearray(ipv4(b"abcd", len=24))
    packet = parse_ipv4(memoryview(data))
    data[20] = ord("X")
    assert bytes(packet.payload) == b"Xbcd"


def test_padding_of_the_frame_is_trimmed() -> None:
    assert bytes(parse_ipv4(memoryview(ipv4(b"abcd" + bytes(22), len=24))).payload) == b"abcd"


def test_options_are_skipped() -> None:
    data = ipv4(b"abcd", options=[IPOption_Router_Alert()], len=28)
    packet = parse_ipv4(memoryview(data))
    assert bytes(packet.payload) == b"abcd"
    assert packet.payload_offset == 24


def test_total_length_of_zero_means_all() -> None:
    payload = bytes(70000)
    header = emit_ipv4_header(SOURCE, DESTINATION, 6, 0, identification=0)
    header = with_checksum(header[:2] + b"\0\0" + header[4:])
    assert len(parse_ipv4(memoryview(header + payload)).payload) == len(payload)


@pytest.mark.parametrize(
    ("flags", "offset", "is_fragment"), [(0, 0, False), ("DF", 0, False), ("MF", 0, True), (0, 3, True)]
)
def test_fragments_are_recognised(flags: str | int, offset: int, is_fragment: bool) -> None:
    packet = parse_ipv4(memoryview(ipv4(b"abcd", flags=flags, frag=offset, len=24)))
    assert packet.is_fragment is is_fragment


@pytest.mark.parametrize("length", range(24))
def test_truncated_packet_is_malformed(length: int) -> None:
    with pytest.raises(MalformedPacketError):
        parse_ipv4(memoryview(ipv4(b"abcd", len=24))[:length])


@pytest.mark.parametrize("bit", range(IPV4_HEADER_LENGTH * 8))
def test_any_changed_bit_is_noticed(bit: int) -> None:
    changed = bytearray(ipv4(b"abcd", len=24))
    changed[bit >> 3] ^= 1 << (bit & 7)
    with pytest.raises(MalformedPacketError):
        parse_ipv4(memoryview(changed))


@pytest.mark.parametrize(
    ("first", "total_length"), [(0x44, 24), (0x4F, 24), (0x55, 24), (0x65, 24), (0x45, 19), (0x45, 25)]
)
def test_impossible_lengths_are_malformed(first: int, total_length: int) -> None:
    data = bytearray(ipv4(b"abcd", len=24))
    data[0] = first
    data[2:4] = total_length.to_bytes(2, "big")
    with pytest.raises(MalformedPacketError):
        parse_ipv4(memoryview(with_checksum(bytes(data[:20])) + data[20:]))


@pytest.mark.parametrize(
    ("source", "payload_length", "hop_limit"), [(SOURCE, 65516, 64), (bytes(16), 0, 64), (SOURCE, 0, 256)]
)
def test_impossible_header_is_refused(source: bytes, payload_length: int, hop_limit: int) -> None:
    with pytest.raises(ConfigurationError):
        emit_ipv4_header(source, DESTINATION, 6, payload_length, identification=0, hop_limit=hop_limit)


def test_quoted_packet_may_be_cut_short_and_changed() -> None:
    quoted = bytearray(ipv4(b"12345678", len=1500, frag=2, tos=4, ttl=3))
    quoted[8] = 2
    packet = parse_quoted_packet(memoryview(quoted))
    assert (packet.source, packet.destination, packet.protocol) == (SOURCE, DESTINATION, PROTOCOL_TCP)
    assert bytes(packet.payload) == b"12345678"
    assert (packet.hop_limit, packet.traffic_class, packet.is_fragment) == (2, 4, True)
    whole = parse_quoted_packet(memoryview(ipv4(b"12345678", len=1500, flags="DF")))
    assert not whole.is_fragment
    assert whole.payload_offset == IPV4_HEADER_LENGTH


@pytest.mark.parametrize("length", range(20))
def test_quoted_packet_needs_its_header(length: int) -> None:
    with pytest.raises(MalformedPacketError):
        parse_quoted_packet(memoryview(ipv4(b""))[:length])
