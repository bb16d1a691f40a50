"""Whatever bytes arrive, a parser returns or raises MalformedPacketError."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.wire.arp import parse_arp
from mptcp_stack.wire.checksum import checksum_of
from mptcp_stack.wire.ethernet import parse_ethernet
from mptcp_stack.wire.icmp import (
    IcmpEcho,
    IcmpPacketTooBig,
    emit_icmpv4,
    emit_icmpv6,
    parse_icmpv4,
    parse_icmpv6,
)
from mptcp_stack.wire.ip_packet import (
    emit_ipv4_header,
    emit_ipv6_header,
    parse_ipv4,
    parse_ipv6,
    parse_quoted_packet,
)
from mptcp_stack.wire.mptcp_options import AddAddr, Dss, MpCapable, parse_mptcp_option
from mptcp_stack.wire.neighbour_discovery import (
    NeighbourAdvertisement,
    emit_neighbour_discovery,
    parse_neighbour_discovery,
)
from mptcp_stack.wire.tcp_options import TcpOptions, emit_options, parse_options
from mptcp_stack.wire.tcp_segment import TcpSegment, emit_tcp_header, parse_tcp

Parser = Callable[[memoryview], object]

PARSERS: tuple[Parser, ...] = (
    parse_ethernet,
    parse_arp,
    parse_ipv4,
    parse_ipv6,
    parse_quoted_packet,
    parse_icmpv4,
    parse_icmpv6,
    parse_neighbour_discovery,
    parse_tcp,
    parse_options,
    parse_mptcp_option,
)


def run(parser: Parser, data: bytes) -> None:
    try:
        parser(memoryview(data))
    except MalformedPacketError:
        return


@pytest.mark.parametrize("parser", PARSERS)
@given(data=st.binary(max_size=120))
@example(data=b"")
@settings(max_examples=200)
def test_random_bytes(parser: Parser, data: bytes) -> None:
    run(parser, data)


ADDRESS = bytes.fromhex("deadbeef000100000000000000000001")
DSS_OPTIONS = TcpOptions(timestamp_value=5, timestamp_echo=6, mptcp=(Dss(7, True, 8, True, 9, 10),))
SYN_OPTIONS = TcpOptions(1460, 7, True, 5, 6, mptcp=(MpCapable(1, 1, bytes(8)),))
ADD_ADDR_OPTIONS = TcpOptions(mptcp=(AddAddr(False, 1, ADDRESS, 99, bytes(8)),))
EXTENSION_HEADERS = bytes.fromhex(
    "3c00050200000000"  # hop-by-hop: router alert, padding
    "2b00010400000000"  # destination options
    "2c00000000000000"  # routing, no segments left
    "0600000000000001"  # atomic fragment
)
SAMPLES: tuple[tuple[Parser, bytes], ...] = (
    (parse_options, emit_options(DSS_OPTIONS)),
    (parse_options, emit_options(SYN_OPTIONS)),
    (parse_options, emit_options(ADD_ADDR_OPTIONS)),
    (parse_tcp, bytes(emit_tcp_header(TcpSegment(1, 2, 3, 4, 16, 5, DSS_OPTIONS))) + b"payload"),
    (parse_ipv6, emit_ipv6_header(ADDRESS, ADDRESS, 0, 40) + EXTENSION_HEADERS + b"12345678"),
    (parse_quoted_packet, emit_ipv6_header(ADDRESS, ADDRESS, 0, 40) + EXTENSION_HEADERS + b"12345678"),
    (parse_quoted_packet, emit_ipv4_header(bytes(4), bytes(4), 6, 8, identification=0) + b"12345678"),
    (parse_icmpv4, emit_icmpv4(IcmpEcho(False, 1, 2, b"ping"))),
    (parse_icmpv6, emit_icmpv6(IcmpPacketTooBig(1280, b"quoted"), ADDRESS, ADDRESS)),
    (
        parse_neighbour_discovery,
        emit_neighbour_discovery(NeighbourAdvertisement(ADDRESS, bytes(6)), ADDRESS, ADDRESS),
    ),
)


@pytest.mark.parametrize(("parser", "sample"), SAMPLES)
def test_samples_are_legal_and_truncated_ones_are_safe(parser: Parser, sample: bytes) -> None:
    parser(memoryview(sample))
    for length in range(len(sample)):
        run(parser, sample[:length])


@pytest.mark.parametrize(("parser", "sample"), SAMPLES)
def test_every_byte_changed_to_every_value(parser: Parser, sample: bytes) -> None:
    changed = bytearray(sample)
    for position, original in enumerate(sample):
        for value in range(256):
            changed[position] = value
            run(parser, bytes(changed))
        changed[position] = original


@pytest.mark.parametrize(("parser", "sample"), SAMPLES)
def test_several_bytes_changed_at_once(parser: Parser, sample: bytes) -> None:
    generator = random.Random(8684)
    for _ in range(2000):
        changed = bytearray(sample)
        for _ in range(generator.randint(2, 6)):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        run(parser, bytes(changed[: generator.randint(0, len(changed))]))


@given(st.binary(max_size=60), st.integers(5, 15))
def test_ipv4_header_with_a_good_checksum(data: bytes, words: int) -> None:
    """Random bytes alone hardly ever get past the checksum."""
    header = bytearray(data.ljust(words * 4, b"\0")[: words * 4])
    header[0] = 0x40 | words
    header[10:12] = b"\0\0"
    header[10:12] = checksum_of((header,)).to_bytes(2, "big")
    run(parse_ipv4, bytes(header) + data)
