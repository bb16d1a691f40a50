"""Hypothesis strategies for everything that a packet of a script can say, and for packets on the wire."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from mptcp_stack.wire.mptcp_options import emit_mptcp_option
from testbed.packetdrill.packet_building import emit_ip, with_tcp_checksum
from testbed.packetdrill.syntax import (
    Absent,
    AddAddressOption,
    AddressReference,
    AnyOptions,
    ChecksumForm,
    Computed,
    DataSequence,
    Direction,
    DssOption,
    Ecn,
    EndOfOptions,
    FastOpen,
    IcmpPart,
    IpPart,
    KeyFunction,
    KeyReference,
    MaximumSegmentSize,
    Md5Signature,
    MpCapableOption,
    MpFailOption,
    MpFastcloseOption,
    MpJoinAckOption,
    MpJoinSynAckOption,
    MpJoinSynOption,
    MpPrioOption,
    MpResetOption,
    NoOperation,
    Packet,
    RawOption,
    RemoveAddressOption,
    Sack,
    SackPermitted,
    ScriptOption,
    SequenceRange,
    TcpPart,
    Timestamps,
    Truncation,
    WindowScale,
)
from testbed.packetdrill.wire_packet import TCP_HEADER
from tests.wire.strategies import mptcp_options, uint8, uint16, uint32, uint64

names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
switches = st.none() | st.booleans()
addresses = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)


def maybe(strategy: st.SearchStrategy[int]) -> st.SearchStrategy[int | None]:
    return st.none() | strategy


def key_functions(*functions: Truncation) -> st.SearchStrategy[KeyFunction]:
    def of(function: Truncation) -> st.SearchStrategy[KeyFunction]:
        count = 2 if function in (Truncation.LEFT_64, Truncation.FULL_160) else 1
        variables = st.tuples(*([names] * count))
        offsets = uint64 if function is Truncation.INITIAL_DATA_SEQUENCE else st.just(0)
        return st.builds(KeyFunction, st.just(function), variables, offsets)

    return st.sampled_from(functions).flatmap(of)


data_numbers = st.none() | uint64 | key_functions(Truncation.INITIAL_DATA_SEQUENCE)
data_sequences = st.none() | st.builds(DataSequence, maybe(st.booleans()), data_numbers)
checksums = uint16 | st.sampled_from(ChecksumForm)
key_references = st.builds(KeyReference, names, maybe(uint64))
address_ids = st.none() | uint8 | st.just(Computed.AUTO)


@st.composite
def capables(draw: st.DrawFn) -> MpCapableOption:
    keys = draw(st.none() | st.lists(key_references, max_size=2).map(tuple))
    with_length = keys is not None and len(keys) == 2 and draw(st.booleans())
    return MpCapableOption(
        draw(maybe(st.integers(0, 15))),
        draw(maybe(uint8)),
        keys,
        draw(uint16) if with_length else None,
        draw(checksums) if with_length else ChecksumForm.NEGOTIATED,
    )


@st.composite
def data_sequence_signals(draw: st.DrawFn) -> DssOption:
    both = data_sequences | st.just(Absent.ABSENT)
    option = DssOption(draw(both), draw(both), fin=draw(st.booleans()))
    if not isinstance(option.data_sequence, DataSequence):
        return option
    return DssOption(
        option.data_ack,
        option.data_sequence,
        draw(maybe(uint32)),
        draw(maybe(uint16)),
        draw(checksums),
        option.fin,
    )


@st.composite
def announcements(draw: st.DrawFn) -> AddAddressOption:
    is_echo = draw(st.booleans())
    return AddAddressOption(
        draw(maybe(uint8)),
        AddressReference(draw(names), draw(st.none() | addresses)),
        draw(maybe(uint16)),
        None if is_echo else draw(st.none() | uint64 | st.just(Computed.AUTO)),
        is_echo,
    )


blocks = st.lists(st.tuples(uint32, uint32), min_size=1, max_size=4).map(tuple)
cookies = st.none() | st.binary(max_size=16)
script_options: st.SearchStrategy[ScriptOption] = st.one_of(
    st.just(NoOperation()),
    st.just(EndOfOptions()),
    st.just(SackPermitted()),
    st.builds(MaximumSegmentSize, uint16),
    st.builds(WindowScale, uint8),
    st.builds(Sack, blocks),
    st.builds(Timestamps, maybe(uint32), maybe(uint32)),
    st.builds(FastOpen, cookies, st.booleans()),
    st.builds(Md5Signature, st.none() | st.just(Computed.AUTO) | st.binary(min_size=16, max_size=16)),
    st.builds(RawOption, st.binary(min_size=1, max_size=40)),
    capables(),
    st.builds(
        MpJoinSynOption,
        switches,
        address_ids,
        st.none() | uint32 | st.just(Computed.AUTO) | key_functions(Truncation.TOKEN),
        maybe(uint32),
    ),
    st.builds(
        MpJoinSynAckOption,
        switches,
        address_ids,
        st.none() | uint64 | st.just(Computed.AUTO) | key_functions(Truncation.LEFT_64),
        maybe(uint32),
    ),
    st.builds(
        MpJoinAckOption,
        st.none()
        | st.integers(0, (1 << 160) - 1)
        | st.just(Computed.AUTO)
        | key_functions(Truncation.FULL_160),
    ),
    data_sequence_signals(),
    announcements(),
    st.builds(RemoveAddressOption, st.lists(uint8, min_size=1, max_size=8).map(tuple)),
    st.builds(MpPrioOption, switches, maybe(uint8)),
    st.builds(MpFailOption, data_numbers),
    st.builds(MpFastcloseOption, st.none() | key_references),
    st.builds(MpResetOption, maybe(uint8), maybe(st.integers(0, 15))),
)

ranges = st.builds(SequenceRange, uint32, st.integers(0, 65000))
ip_parts = st.builds(
    IpPart, maybe(uint8), st.none() | st.sampled_from(Ecn), maybe(uint8), maybe(st.integers(0, 0xFFFFF))
)
tcp_parts = st.builds(
    TcpPart,
    uint8,
    ranges,
    maybe(uint32),
    maybe(uint16),
    maybe(uint16),
    st.none()
    | st.lists(script_options | st.just(AnyOptions()), max_size=5)
    .map(tuple)
    .filter(lambda options: options != (AnyOptions(),)),
)
icmp_parts = st.one_of(
    st.builds(
        IcmpPart,
        st.just(False),
        st.just("unreachable"),
        st.sampled_from((None, "frag_needed", "port_unreachable", "13")),
        maybe(uint32),
        st.none() | ranges,
    ),
    st.builds(
        IcmpPart,
        st.just(True),
        st.sampled_from(("packet_too_big", "time_exceeded", "7")),
        st.none() | uint8.map(str),
        maybe(uint32),
        st.none() | ranges,
    ),
)
endpoints = st.builds(AddressReference, names, st.none() | addresses, st.none() | st.integers(1, 65535))


def _is_for_comparison(option: ScriptOption) -> bool:
    return isinstance(option, AnyOptions) or (isinstance(option, FastOpen) and option.cookie is None)


def _something_to_send(part: TcpPart) -> TcpPart:
    """Without what makes sense only in a comparison."""
    return replace(part, options=tuple(each for each in part.options or () if not _is_for_comparison(each)))


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    both = draw(st.booleans())
    direction = draw(st.sampled_from(Direction))
    tcp = tcp_parts if direction is Direction.OUT else tcp_parts.map(_something_to_send)
    return Packet(
        direction,
        draw(tcp | icmp_parts),
        draw(ip_parts),
        draw(endpoints) if both else None,
        draw(endpoints) if both else None,
    )


# --- on the wire ---


def _with_length(kind: int, body: bytes) -> bytes:
    return bytes((kind, 2 + len(body))) + body


encoded_options = st.one_of(
    st.just(b"\x01"),
    st.just(b"\x00"),
    st.builds(_with_length, st.just(2), st.binary(min_size=2, max_size=2)),
    st.builds(_with_length, st.just(3), st.binary(min_size=1, max_size=1)),
    st.just(b"\x04\x02"),
    st.builds(
        _with_length,
        st.just(5),
        st.sampled_from((8, 16, 24)).flatmap(lambda n: st.binary(min_size=n, max_size=n)),
    ),
    st.builds(_with_length, st.just(8), st.binary(min_size=8, max_size=8)),
    st.builds(_with_length, st.just(19), st.binary(min_size=16, max_size=16)),
    st.builds(_with_length, st.just(34), st.binary(max_size=16)),
    st.builds(_with_length, st.just(254), st.binary(max_size=14).map(lambda cookie: b"\xf9\x89" + cookie)),
    st.builds(_with_length, uint8, st.binary(max_size=20)),
    mptcp_options.map(emit_mptcp_option),
    st.binary(min_size=1, max_size=12),
)


@st.composite
def option_bytes(draw: st.DrawFn) -> bytes:
    """Up to 40 bytes of options in any order, not all of them legal."""
    encoded = b""
    for piece in draw(st.lists(encoded_options, max_size=6)):
        if len(encoded) + len(piece) <= 40:
            encoded += piece
    return encoded + b"\1" * (-len(encoded) % 4)


@st.composite
def wire_packets(
    draw: st.DrawFn, source: bytes, destination: bytes, source_port: int, destination_port: int
) -> bytes:
    """A TCP packet between these addresses and ports with right checksums."""
    options = draw(option_bytes())
    header = TCP_HEADER.pack(
        source_port,
        destination_port,
        draw(uint32),
        draw(uint32),
        20 + len(options) << 2,
        draw(uint8),
        draw(uint16),
        0,
        draw(uint16),
    )
    segment = with_tcp_checksum(header + options + draw(st.binary(max_size=30)), source, destination)
    return emit_ip(draw(ip_parts), source, destination, 6, segment)
