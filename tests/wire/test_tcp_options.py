from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scapy.layers.inet import TCP

from mptcp_stack.errors import ConfigurationError, MalformedPacketError
from mptcp_stack.wire.mptcp_options import (
    Dss,
    MpCapable,
    MpPrio,
    RemoveAddr,
    UnknownMptcpOption,
    emit_mptcp_option,
)
from mptcp_stack.wire.tcp_options import (
    MAXIMUM_OPTIONS_LENGTH,
    NO_OPTIONS,
    TcpOptions,
    emit_options,
    options_length,
    parse_options,
)
from tests.wire.strategies import data_sequence_signals, tcp_options, uint32

TIMESTAMPS = "01 01 08 0a 00000005 00000006"


@given(tcp_options())
def test_round_trip(options: TcpOptions) -> None:
    length = options_length(options)
    if length > MAXIMUM_OPTIONS_LENGTH:
        with pytest.raises(ConfigurationError, match="40"):
            emit_options(options)
        return
    encoded = emit_options(options)
    assert len(encoded) == length
    assert length % 4 == 0
    assert parse_options(memoryview(encoded)) == options


@given(uint32, uint32, data_sequence_signals())
def test_round_trip_of_the_common_segment(value: int, echo: int, signal: Dss) -> None:
    options = TcpOptions(timestamp_value=value, timestamp_echo=echo, mptcp=(signal,))
    encoded = emit_options(options)
    assert parse_options(memoryview(encoded)) == options
    assert parse_options(memoryview(encoded[12:] + encoded[:12])) == options


def test_no_options_are_shared() -> None:
    assert parse_options(memoryview(b"")) is NO_OPTIONS
    assert emit_options(NO_OPTIONS) == emit_options(TcpOptions()) == b""
    assert options_length(NO_OPTIONS) == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        pytest.param(
            TcpOptions(1460, 7, True, 5, 6, mptcp=(MpCapable(1, 1),)),
            "02 04 05b4  04 02 08 0a 00000005 00000006  01 03 03 07  1e 04 01 01",
            id="SYN of Linux",
        ),
        pytest.param(
            TcpOptions(1460, 7, True), "02 04 05b4  01 01 04 02  01 03 03 07", id="SYN without timestamps"
        ),
        pytest.param(
            TcpOptions(timestamp_value=5, timestamp_echo=6, sack_blocks=((1, 2), (3, 4))),
            f"{TIMESTAMPS}  01 01 05 12 00000001 00000002 00000003 00000004",
            id="SACK",
        ),
        pytest.param(
            TcpOptions(timestamp_value=5, timestamp_echo=6, mptcp=(Dss(None, False, 7, False, 8, 9),)),
            f"{TIMESTAMPS}  1e 0e 20 04 00000007 00000008 0009 01 01",
            id="mapping without checksum",
        ),
        pytest.param(TcpOptions(mptcp=(MpPrio(True),)), "1e 03 51 01", id="MP_PRIO"),
        pytest.param(
            TcpOptions(mptcp=(RemoveAddr((1, 2)), MpPrio(False))),
            "1e 05 40 01 02 01 01 01  1e 03 50 01",
            id="each padded by itself",
        ),
        pytest.param(
            TcpOptions(1460, md5_signature=bytes(range(16))),
            "01 01 13 12 000102030405060708090a0b0c0d0e0f  02 04 05b4",
            id="MD5 first",
        ),
        pytest.param(TcpOptions(1460, fast_open_cookie=b""), "02 04 05b4  22 02 01 01", id="cookie request"),
        pytest.param(
            TcpOptions(fast_open_cookie=bytes(8)), "22 0a 0000000000000000 01 01", id="fast open cookie"
        ),
        pytest.param(TcpOptions(unknown=((254, b"abc"),)), "fe 05 616263 01 01 01", id="unknown"),
    ],
)
def test_layout_of_linux(options: TcpOptions, text: str) -> None:
    encoded = bytes.fromhex(text)
    assert emit_options(options) == encoded
    assert parse_options(memoryview(encoded)) == options
    assert options_length(options) == len(encoded)


def test_common_options_agree_with_scapy() -> None:
    oracle = TCP(
        options=[("MSS", 1460), ("SAckOK", b""), ("Timestamp", (5, 6)), ("NOP", None), ("WScale", 7)]
    )
    assert bytes(oracle)[20:] == emit_options(TcpOptions(1460, 7, True, 5, 6))
    sack = TCP(options=[("SAck", (1, 2, 3, 4)), ("EOL", None)])
    assert parse_options(memoryview(bytes(sack)[20:])).sack_blocks == ((1, 2), (3, 4))


