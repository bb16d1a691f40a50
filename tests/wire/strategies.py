"""Hypothesis strategies for every legal header, option and message."""

from __future__ import annotations

from hypothesis import strategies as st

from mptcp_stack.wire.mptcp_options import (
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
)
from mptcp_stack.wire.tcp_options import TcpOptions

uint8 = st.integers(0, 0xFF)
uint16 = st.integers(0, 0xFFFF)
uint32 = st.integers(0, 0xFFFFFFFF)
uint64 = st.integers(0, 0xFFFFFFFFFFFFFFFF)


def exactly(length: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=length, max_size=length)


keys = exactly(8)
ipv4_addresses = exactly(4)
ipv6_addresses = exactly(16)
macs = exactly(6)


@st.composite
def capables(draw: st.DrawFn) -> MpCapable:
    option = MpCapable(draw(st.integers(0, 15)), draw(uint8))
    form = draw(st.sampled_from((4, 12, 20, 22, 24)))
    option.sender_key = draw(keys) if form >= 12 else None
    option.receiver_key = draw(keys) if form >= 20 else None
    option.data_length = draw(uint16) if form >= 22 else None
    option.checksum = draw(uint16) if form == 24 else None
    return option


@st.composite
def data_sequence_signals(draw: st.DrawFn) -> Dss:
    option = Dss(data_fin=draw(st.booleans()))
    if draw(st.booleans()):
        option.data_ack_is_64bit = draw(st.booleans())
        option.data_ack = draw(uint64 if option.data_ack_is_64bit else uint32)
    if draw(st.booleans()):
        option.data_sequence_is_64bit = draw(st.booleans())
        option.data_sequence = draw(uint64 if option.data_sequence_is_64bit else uint32)
        option.subflow_sequence = draw(uint32)
        option.data_length = draw(uint16)
        option.checksum = draw(st.none() | uint16)
    return option


@st.composite
def address_advertisements(draw: st.DrawFn) -> AddAddr:
    hmac = draw(st.none() | keys)
    address = draw(ipv4_addresses | ipv6_addresses)
    return AddAddr(hmac is None, draw(uint8), address, draw(st.none() | uint16), hmac)


@st.composite
def unknown_options(draw: st.DrawFn) -> UnknownMptcpOption:
    subtype = draw(st.integers(9, 15))
    first = subtype << 4 | draw(st.integers(0, 15))
    return UnknownMptcpOption(subtype, bytes((first,)) + draw(st.binary(max_size=37)))


mptcp_options: st.SearchStrategy[MptcpOption] = st.one_of(
    capables(),
    st.builds(MpJoinSyn, st.booleans(), uint8, uint32, uint32),
    st.builds(MpJoinSynAck, st.booleans(), uint8, keys, uint32),
    st.builds(MpJoinAck, exactly(20)),
    data_sequence_signals(),
    address_advertisements(),
    st.builds(RemoveAddr, st.lists(uint8, min_size=1, max_size=37).map(tuple)),
    st.builds(MpPrio, st.booleans(), st.none() | uint8),
    st.builds(MpFail, uint64),
    st.builds(MpFastclose, keys),
    st.builds(MpTcpRst, uint8, st.booleans(), st.sampled_from(range(0, 16, 2))),
    unknown_options(),
)

_known_kinds = (0, 1, 2, 3, 4, 5, 8, 19, 30, 34)


@st.composite
def tcp_options(draw: st.DrawFn) -> TcpOptions:
    """Options that may take up more than a header's 40 bytes."""
    options = TcpOptions(
        maximum_segment_size=draw(st.none() | st.integers(1, 0xFFFF)),
        window_scale=draw(st.none() | uint8),
        sack_permitted=draw(st.booleans()),
        timestamp_value=draw(st.none() | uint32),
        sack_blocks=draw(st.lists(st.tuples(uint32, uint32), max_size=4).map(tuple)),
        fast_open_cookie=draw(st.none() | st.sampled_from((0, *range(4, 17, 2))).flatmap(exactly)),
        md5_signature=draw(st.none() | exactly(16)),
        mptcp=draw(st.lists(mptcp_options, max_size=2).map(tuple)),
        unknown=draw(
            st.lists(
                st.tuples(uint8.filter(lambda kind: kind not in _known_kinds), st.binary(max_size=8)),
                max_size=2,
            ).map(tuple)
        ),
    )
    if options.timestamp_value is not None:
        options.timestamp_echo = draw(uint32)
    return options
