from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP

from mptcp_stack.errors import ConfigurationError, MalformedPacketError
from mptcp_stack.wire.checksum import checksum_of, pseudo_header_sum
from mptcp_stack.wire.mptcp_options import Dss
from mptcp_stack.wire.tcp_options import (
    MAXIMUM_OPTIONS_LENGTH,
    NO_OPTIONS,
    TcpOptions,
    options_length,
)
from mptcp_stack.wire.tcp_segment import (
    ACK,
    CHECKSUM_OFFSET,
    CWR,
    ECE,
    FIN,
    PSH,
    RST,
    SYN,
    URG,
    TcpSegment,
    emit_tcp_header,
    parse_tcp,
)
from tests.wire.strategies import tcp_options, uint8, uint16, uint32

SEGMENTS = st.builds(
    TcpSegment,
    uint16,
    uint16,
    uint32,
    uint32,
    uint8,
    uint16,
    tcp_options().filter(lambda options: options_length(options) <= MAXIMUM_OPTIONS_LENGTH),
    st.binary(max_size=30),
    uint16,
)


@given(SEGMENTS)
def test_round_trip(segment: TcpSegment) -> None:
    header = emit_tcp_header(segment)
    assert isinstance(header, bytearray)
    assert parse_tcp(memoryview(bytes(header) + bytes(segment.payload))) == segment


def test_agrees_with_scapy() -> None:
    segment = TcpSegment(1000, 2000, 3, 4, SYN | ACK, 500, TcpOptions(1460, 7, True, 5, 6), b"data", 9)
    oracle = IP(src="10.0.1.1", dst="10.0.1.2") / TCP(
        sport=1000,
        dport=2000,
        seq=3,
        ack=4,
        flags="SA",
        window=500,
        urgptr=9,
        options=[("MSS", 1460), ("SAckOK", b""), ("Timestamp", (5, 6)), ("NOP", None), ("WScale", 7)],
    )
    expected = bytes(oracle / b"data")[20:]
    header = emit_tcp_header(segment)
    initial = pseudo_header_sum(bytes((10, 0, 1, 1)), bytes((10, 0, 1, 2)), 6, len(expected))
    checksum = checksum_of((header, segment.payload), initial)
    header[CHECKSUM_OFFSET : CHECKSUM_OFFSET + 2] = checksum.to_bytes(2, "big")
    assert bytes(header) + bytes(segment.payload) == expected
    assert parse_tcp(memoryview(expected)) == segment


@pytest.mark.parametrize(
    ("flag", "name"),
    [(FIN, "F"), (SYN, "S"), (RST, "R"), (PSH, "P"), (ACK, "A"), (URG, "U"), (ECE, "E"), (CWR, "C")],
)
def test_flags_agree_with_scapy(flag: int, name: str) -> None:
    assert parse_tcp(memoryview(bytes(TCP(flags=name)))).flags == flag


def test_payload_is_a_view_and_not_a_copy() -> None:
    data = emit_tcp_header(TcpSegment(1, 2, 3, 4, ACK, 5, NO_OPTIONS)) + b"abcd"
    segment = parse_tcp(memoryview(data))
    data[20] = ord("X")
    assert segment.payload == b"Xbcd"
    assert segment.options is NO_OPTIONS


def test_header_cut_short_is_malformed_at_every_length() -> None:
    options = TcpOptions(timestamp_value=5, timestamp_echo=6, mptcp=(Dss(7, True, 8, True, 9, 10),))
    header = memoryview(emit_tcp_header(TcpSegment(1, 2, 3, 4, ACK, 5, options)))
    assert len(header) == 60
    for length in range(60):
        with pytest.raises(MalformedPacketError):
            parse_tcp(header[:length])


@pytest.mark.parametrize("words", range(16))
def test_data_offset_must_lie_within_the_segment(words: int) -> None:
    data = bytearray(40)
    data[12] = words << 4
    if 5 <= words <= 10:
        assert len(parse_tcp(memoryview(data)).payload) == 40 - 4 * words
    else:
        with pytest.raises(MalformedPacketError):
            parse_tcp(memoryview(data))


@pytest.mark.parametrize(
    "segment",
    [
        TcpSegment(65536, 2, 3, 4, 0, 5, NO_OPTIONS),
        TcpSegment(1, 2, 1 << 32, 4, 0, 5, NO_OPTIONS),
        TcpSegment(1, 2, -1, 4, 0, 5, NO_OPTIONS),
        TcpSegment(1, 2, 3, 4, 0, 65536, NO_OPTIONS),
        TcpSegment(1, 2, 3, 4, 0, 5, TcpOptions(unknown=((99, bytes(39)),))),
    ],
)
def test_impossible_header_is_refused(segment: TcpSegment) -> None:
    with pytest.raises(ConfigurationError):
        emit_tcp_header(segment)