def test_end_of_list_hides_the_rest() -> None:
    assert parse_options(bytes.fromhex("00 02 04 05")) == TcpOptions()
    assert parse_options(bytes.fromhex(f"{TIMESTAMPS} 00 ff ff ff")) == TcpOptions(
        timestamp_value=5, timestamp_echo=6
    )


@pytest.mark.parametrize(
    "text",
    [
        "02",
        "01 01 01 02",
        "02 00 05b4",
        "02 01 05b4",
        "02 05 05b4",
        "fe 00",
        "1e 00 00 00",
        "1e 0c 20 03",
        f"{TIMESTAMPS} 1e",
        f"{TIMESTAMPS} 1e 00 20 00",
        f"{TIMESTAMPS} 1e 0c 20 03",
        f"{TIMESTAMPS} 01 01 01 08",
    ],
)
def test_impossible_length_is_malformed(text: str) -> None:
    with pytest.raises(MalformedPacketError):
        parse_options(memoryview(bytes.fromhex(text)))


@pytest.mark.parametrize(
    "text",
    [
        "02 02",
        "02 03 05",
        "02 06 05b40000",
        "02 04 0000",
        "03 02",
        "03 04 0707",
        "04 03 00",
        "05 02",
        "05 09 00000000000000",
        "05 0b 000000000000000000",
        "08 09 00000000000000",
        "08 0b 000000000000000000",
        "13 11 000000000000000000000000000000",
        "22 04 0000",
        "22 07 0000000000",
        "22 14 000000000000000000000000000000000000",
    ],
)
def test_known_option_in_a_wrong_length_is_ignored(text: str) -> None:
    assert parse_options(bytes.fromhex(text)) == TcpOptions()


def test_last_of_several_counts() -> None:
    assert parse_options(bytes.fromhex("02 04 05b4 02 04 0200")) == TcpOptions(0x200)


@pytest.mark.parametrize("prefix", ["", TIMESTAMPS])
@pytest.mark.parametrize(
    "text", ["1e 04 20 01", "1e 03 40 01", "1e 02", "1e 02 01 01", "1e 05 00 01 00 01 01 01", "1e 03 20 01"]
)
def test_malformed_mptcp_option_is_counted_and_the_rest_kept(prefix: str, text: str) -> None:
    options = parse_options(memoryview(bytes.fromhex(f"{prefix} {text} 02 04 05b4")))
    assert options.mptcp == ()
    assert options.malformed_mptcp == 1
    assert options.maximum_segment_size == 1460
    assert parse_options(memoryview(bytes.fromhex(f"{prefix} {text}"))).malformed_mptcp == 1


def test_unknown_subtype_is_kept_with_the_others() -> None:
    encoded = bytes.fromhex("1e 04 f1 02") + emit_mptcp_option(Dss(5))
    assert parse_options(encoded).mptcp == (UnknownMptcpOption(15, b"\xf1\x02"), Dss(5))


@given(st.integers(1, 3), st.binary(min_size=1, max_size=3))
def test_what_follows_the_signal_is_not_taken_for_padding(lead: int, tail: bytes) -> None:
    """The shortcut for timestamps and DSS gives what the long way gives."""
    assume(lead + len(tail) <= 4)
    mapping = emit_mptcp_option(Dss(None, False, 7, False, 8, 9))
    body = mapping + b"\x01" * (lead - 1) + tail
    long_way = b"\x01" + bytes.fromhex(TIMESTAMPS) + body
    short_way = bytes.fromhex(TIMESTAMPS) + body
    try:
        expected = parse_options(memoryview(long_way))
    except MalformedPacketError:
        with pytest.raises(MalformedPacketError):
            parse_options(memoryview(short_way))
    else:
        assert parse_options(memoryview(short_way)) == expected


@pytest.mark.parametrize(
    "options",
    [
        TcpOptions(maximum_segment_size=65536),
        TcpOptions(window_scale=256),
        TcpOptions(timestamp_value=1 << 32),
        TcpOptions(md5_signature=b"short"),
        TcpOptions(sack_blocks=((0, 1 << 32),)),
        TcpOptions(sack_blocks=((0, 1),) * 5),
        TcpOptions(unknown=((0, b""),)),
        TcpOptions(unknown=((1, b""),)),
        TcpOptions(unknown=((256, b""),)),
        TcpOptions(mptcp=(Dss(1 << 64, True),)),
    ],
    ids=repr,
)
def test_impossible_options_are_refused(options: TcpOptions) -> None:
    with pytest.raises(ConfigurationError):
        emit_options(options)
