"""Every MPTCP option of RFC 8684 in every legal length, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given

from mptcp_stack.errors import ConfigurationError, MalformedPacketError
from mptcp_stack.wire.mptcp_options import (
    CHECKSUM_REQUIRED,
    HMAC_SHA256,
    AddAddr,
    Dss,
    MpCapable,
    MpFail,
    MpFastclose,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
    MpPrio,
    MptcpOption,
    MpTcpRst,
    RemoveAddr,
    UnknownMptcpOption,
    emit_mptcp_option,
    mptcp_option_length,
    parse_mptcp_option,
)
from tests.wire.strategies import mptcp_options

KEY = bytes.fromhex("0123456789abcdef")
PEER_KEY = bytes.fromhex("fedcba9876543210")
V4 = bytes((10, 0, 2, 1))
V6 = bytes.fromhex("deadbeef000200000000000000000001")
V6_HEX = V6.hex()
HMAC = bytes(range(0xA0, 0xA8))
LONG_HMAC = bytes(range(20))
ACK32, ACK64 = 0x11223344, 0x1122334455667788
DSN32, DSN64 = 0x55667788, 0x99AABBCCDDEEFF00

CAPABLE_FLAGS = CHECKSUM_REQUIRED | HMAC_SHA256

VECTORS: list[tuple[MptcpOption, str]] = [
    (MpCapable(1, HMAC_SHA256), "1e 04 01 01"),
    (MpCapable(1, CAPABLE_FLAGS, KEY), "1e 0c 01 81 0123456789abcdef"),
    (MpCapable(1, 1, KEY, PEER_KEY), "1e 14 01 01 0123456789abcdef fedcba9876543210"),
    (MpCapable(1, 1, KEY, PEER_KEY, 1400), "1e 16 01 01 0123456789abcdef fedcba9876543210 0578"),
    (
        MpCapable(1, CAPABLE_FLAGS, KEY, PEER_KEY, 1400, 0xBEEF),
        "1e 18 01 81 0123456789abcdef fedcba9876543210 0578 beef",
    ),
    (MpJoinSyn(False, 2, 0x01020304, 0x05060708), "1e 0c 10 02 01020304 05060708"),
    (MpJoinSyn(True, 2, 0x01020304, 0x05060708), "1e 0c 11 02 01020304 05060708"),
    (MpJoinSynAck(False, 3, HMAC, 0x05060708), "1e 10 10 03 a0a1a2a3a4a5a6a7 05060708"),
    (MpJoinSynAck(True, 3, HMAC, 0x05060708), "1e 10 11 03 a0a1a2a3a4a5a6a7 05060708"),
    (MpJoinAck(LONG_HMAC), "1e 18 10 00 000102030405060708090a0b0c0d0e0f10111213"),
    (Dss(), "1e 04 20 00"),
    (Dss(data_fin=True), "1e 04 20 10"),
    (Dss(ACK32), "1e 08 20 01 11223344"),
    (Dss(ACK64, True), "1e 0c 20 03 1122334455667788"),
    (Dss(ACK64, True, data_fin=True), "1e 0c 20 13 1122334455667788"),
    (Dss(None, False, DSN32, False, 9, 1400), "1e 0e 20 04 55667788 00000009 0578"),
    (Dss(None, False, DSN32, False, 9, 1400, 0xBEEF), "1e 10 20 04 55667788 00000009 0578 beef"),
    (Dss(None, False, DSN64, True, 9, 1400), "1e 12 20 0c 99aabbccddeeff00 00000009 0578"),
    (Dss(None, False, DSN64, True, 9, 1400, 0), "1e 14 20 0c 99aabbccddeeff00 00000009 0578 0000"),
    (Dss(ACK32, False, DSN32, False, 9, 1400), "1e 12 20 05 11223344 55667788 00000009 0578"),
    (Dss(ACK32, False, DSN32, False, 9, 1400, 1), "1e 14 20 05 11223344 55667788 00000009 0578 0001"),
    (Dss(ACK64, True, DSN32, False, 9, 1400), "1e 16 20 07 1122334455667788 55667788 00000009 0578"),
    (Dss(ACK64, True, DSN32, False, 9, 1400, 1), "1e 18 20 07 1122334455667788 55667788 00000009 0578 0001"),
    (Dss(ACK32, False, DSN64, True, 9, 1400), "1e 16 20 0d 11223344 99aabbccddeeff00 00000009 0578"),
    (Dss(ACK32, False, DSN64, True, 9, 1400, 1), "1e 18 20 0d 11223344 99aabbccddeeff00 00000009 0578 0001"),
    (Dss(ACK64, True, DSN64, True, 9, 1400), "1e 1a 20 0f 1122334455667788 99aabbccddeeff00 00000009 0578"),
    (
        Dss(ACK64, True, DSN64, True, 0, 1, 0xBEEF, True),
        "1e 1c 20 1f 1122334455667788 99aabbccddeeff00 00000000 0001 beef",
    ),
    (AddAddr(True, 4, V4), "1e 08 31 04 0a000201"),
    (AddAddr(True, 4, V4, 10100), "1e 0a 31 04 0a000201 2774"),
    (AddAddr(True, 4, V6), f"1e 14 31 04 {V6_HEX}"),
    (AddAddr(True, 4, V6, 10100), f"1e 16 31 04 {V6_HEX} 2774"),
    (AddAddr(False, 4, V4, None, HMAC), "1e 10 30 04 0a000201 a0a1a2a3a4a5a6a7"),
    (AddAddr(False, 4, V4, 10100, HMAC), "1e 12 30 04 0a000201 2774 a0a1a2a3a4a5a6a7"),
    (AddAddr(False, 4, V6, None, HMAC), f"1e 1c 30 04 {V6_HEX} a0a1a2a3a4a5a6a7"),
    (AddAddr(False, 4, V6, 10100, HMAC), f"1e 1e 30 04 {V6_HEX} 2774 a0a1a2a3a4a5a6a7"),
    (RemoveAddr((1,)), "1e 04 40 01"),
    (RemoveAddr((1, 2, 3, 255)), "1e 07 40 010203ff"),
    (MpPrio(False), "1e 03 50"),
    (MpPrio(True), "1e 03 51"),
    (MpPrio(True, 7), "1e 04 51 07"),
    (MpFail(DSN64), "1e 0c 60 00 99aabbccddeeff00"),
    (MpFastclose(PEER_KEY), "1e 0c 70 00 fedcba9876543210"),
    (MpTcpRst(3), "1e 04 80 03"),
    (MpTcpRst(1, True), "1e 04 81 01"),
    (MpTcpRst(1, True, 0x0E), "1e 04 8f 01"),
    (UnknownMptcpOption(9, b"\x95"), "1e 03 95"),
    (UnknownMptcpOption(15, b"\xf3\x01\x02"), "1e 05 f3 01 02"),
]

LEGAL_LENGTHS = {
    0: {4, 12, 20, 22, 24},
    1: {12, 16, 24},
    3: {8, 10, 16, 18, 20, 22, 28, 30},
    5: {3, 4},
    6: {12},
    7: {12},
    8: {4},
}
"""By subtype; DSS and REMOVE_ADDR have their own tests."""


@pytest.mark.parametrize(("option", "text"), VECTORS, ids=[text[:11] for _, text in VECTORS])
def test_known_bytes(option: MptcpOption, text: str) -> None:
    encoded = bytes.fromhex(text)
    assert emit_mptcp_option(option) == encoded
    assert parse_mptcp_option(memoryview(encoded)) == option
    assert mptcp_option_length(option) == len(encoded)


@given(mptcp_options)
def test_round_trip(option: MptcpOption) -> None:
    encoded = emit_mptcp_option(option)
    assert parse_mptcp_option(memoryview(encoded)) == option
    assert mptcp_option_length(option) == len(encoded) == encoded[1]


@pytest.mark.parametrize("subtype", LEGAL_LENGTHS)
def test_only_legal_lengths_are_taken(subtype: int) -> None:
    accepted = set()
    for length in range(3, 41):
        for flags in (0, 1):
            try:
                parse_mptcp_option(bytes((30, length, subtype << 4 | flags)) + bytes(length - 3))
            except MalformedPacketError:
                continue
            accepted.add(length)
    assert accepted == LEGAL_LENGTHS[subtype]


@pytest.mark.parametrize("flags", range(256))
def test_flags_of_dss_determine_its_length(flags: int) -> None:
    expected = 4
    if flags & 0x01:
        expected += 8 if flags & 0x02 else 4
    if flags & 0x04:
        expected += 6 + (8 if flags & 0x08 else 4)
    legal = {expected, expected + 2} if flags & 0x04 else {expected}
    for length in range(4, 41):
        encoded = bytes((30, length, 0x20, flags)) + bytes(length - 4)
        if length in legal:
            option = parse_mptcp_option(encoded)
            assert isinstance(option, Dss)
            assert option.data_fin is bool(flags & 0x10)
            assert (option.checksum is None) is (length == expected)
        else:
            with pytest.raises(MalformedPacketError):
                parse_mptcp_option(encoded)


def test_width_flags_mean_nothing_without_their_field() -> None:
    assert parse_mptcp_option(bytes.fromhex("1e04200a")) == Dss()


@pytest.mark.parametrize("length", [8, 10, 16, 18, 20, 22, 28, 30])
def test_add_addr_has_an_hmac_unless_it_is_an_echo(length: int) -> None:
    is_echo_length = length in (8, 10, 20, 22)
    for echo in (False, True):
        encoded = bytes((30, length, 0x30 | echo)) + bytes(length - 3)
        if echo == is_echo_length:
            option = parse_mptcp_option(encoded)
            assert isinstance(option, AddAddr)
            assert (option.hmac is None) is echo
        else:
            with pytest.raises(MalformedPacketError):
                parse_mptcp_option(encoded)


def test_remove_addr_takes_any_number_of_ids_but_none() -> None:
    with pytest.raises(MalformedPacketError):
        parse_mptcp_option(bytes.fromhex("1e0340"))
    for count in range(1, 38):
        ids = tuple(range(count))
        assert parse_mptcp_option(bytes((30, 3 + count, 0x40, *ids))) == RemoveAddr(ids)


@pytest.mark.parametrize("subtype", range(9, 16))
def test_subtypes_not_defined_are_kept(subtype: int) -> None:
    body = bytes((subtype << 4 | 5, 1, 2))
    assert parse_mptcp_option(bytes((30, 5)) + body) == UnknownMptcpOption(subtype, body)


@pytest.mark.parametrize("text", ["", "1e", "1e02", "1e0401", "1e03500000", "080a01010101010101ab"])
def test_what_is_not_one_whole_option_is_malformed(text: str) -> None:
    with pytest.raises(MalformedPacketError):
        parse_mptcp_option(bytes.fromhex(text))


def test_parser_does_not_depend_on_the_buffer() -> None:
    for option, text in VECTORS:
        encoded = bytes.fromhex(text)
        assert parse_mptcp_option(bytearray(encoded)) == option


@pytest.mark.parametrize(
    "option",
    [
        MpCapable(1, 1, KEY[:7]),
        MpCapable(1, 256),
        MpCapable(1, 1, KEY, PEER_KEY, 65536),
        MpJoinSyn(False, 256, 0, 0),
        MpJoinSyn(False, 0, 1 << 32, 0),
        MpJoinSynAck(False, 0, KEY + KEY, 0),
        MpJoinAck(KEY),
        Dss(1 << 32),
        Dss(data_sequence=1, data_length=65536),
        AddAddr(False, 1, V4),
        AddAddr(True, 1, V4, None, HMAC),
        AddAddr(False, 1, b"123", None, HMAC),
        AddAddr(True, 1, V4, 65536),
        RemoveAddr(()),
        RemoveAddr((256,)),
        MpPrio(True, 256),
        MpFail(-1),
        MpFastclose(b""),
        MpTcpRst(256),
        UnknownMptcpOption(9, b""),
        UnknownMptcpOption(9, b"\xf0"),
        UnknownMptcpOption(9, b"\x90" + bytes(300)),
    ],
    ids=repr,
)
def test_impossible_option_is_refused(option: MptcpOption) -> None:
    with pytest.raises(ConfigurationError):
        emit_mptcp_option(option)
