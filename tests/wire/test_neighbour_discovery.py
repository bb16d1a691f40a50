from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.packet import Packet

from mptcp_stack.errors import ConfigurationError, MalformedPacketError
from mptcp_stack.wire.addresses import format_address, is_multicast, parse_address
from mptcp_stack.wire.icmp import icmpv6_checksum_is_good
from mptcp_stack.wire.neighbour_discovery import (
    NEIGHBOUR_DISCOVERY_TYPES,
    NeighbourAdvertisement,
    NeighbourDiscoveryMessage,
    NeighbourSolicitation,
    RouterAdvertisement,
    RouterSolicitation,
    emit_neighbour_discovery,
    parse_neighbour_discovery,
    solicited_node_group,
)
from tests.wire.strategies import ipv6_addresses, macs, uint8, uint16, uint32

SOURCE = parse_address("fe80::1")
DESTINATION = parse_address("fe80::2")
TARGET = parse_address("dead:beef:1::2")
MAC = bytes.fromhex("020000000001")

targets = ipv6_addresses.filter(lambda address: not is_multicast(address))
optional_macs = st.none() | macs
messages: st.SearchStrategy[NeighbourDiscoveryMessage] = st.one_of(
    st.builds(NeighbourSolicitation, targets, optional_macs),
    st.builds(NeighbourAdvertisement, targets, optional_macs, st.booleans(), st.booleans(), st.booleans()),
    st.builds(RouterSolicitation, optional_macs),
    st.builds(RouterAdvertisement, uint8, uint8, uint16, uint32, uint32, optional_macs),
)


@given(messages)
def test_round_trip(message: NeighbourDiscoveryMessage) -> None:
    emitted = emit_neighbour_discovery(message, SOURCE, DESTINATION)
    assert emitted[0] in NEIGHBOUR_DISCOVERY_TYPES
    assert icmpv6_checksum_is_good(emitted, SOURCE, DESTINATION)
    assert parse_neighbour_discovery(memoryview(emitted)) == message


@pytest.mark.parametrize(
    ("message", "oracle"),
    [
        (
            NeighbourSolicitation(TARGET, MAC),
            ICMPv6ND_NS(tgt="dead:beef:1::2") / ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:01"),
        ),
        (NeighbourSolicitation(TARGET), ICMPv6ND_NS(tgt="dead:beef:1::2")),
        (
            NeighbourAdvertisement(TARGET, MAC, is_solicited=True, is_override=True),
            ICMPv6ND_NA(tgt="dead:beef:1::2", R=0, S=1, O=1)
            / ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:00:01"),
        ),
        (NeighbourAdvertisement(TARGET, is_router=True), ICMPv6ND_NA(tgt="dead:beef:1::2", R=1, S=0, O=0)),
        (RouterSolicitation(MAC), ICMPv6ND_RS() / ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:01")),
        (
            RouterAdvertisement(64, 0xC0, 1800, 5, 6, MAC),
            ICMPv6ND_RA(chlim=64, M=1, O=1, prf=0, routerlifetime=1800, reachabletime=5, retranstimer=6)
            / ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:01"),
        ),
    ],
)
def test_agrees_with_scapy(message: NeighbourDiscoveryMessage, oracle: Packet) -> None:
    expected = bytes(IPv6(src="fe80::1", dst="fe80::2") / oracle)[40:]
    assert emit_neighbour_discovery(message, SOURCE, DESTINATION) == expected
    assert parse_neighbour_discovery(memoryview(expected)) == message


def test_other_options_are_ignored() -> None:
    oracle = ICMPv6ND_RA() / ICMPv6NDOptMTU(mtu=1500) / ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:01")
    message = parse_neighbour_discovery(memoryview(bytes(oracle)))
    assert isinstance(message, RouterAdvertisement)
    assert message.source_mac == MAC


def test_link_layer_addresses_of_other_links_are_ignored() -> None:
    emitted = emit_neighbour_discovery(NeighbourSolicitation(TARGET), SOURCE, DESTINATION)
    message = parse_neighbour_discovery(memoryview(emitted + bytes((1, 2)) + bytes(14)))
    assert message == NeighbourSolicitation(TARGET)


@pytest.mark.parametrize(
    "message",
    [
        NeighbourSolicitation(TARGET, MAC),
        NeighbourAdvertisement(TARGET, MAC),
        RouterSolicitation(MAC),
        RouterAdvertisement(64, 0, 0, 0, 0, MAC),
    ],
)
def test_truncated_message_is_malformed(message: NeighbourDiscoveryMessage) -> None:
    emitted = emit_neighbour_discovery(message, SOURCE, DESTINATION)
    for length in range(len(emitted)):
        if length == len(emitted) - 8:
            continue  # exactly the option is missing, which is legal
        with pytest.raises(MalformedPacketError):
            parse_neighbour_discovery(memoryview(emitted)[:length])


def test_illegal_messages_are_malformed() -> None:
    good = emit_neighbour_discovery(NeighbourSolicitation(TARGET), SOURCE, DESTINATION)
    wrong_code = good[:1] + b"\1" + good[2:]
    wrong_type = bytes((137,)) + good[1:]
    multicast_target = good[:8] + b"\xff" + good[9:]
    empty_option = good + bytes(8)
    for data in (wrong_code, wrong_type, multicast_target, empty_option):
        with pytest.raises(MalformedPacketError):
            parse_neighbour_discovery(memoryview(data))


@pytest.mark.parametrize(
    "message",
    [
        NeighbourSolicitation(bytes(4)),
        NeighbourSolicitation(TARGET, bytes(8)),
        RouterAdvertisement(256, 0, 0, 0, 0),
    ],
)
def test_impossible_message_is_refused(message: NeighbourDiscoveryMessage) -> None:
    with pytest.raises(ConfigurationError):
        emit_neighbour_discovery(message, SOURCE, DESTINATION)


def test_solicited_node_group() -> None:
    group = solicited_node_group(parse_address("dead:beef:1::12:3456"))
    assert format_address(group) == "ff02::1:ff12:3456"
