from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.packet import Packet, Raw

from mptcp_stack.errors import ConfigurationError, MalformedPacketError
from mptcp_stack.wire import icmp
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.icmp import (
    V4_FRAGMENTATION_NEEDED,
    V4_PORT_UNREACHABLE,
    V6_PORT_UNREACHABLE,
    IcmpDestinationUnreachable,
    IcmpEcho,
    IcmpMessage,
    IcmpPacketTooBig,
    IcmpParameterProblem,
    IcmpTimeExceeded,
    IcmpUnknown,
    emit_icmpv4,
    emit_icmpv6,
    icmpv4_checksum_is_good,
    icmpv6_checksum_is_good,
    parse_icmpv4,
    parse_icmpv6,
)
from tests.wire.strategies import uint8, uint16, uint32

SOURCE = parse_address("dead:beef:1::1")
DESTINATION = parse_address("dead:beef:1::2")
QUOTED = bytes(range(48))

data = st.binary(max_size=60)
echoes = st.builds(IcmpEcho, st.booleans(), uint16, uint16, data)
time_exceeded = st.builds(IcmpTimeExceeded, uint8, data)
v4_messages: st.SearchStrategy[IcmpMessage] = st.one_of(
    echoes,
    time_exceeded,
    st.builds(IcmpDestinationUnreachable, uint8.filter(lambda code: code != V4_FRAGMENTATION_NEEDED), data),
    st.builds(IcmpDestinationUnreachable, st.just(V4_FRAGMENTATION_NEEDED), data, uint16),
    st.builds(IcmpParameterProblem, uint8, uint8, data),
    st.builds(IcmpUnknown, st.integers(13, 255), uint8, st.binary(min_size=4, max_size=60)),
)
v6_messages: st.SearchStrategy[IcmpMessage] = st.one_of(
    echoes,
    time_exceeded,
    st.builds(IcmpDestinationUnreachable, uint8, data),
    st.builds(IcmpPacketTooBig, uint32, data),
    st.builds(IcmpParameterProblem, uint8, uint32, data),
    st.builds(IcmpUnknown, st.integers(130, 255), uint8, st.binary(min_size=4, max_size=60)),
)


@given(v4_messages)
def test_v4_round_trip(message: IcmpMessage) -> None:
    emitted = emit_icmpv4(message)
    assert icmpv4_checksum_is_good(emitted)
    assert parse_icmpv4(memoryview(emitted)) == message


@given(v6_messages)
def test_v6_round_trip(message: IcmpMessage) -> None:
    emitted = emit_icmpv6(message, SOURCE, DESTINATION)
    assert icmpv6_checksum_is_good(emitted, SOURCE, DESTINATION)
    assert not icmpv6_checksum_is_good(emitted, SOURCE, SOURCE)
    assert parse_icmpv6(memoryview(emitted)) == message


@pytest.mark.parametrize(
    ("message", "oracle"),
    [
        (IcmpEcho(False, 7, 8, b"ping"), ICMP(type=8, id=7, seq=8) / b"ping"),
        (IcmpEcho(True, 7, 8, b"ping"), ICMP(type=0, id=7, seq=8) / b"ping"),
        (IcmpDestinationUnreachable(V4_PORT_UNREACHABLE, QUOTED), ICMP(type=3, code=3) / Raw(QUOTED)),
        (
            IcmpDestinationUnreachable(V4_FRAGMENTATION_NEEDED, QUOTED, 1400),
            ICMP(type=3, code=4, nexthopmtu=1400) / Raw(QUOTED),
        ),
        (IcmpTimeExceeded(0, QUOTED), ICMP(type=11, code=0) / Raw(QUOTED)),
        (IcmpParameterProblem(0, 20, QUOTED), ICMP(type=12, code=0, ptr=20) / Raw(QUOTED)),
    ],
)
def test_v4_agrees_with_scapy(message: IcmpMessage, oracle: Packet) -> None:
    expected = bytes(IP(src="10.0.1.1", dst="10.0.1.2") / oracle)[20:]
    assert emit_icmpv4(message) == expected
    assert parse_icmpv4(memoryview(expected)) == message


