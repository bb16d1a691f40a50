"""NDP, against packets that scapy has made."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from mptcp_stack.ip.neighbours import LOCK_TIME_US, REACHABLE_TIME_US
from mptcp_stack.ip.routing import Route
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.frame import ChecksumState
from tests.ip.single_host import (
    FAR_V6,
    OTHER_MAC,
    OUR_LINK_LOCAL,
    OUR_MAC,
    OUR_V6,
    PEER_LINK_LOCAL,
    PEER_MAC,
    PEER_V6,
    SECOND_US,
    SingleHost,
    assert_checksums_good,
    ethernet,
)

OUR_GROUP, OUR_GROUP_MAC = "ff02::1:ff00:1", "33:33:ff:00:00:01"
PEER_GROUP, PEER_GROUP_MAC = "ff02::1:ff00:2", "33:33:ff:00:00:02"
ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"


def solicitation(
    target: str = OUR_V6,
    *,
    source: str = PEER_LINK_LOCAL,
    destination: str = OUR_GROUP,
    link_destination: str = OUR_GROUP_MAC,
    source_mac: str | None = PEER_MAC,
    hop_limit: int = 255,
) -> Packet:
    message = ICMPv6ND_NS(tgt=target)
    if source_mac is not None:
        message = message / ICMPv6NDOptSrcLLAddr(lladdr=source_mac)
    return ethernet(IPv6(src=source, dst=destination, hlim=hop_limit) / message, destination=link_destination)


def advertisement(
    target: str = PEER_V6,
    mac: str | None = PEER_MAC,
    *,
    solicited: bool = True,
    override: bool = True,
    destination: str = OUR_V6,
    hop_limit: int = 255,
) -> Packet:
    message = ICMPv6ND_NA(tgt=target, S=solicited, O=override, R=0)
    if mac is not None:
        message = message / ICMPv6NDOptDstLLAddr(lladdr=mac)
    return ethernet(IPv6(src=PEER_V6, dst=destination, hlim=hop_limit) / message)


def learn_peer(host: SingleHost, at_us: int = 0) -> None:
    host.send(PEER_V6, at_us=at_us)
    host.receive(advertisement(), at_us)
    host.layer.take_frames()


def destination_of_next(host: SingleHost, at_us: int, destination: str = PEER_V6) -> str:
    host.layer.take_frames()
    host.send(destination, at_us=at_us)
    (frame,) = host.sent()
    return str(frame.dst)


@pytest.mark.parametrize("source_mac", [PEER_MAC, None])
def test_solicitation_for_our_address_is_answered(source_mac: str | None) -> None:
    host = SingleHost()
    host.receive(solicitation(source_mac=source_mac))
    (frame,) = host.sent()
    message = ICMPv6ND_NA(tgt=OUR_V6, R=0, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=OUR_MAC)
    expected = Ether(src=OUR_MAC, dst=PEER_MAC) / IPv6(src=OUR_V6, dst=PEER_LINK_LOCAL, hlim=255) / message
    assert bytes(frame) == bytes(expected)
    assert host.counted("Icmp6InMsgs", "Icmp6InNeighborSolicits") == [1, 1]
    assert host.counted("Icmp6OutMsgs", "Icmp6OutNeighborAdvertisements") == [1, 1]
    assert host.drops() == {}


def test_unicast_solicitation_for_our_link_local_address_is_answered() -> None:
    host = SingleHost()
    host.receive(
        solicitation(OUR_LINK_LOCAL, source=PEER_V6, destination=OUR_LINK_LOCAL, link_destination=OUR_MAC)
    )
    (frame,) = host.sent()
    assert (frame[IPv6].src, frame[IPv6].dst, frame[ICMPv6ND_NA].tgt) == (
        OUR_LINK_LOCAL,
        PEER_V6,
        OUR_LINK_LOCAL,
    )


def test_whoever_asked_need_not_be_asked() -> None:
    host = SingleHost()
    host.receive(solicitation(source=PEER_V6))
    assert destination_of_next(host, SECOND_US) == PEER_MAC


def test_duplicate_address_detection_of_others_is_told_of_our_address() -> None:
    host = SingleHost()
    host.receive(solicitation(source="::", source_mac=None))
    (frame,) = host.sent()
    message = ICMPv6ND_NA(tgt=OUR_V6, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=OUR_MAC)
    expected = Ether(src=OUR_MAC, dst=ALL_NODES_MAC) / IPv6(src=OUR_V6, dst=ALL_NODES, hlim=255) / message
    assert bytes(frame) == bytes(expected)


@pytest.mark.parametrize(
    ("packet", "drops"),
    [
        (solicitation(hop_limit=254), {"MalformedIcmp": 1}),
        (solicitation(source_mac="01:00:00:00:00:00"), {"MalformedIcmp": 1}),
        (solicitation(source="::"), {"MalformedIcmp": 1}),
        (solicitation(source="::", source_mac=None, destination=OUR_V6), {"MalformedIcmp": 1}),
        (solicitation(PEER_V6), {"NotForUs": 1}),
        (solicitation(PEER_V6, destination=PEER_GROUP), {"NotForUs": 1}),
        (solicitation(source="ff02::1"), {"Martian": 1}),
        (solicitation(source=OUR_LINK_LOCAL), {"Martian": 1}),
        (advertisement(hop_limit=1), {"MalformedIcmp": 1}),
        (advertisement(destination=ALL_NODES), {"MalformedIcmp": 1}),
        (advertisement(mac=ALL_NODES_MAC), {"MalformedIcmp": 1}),
        (advertisement(OUR_V6), {"Martian": 1}),
        (advertisement(mac=OUR_MAC), {"Martian": 1}),
        (ethernet(IPv6(src=PEER_LINK_LOCAL, dst=ALL_NODES, hlim=255) / ICMPv6ND_RA()), {"IgnoredIcmp": 1}),
        (ethernet(IPv6(src=PEER_LINK_LOCAL, dst=OUR_V6, hlim=255) / ICMPv6ND_RS()), {"IgnoredIcmp": 1}),
    ],
)
def test_illegal_or_foreign_message_is_a_counted_drop(packet: Packet, drops: dict[str, int]) -> None:
    host = SingleHost()
    assert host.receive(packet) is None
    assert host.sent() == []
    assert host.drops() == drops


def test_message_with_a_wrong_checksum_is_dropped() -> None:
    host = SingleHost()
    packet = bytearray(bytes(solicitation()))
    packet[-1] ^= 1
    host.receive(bytes(packet))
    assert host.drops() == {"BadChecksum": 1}
    host.receive(bytes(packet), checksum=ChecksumState.VERIFIED)
    assert host.counters["Icmp6InNeighborSolicits"] == 1


def test_packet_waits_for_the_advertisement() -> None:
    host = SingleHost()
    host.send(PEER_V6)
    (request,) = host.sent()
    message = ICMPv6ND_NS(tgt=PEER_V6) / ICMPv6NDOptSrcLLAddr(lladdr=OUR_MAC)
    expected = Ether(src=OUR_MAC, dst=PEER_GROUP_MAC) / IPv6(src=OUR_V6, dst=PEER_GROUP, hlim=255) / message
    assert bytes(request) == bytes(expected)
    host.receive(advertisement(), 10)
    (frame,) = host.sent()
    assert (frame.dst, frame[IPv6].hlim, bytes(frame[TCP].payload)) == (PEER_MAC, 64, b"payload")
    assert_checksums_good(frame)
    assert host.counted("Icmp6OutNeighborSolicits", "Icmp6InNeighborAdvertisements") == [1, 1]


def test_advertisement_without_an_address_resolves_nothing() -> None:
    host = SingleHost()
    host.send(PEER_V6)
    host.layer.take_frames()
    host.receive(advertisement(mac=None))
    assert host.sent() == []


def test_link_local_gateway_is_asked_for_from_a_matching_address() -> None:
    host = SingleHost()
    host.layer.routes.add(Route(bytes(16), 0, host.interface, gateway=parse_address(PEER_LINK_LOCAL)))
    host.send(FAR_V6)
    (request,) = host.sent()
    assert (request[ICMPv6ND_NS].tgt, request[IPv6].src) == (PEER_LINK_LOCAL, OUR_V6)
    host.receive(advertisement(PEER_LINK_LOCAL))
    (frame,) = host.sent()
    assert (frame.dst, frame[IPv6].dst) == (PEER_MAC, FAR_V6)


def test_three_solicitations_then_the_packet_is_given_up() -> None:
    host = SingleHost()
    host.send(PEER_V6)
    for second in range(1, 4):
        host.layer.handle_deadline(second * SECOND_US)
    assert host.counters["Icmp6OutNeighborSolicits"] == 3
    assert host.drops() == {"NeighbourUnresolved": 1}
    assert [error.destination for error in host.layer.take_errors()] == [parse_address(PEER_V6)]


def test_unasked_advertisement_creates_nothing() -> None:
    host = SingleHost()
    host.receive(advertisement(solicited=False))
    assert destination_of_next(host, SECOND_US) == PEER_GROUP_MAC


def test_advertisement_without_override_only_raises_doubt() -> None:
    host = SingleHost()
    learn_peer(host)
    host.receive(advertisement(mac=OTHER_MAC, override=False), 10)
    assert destination_of_next(host, 11) == PEER_MAC
    assert host.layer.next_deadline_us() == 11 + 5 * SECOND_US


def test_unasked_override_is_believed_only_after_the_lock_time() -> None:
    host = SingleHost()
    learn_peer(host)
    claim = advertisement(mac=OTHER_MAC, solicited=True, override=True)
    host.receive(claim, LOCK_TIME_US - 1)
    assert destination_of_next(host, LOCK_TIME_US - 1) == PEER_MAC
    host.receive(claim, LOCK_TIME_US)
    assert destination_of_next(host, LOCK_TIME_US) == OTHER_MAC


def test_probe_is_unicast_and_an_answer_without_address_confirms() -> None:
    host = SingleHost()
    learn_peer(host)
    host.send(PEER_V6, at_us=REACHABLE_TIME_US)
    host.layer.take_frames()
    probe_us = REACHABLE_TIME_US + 5 * SECOND_US
    host.layer.handle_deadline(probe_us)
    (probe,) = host.sent()
    assert (probe.dst, probe[IPv6].dst, probe[ICMPv6ND_NS].tgt) == (PEER_MAC, PEER_V6, PEER_V6)
    host.receive(advertisement(mac=None), probe_us + 1)
    assert host.layer.next_deadline_us() is None


def test_probe_may_be_answered_from_a_new_address() -> None:
    host = SingleHost()
    learn_peer(host)
    host.send(PEER_V6, at_us=REACHABLE_TIME_US)
    probe_us = REACHABLE_TIME_US + 5 * SECOND_US
    host.layer.handle_deadline(probe_us)
    host.receive(advertisement(mac=OTHER_MAC), probe_us + 1)
    assert destination_of_next(host, probe_us + 2) == OTHER_MAC
    assert host.layer.next_deadline_us() is None
