"""Translators: addresses and ports both ways, ICMP errors, who asks for whom, and what is refused."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from ipaddress import ip_address

import pytest

from mptcp_stack.wire import icmp
from mptcp_stack.wire.arp import ArpPacket, emit_arp, parse_arp
from mptcp_stack.wire.checksum import ones_complement_sum
from mptcp_stack.wire.ip_packet import (
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    emit_ipv4_header,
    emit_ipv6_header,
    parse_ipv4,
    parse_ipv6,
    parse_quoted_packet,
)
from mptcp_stack.wire.neighbour_discovery import (
    NeighbourAdvertisement,
    NeighbourSolicitation,
    emit_neighbour_discovery,
    parse_neighbour_discovery,
    solicited_node_group,
)
from testbed.middlebox.chain import Middlebox
from testbed.middlebox.nat_table import TRANSITORY_US, NatTable
from testbed.middlebox.segment import ACK, FIN, SYN, Segment
from testbed.middlebox.settings import NAT_IDLE_TIMEOUT_US, Nat44, Nat66
from tests.middlebox.segments import ADDRESSES, segment, whole

OUTER = {4: ip_address("10.0.0.77").packed, 6: ip_address("fd00::77").packed}
MAC = b"\x02\0\0\0\0\x01"
OTHER_MAC = b"\x02\0\0\0\0\x02"


class Link:
    """A link with a translator; the client is inside."""

    def __init__(self, family: int = 4, idle_timeout_us: int = NAT_IDLE_TIMEOUT_US) -> None:
        self.family = family
        address = str(ip_address(OUTER[family]))
        kind = Nat44 if family == 4 else Nat66
        nat = kind(address=address, idle_timeout_us=idle_timeout_us)
        self.middlebox = Middlebox((nat,), seed=1)
        self.inner, self.peer = ADDRESSES[family]

    def out(self, sent: Segment, now_us: int = 0) -> list[Segment]:
        return [whole(frame) for frame in self.middlebox.forward(sent.to_bytes(), now_us)]

    def back(self, sent: Segment, now_us: int = 0) -> list[Segment]:
        return [whole(frame) for frame in self.middlebox.backward(sent.to_bytes(), now_us)]

    def answer(self, port: int = 4000, flags: int = ACK) -> Segment:
        """From the peer, to the outer address."""
        answer = segment(9, flags, is_answer=True, family=self.family, port=port)
        return whole(replace(answer, destination=OUTER[self.family]).to_bytes())


@pytest.mark.parametrize("family", [4, 6])
def test_there_and_back(family: int) -> None:
    link = Link(family)
    (sent,) = link.out(segment(1, SYN, family=family))
    assert (sent.source, sent.source_port) == (OUTER[family], 4000)
    (received,) = link.back(link.answer(flags=SYN | ACK))
    assert (received.destination, received.destination_port) == (link.inner, 4000)
    (counters,) = link.middlebox.counters
    assert (counters.seen, counters.changed, counters.dropped) == (2, 2, 0)


def test_the_other_family_is_not_its_business() -> None:
    sent = segment(1, SYN, family=6)
    assert Link(4).out(sent) == [sent]


def test_two_ends_inside_with_one_port_have_two_outside_and_keep_them_towards_everybody() -> None:
    link = Link()
    first, second = segment(1, SYN), segment(1, SYN)
    second = whole(replace(second, source=ip_address("10.0.0.9").packed).to_bytes())
    elsewhere = whole(replace(second, destination=ip_address("10.9.9.9").packed).to_bytes())
    (one,), (two,), (three,) = link.out(first), link.out(second), link.out(elsewhere)
    assert one.source_port == 4000 != two.source_port >= 1024
    assert two.source_port == three.source_port
    (back,) = link.back(link.answer(two.source_port))
    assert (back.destination, back.destination_port) == (second.source, 4000)


def test_nobody_gets_in_uninvited() -> None:
    link = Link()
    assert link.back(link.answer(flags=SYN)) == []
    link.out(segment(1, SYN))
    assert link.back(link.answer(port=4001)) == []
    assert link.back(segment(1, SYN, is_answer=True)) == [], "the inner address itself"
    assert len(link.back(link.answer())) == 1


def test_silence_ends_a_mapping() -> None:
    link = Link(idle_timeout_us=10_000_000_000)
    link.out(segment(1, SYN))
    assert link.back(link.answer(), TRANSITORY_US) == [], "it was never established"
    link.out(segment(1, SYN), TRANSITORY_US)
    assert link.back(link.answer(), TRANSITORY_US + 1)
    assert link.back(link.answer(), 9_000_000_000), "now it was, and lives longer"
    link.out(segment(5, FIN | ACK), 9_000_000_000)
    assert link.back(link.answer(), 9_000_000_000 + TRANSITORY_US) == [], "it was being closed"
    short = Link(idle_timeout_us=1_000_000)
    short.out(segment(1, SYN))
    assert short.back(short.answer(), 1_000_000) == []


def test_the_table_is_bounded_and_makes_room_for_what_is_new() -> None:
    table = NatTable(seed=1, idle_timeout_us=10**9, limit=3)
    for port in (1, 2, 3):
        assert table.outbound(b"\x0a\0\0\x01", port, 0) is not None
    assert table.outbound(b"\x0a\0\0\x01", 4, 1) is None
    assert table.outbound(b"\x0a\0\0\x01", 4, TRANSITORY_US) is not None
    assert len(table) == 1


def error_about(quoted: bytes, source: bytes, destination: bytes) -> bytes:
    """A frame with an error: no port there."""
    if len(source) == 4:
        message = icmp.emit_icmpv4(icmp.IcmpDestinationUnreachable(3, quoted))
        header = bytes(emit_ipv4_header(source, destination, PROTOCOL_ICMP, len(message), identification=1))
        return bytes(12) + b"\x08\x00" + header + message
    message = icmp.emit_icmpv6(icmp.IcmpDestinationUnreachable(4, quoted), source, destination)
    return (
        bytes(12)
        + b"\x86\xdd"
        + bytes(emit_ipv6_header(source, destination, PROTOCOL_ICMPV6, len(message)))
        + message
    )


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("from_outside", [True, False])
def test_errors_are_translated_with_what_they_quote(family: int, from_outside: bool) -> None:
    link = Link(family)
    sent = segment(1, SYN, family=family)
    (translated,) = link.out(sent)
    router = link.peer
    if from_outside:
        error = error_about(translated.to_bytes()[14:], router, OUTER[family])
        (frame,) = link.middlebox.backward(error)
        expected_quoted, expected_ends = sent, (router, link.inner)
    else:
        (received,) = link.back(link.answer())
        error = error_about(received.to_bytes()[14:], link.inner, router)
        (frame,) = link.middlebox.forward(error)
        expected_quoted, expected_ends = link.answer(), (OUTER[family], router)
    packet = (parse_ipv4 if family == 4 else parse_ipv6)(memoryview(frame)[14:])
    assert (packet.source, packet.destination) == expected_ends
    data = bytes(packet.payload)
    if family == 4:
        assert icmp.icmpv4_checksum_is_good(data)
        message = icmp.parse_icmpv4(memoryview(data))
    else:
        assert icmp.icmpv6_checksum_is_good(data, packet.source, packet.destination)
        message = icmp.parse_icmpv6(memoryview(data))
    assert isinstance(message, icmp.IcmpDestinationUnreachable)
    quoted = parse_quoted_packet(memoryview(bytes(message.quoted)))
    assert (quoted.source, quoted.destination) == (expected_quoted.source, expected_quoted.destination)
    ports = expected_quoted.source_port, expected_quoted.destination_port
    assert struct.unpack_from("!HH", bytes(quoted.payload)) == ports
    if family == 4:
        assert ones_complement_sum(bytes(message.quoted)[:20]) % 0xFFFF == 0


@pytest.mark.parametrize("family", [4, 6])
def test_errors_about_nothing_known_do_not_pass(family: int) -> None:
    link = Link(family)
    quoted = segment(1, SYN, family=family).to_bytes()[14:]
    assert link.middlebox.backward(error_about(quoted, link.peer, OUTER[family])) == []
    assert link.middlebox.forward(error_about(quoted, link.inner, link.peer)) == []
    assert link.middlebox.backward(error_about(quoted[:20], link.peer, OUTER[family])) == []


def arp(operation: int, sender: bytes, target: bytes) -> bytes:
    return bytes(12) + b"\x08\x06" + emit_arp(ArpPacket(operation, MAC, sender, bytes(6), target))


def test_the_neighbour_inside_answers_for_the_outer_address() -> None:
    link = Link()
    outside = ADDRESSES[4][1]
    assert link.middlebox.backward(arp(1, outside, OUTER[4])) == [], "nobody inside is known yet"
    (asked,) = link.middlebox.forward(arp(1, link.inner, outside))
    assert parse_arp(asked[14:]).sender_address == OUTER[4]
    (asking,) = link.middlebox.backward(arp(1, outside, OUTER[4]))
    assert parse_arp(asking[14:]).target_address == link.inner
    (answered,) = link.middlebox.forward(arp(2, link.inner, outside))
    assert parse_arp(answered[14:]).sender_address == OUTER[4]
    assert link.middlebox.backward(arp(1, outside, link.inner)) == [], "inner addresses are not seen outside"


def discovery(
    message: NeighbourSolicitation | NeighbourAdvertisement, source: bytes, destination: bytes
) -> bytes:
    encoded = emit_neighbour_discovery(message, source, destination)
    header = emit_ipv6_header(source, destination, PROTOCOL_ICMPV6, len(encoded), hop_limit=255)
    return OTHER_MAC + MAC + b"\x86\xdd" + bytes(header) + encoded


def test_neighbour_discovery_likewise() -> None:
    link = Link(6)
    outside = ADDRESSES[6][1]

    def seen(frames: list[bytes]) -> tuple[bytes, bytes, NeighbourSolicitation | NeighbourAdvertisement]:
        (frame,) = frames
        packet = parse_ipv6(memoryview(frame)[14:])
        assert icmp.icmpv6_checksum_is_good(bytes(packet.payload), packet.source, packet.destination)
        message = parse_neighbour_discovery(memoryview(bytes(packet.payload)))
        assert isinstance(message, NeighbourSolicitation | NeighbourAdvertisement)
        return packet.source, packet.destination, message

    def asks(target: bytes) -> bytes:
        return discovery(NeighbourSolicitation(target, MAC), outside, solicited_node_group(target))

    assert link.middlebox.backward(asks(OUTER[6])) == []
    asked = discovery(NeighbourSolicitation(outside, MAC), link.inner, solicited_node_group(outside))
    source, _destination, message = seen(link.middlebox.forward(asked))
    assert (source, message.target) == (OUTER[6], outside)
    source, destination, message = seen(link.middlebox.backward(asks(OUTER[6])))
    assert (destination, message.target) == (solicited_node_group(link.inner), link.inner)
    answer = discovery(NeighbourAdvertisement(link.inner, MAC), link.inner, outside)
    source, _destination, message = seen(link.middlebox.forward(answer))
    assert (source, message.target) == (OUTER[6], OUTER[6])
    assert link.middlebox.backward(asks(link.inner)) == []
    answer = discovery(NeighbourAdvertisement(outside, MAC), outside, OUTER[6])
    _source, destination, _message = seen(link.middlebox.backward(answer))
    assert destination == link.inner


def test_other_packets_do_not_pass() -> None:
    header = emit_ipv4_header(ADDRESSES[4][0], ADDRESSES[4][1], 17, 8, identification=1)
    datagram = bytes(12) + b"\x08\x00" + bytes(header) + bytes(8)
    assert ones_complement_sum(bytes(header)) % 0xFFFF == 0
    assert Link().middlebox.forward(datagram) == []
    assert Link(6).middlebox.forward(datagram) == [datagram]


def test_hostile_frames_harm_nothing() -> None:
    """Any damage to what is no segment: it passes or it does not, with its length."""
    draw = random.Random(3)
    for family in (4, 6):
        link = Link(family)
        (sent,) = link.out(segment(1, SYN, family=family))
        peer, outer = link.peer, OUTER[family]
        frames = [error_about(sent.to_bytes()[14:], peer, outer)]
        if family == 4:
            frames += [arp(1, peer, outer), arp(2, link.inner, peer)]
        else:
            frames.append(discovery(NeighbourSolicitation(outer, MAC), peer, solicited_node_group(outer)))
            frames.append(discovery(NeighbourAdvertisement(link.inner, MAC), link.inner, peer))
        for _ in range(3000):
            damaged = bytearray(draw.choice(frames))
            for _ in range(draw.randrange(4)):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            frame = bytes(damaged[: draw.randrange(len(damaged) + 1)] if draw.random() < 0.3 else damaged)
            way = link.middlebox.forward if draw.random() < 0.5 else link.middlebox.backward
            assert all(len(passed) == len(frame) for passed in way(frame))
