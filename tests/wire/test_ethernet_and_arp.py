from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import ARP, Ether

from mptcp_stack.errors import ConfigurationError, MalformedPacketError
from mptcp_stack.wire.arp import ARP_REPLY, ARP_REQUEST, ArpPacket, emit_arp, parse_arp
from mptcp_stack.wire.ethernet import (
    BROADCAST,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV6,
    HEADER_LENGTH,
    EthernetHeader,
    emit_ethernet,
    format_mac,
    multicast_mac,
    parse_ethernet,
)
from tests.wire.strategies import ipv4_addresses, macs, uint16

MAC = bytes.fromhex("020000000001")
ARP_PACKETS = st.builds(
    ArpPacket, st.sampled_from((ARP_REQUEST, ARP_REPLY)), macs, ipv4_addresses, macs, ipv4_addresses
)


@given(st.builds(EthernetHeader, macs, macs, uint16), st.binary(max_size=20))
def test_ethernet_round_trip(header: EthernetHeader, payload: bytes) -> None:
    emitted = emit_ethernet(header)
    assert len(emitted) == HEADER_LENGTH
    assert parse_ethernet(memoryview(emitted + payload)) == header


def test_ethernet_agrees_with_scapy() -> None:
    oracle = bytes(Ether(dst="ff:ff:ff:ff:ff:ff", src="02:00:00:00:00:01", type=0x86DD))
    header = EthernetHeader(BROADCAST, MAC, ETHERTYPE_IPV6)
    assert emit_ethernet(header) == oracle
    assert parse_ethernet(oracle) == header


@pytest.mark.parametrize("length", range(HEADER_LENGTH))
def test_short_frame_is_malformed(length: int) -> None:
    with pytest.raises(MalformedPacketError):
        parse_ethernet(bytes(length))


@pytest.mark.parametrize(
    "header",
    [EthernetHeader(b"", MAC, 0x800), EthernetHeader(MAC, bytes(7), 0x800), EthernetHeader(MAC, MAC, -1)],
)
def test_impossible_ethernet_header_is_refused(header: EthernetHeader) -> None:
    with pytest.raises(ConfigurationError):
        emit_ethernet(header)


def test_multicast_mac_addresses() -> None:
    assert format_mac(multicast_mac(bytes((224, 129, 2, 3)))) == "01:00:5e:01:02:03"
    assert format_mac(multicast_mac(bytes.fromhex("ff0200000000000000000001ff112233"))) == "33:33:ff:11:22:33"


@given(ARP_PACKETS, st.binary(max_size=20))
def test_arp_round_trip(packet: ArpPacket, padding: bytes) -> None:
    assert parse_arp(memoryview(emit_arp(packet) + padding)) == packet


def test_arp_agrees_with_scapy() -> None:
    oracle = Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff") / ARP(
        op="who-has", hwsrc="02:00:00:00:00:01", psrc="10.0.1.1", hwdst="00:00:00:00:00:00", pdst="10.0.1.2"
    )
    packet = ArpPacket(ARP_REQUEST, MAC, bytes((10, 0, 1, 1)), bytes(6), bytes((10, 0, 1, 2)))
    assert emit_ethernet(EthernetHeader(BROADCAST, MAC, ETHERTYPE_ARP)) + emit_arp(packet) == bytes(oracle)


GOOD_ARP = emit_arp(ArpPacket(ARP_REPLY, MAC, bytes(4), MAC, bytes(4)))


@pytest.mark.parametrize("length", range(len(GOOD_ARP)))
def test_short_arp_is_malformed(length: int) -> None:
    with pytest.raises(MalformedPacketError):
        parse_arp(GOOD_ARP[:length])


@pytest.mark.parametrize("position", [1, 3, 4, 5, 7])
def test_arp_for_anything_else_is_malformed(position: int) -> None:
    """Hardware type, protocol type, their lengths, the operation: each changed in turn."""
    changed = bytearray(GOOD_ARP)
    changed[position] ^= 0x10
    with pytest.raises(MalformedPacketError):
        parse_arp(changed)


@pytest.mark.parametrize(
    "packet",
    [
        ArpPacket(ARP_REPLY, MAC, bytes(16), MAC, bytes(4)),
        ArpPacket(ARP_REPLY, MAC, bytes(4), b"", bytes(4)),
        ArpPacket(-1, MAC, bytes(4), MAC, bytes(4)),
    ],
)
def test_impossible_arp_packet_is_refused(packet: ArpPacket) -> None:
    with pytest.raises(ConfigurationError):
        emit_arp(packet)