@pytest.mark.parametrize(
    ("message", "oracle"),
    [
        (IcmpEcho(False, 7, 8, b"ping"), ICMPv6EchoRequest(id=7, seq=8, data=b"ping")),
        (IcmpEcho(True, 7, 8, b"ping"), ICMPv6EchoReply(id=7, seq=8, data=b"ping")),
        (IcmpDestinationUnreachable(V6_PORT_UNREACHABLE, QUOTED), ICMPv6DestUnreach(code=4) / Raw(QUOTED)),
        (IcmpPacketTooBig(1280, QUOTED), ICMPv6PacketTooBig(mtu=1280) / Raw(QUOTED)),
        (IcmpTimeExceeded(0, QUOTED), ICMPv6TimeExceeded(code=0) / Raw(QUOTED)),
        (IcmpParameterProblem(2, 40, QUOTED), ICMPv6ParamProblem(code=2, ptr=40) / Raw(QUOTED)),
    ],
)
def test_v6_agrees_with_scapy(message: IcmpMessage, oracle: Packet) -> None:
    expected = bytes(IPv6(src="dead:beef:1::1", dst="dead:beef:1::2") / oracle)[40:]
    assert emit_icmpv6(message, SOURCE, DESTINATION) == expected
    assert parse_icmpv6(memoryview(expected)) == message


def test_codes_are_those_of_iana() -> None:
    """https://www.iana.org/assignments/icmp-parameters and icmpv6-parameters."""
    codes = {name: value for name, value in vars(icmp).items() if name.startswith(("V4_", "V6_"))}
    assert codes == {
        "V4_NETWORK_UNREACHABLE": 0,
        "V4_HOST_UNREACHABLE": 1,
        "V4_PROTOCOL_UNREACHABLE": 2,
        "V4_PORT_UNREACHABLE": 3,
        "V4_FRAGMENTATION_NEEDED": 4,
        "V4_NETWORK_PROHIBITED": 9,
        "V4_HOST_PROHIBITED": 10,
        "V4_PROHIBITED": 13,
        "V6_NO_ROUTE": 0,
        "V6_PROHIBITED": 1,
        "V6_BEYOND_SCOPE": 2,
        "V6_ADDRESS_UNREACHABLE": 3,
        "V6_PORT_UNREACHABLE": 4,
        "V6_SOURCE_POLICY": 5,
        "V6_REJECT_ROUTE": 6,
        "V6_ERRONEOUS_HEADER": 0,
        "V6_UNKNOWN_NEXT_HEADER": 1,
        "V6_UNKNOWN_OPTION": 2,
        "V6_INCOMPLETE_HEADER_CHAIN": 3,
    }


@pytest.mark.parametrize("length", range(8))
def test_short_message_is_malformed(length: int) -> None:
    with pytest.raises(MalformedPacketError):
        parse_icmpv4(memoryview(bytes(length)))
    with pytest.raises(MalformedPacketError):
        parse_icmpv6(memoryview(bytes(length)))


def test_changed_byte_spoils_the_checksum() -> None:
    emitted = bytearray(emit_icmpv4(IcmpEcho(False, 7, 8, b"odd")))
    emitted[9] ^= 1
    assert not icmpv4_checksum_is_good(emitted)


def test_messages_that_a_version_has_not_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="IcmpPacketTooBig"):
        emit_icmpv4(IcmpPacketTooBig(1280, QUOTED))
    for impossible in (
        IcmpParameterProblem(0, 256, b""),
        IcmpUnknown(300, 0, b""),
        IcmpTimeExceeded(-1, b""),
    ):
        with pytest.raises(ConfigurationError):
            emit_icmpv4(impossible)
