"""ARP, against packets that scapy has made."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from mptcp_stack.ip.interface import InterfaceAddress, LinkType
from mptcp_stack.ip.layer import IcmpErrorKind
from mptcp_stack.ip.neighbours import LOCK_TIME_US, REACHABLE_TIME_US
from mptcp_stack.ip.routing import Route
from mptcp_stack.wire.addresses import parse_address
from tests.ip.single_host import (
    FAR_V4,
    GATEWAY_V4,
    OTHER_MAC,
    OUR_MAC,
    OUR_V4,
    PEER_MAC,
    PEER_V4,
    SECOND_US,
    SingleHost,
    assert_checksums_good,
    ethernet,
    is_at,
)

BROADCAST = "ff:ff:ff:ff:ff:ff"


def who_has(target: str, *, sender: str = PEER_V4, mac: str = PEER_MAC, to: str = BROADCAST) -> Packet:
    return Ether(src=mac, dst=to) / ARP(op="who-has", hwsrc=mac, psrc=sender, pdst=target)


def destination_of_next(host: SingleHost, at_us: int, destination: str = PEER_V4) -> str:
    host.layer.take_frames()
    host.send(destination, at_us=at_us)
    (frame,) = host.sent()
    return str(frame.dst)


@pytest.mark.parametrize("to", [BROADCAST, OUR_MAC])
def test_request_for_our_address_is_answered(to: str) -> None:
    host = SingleHost()
    assert host.receive(who_has(OUR_V4, to=to)) is None
    (reply,) = host.sent()
    expected = Ether(src=OUR_MAC, dst=PEER_MAC) / ARP(
        op="is-at", hwsrc=OUR_MAC, psrc=OUR_V4, hwdst=PEER_MAC, pdst=PEER_V4
    )
    assert bytes(reply) == bytes(expected)
    assert host.drops() == {}


def test_whoever_asked_need_not_be_asked() -> None:
    host = SingleHost()
    host.receive(who_has(OUR_V4))
    assert destination_of_next(host, SECOND_US) == PEER_MAC


def test_probe_for_our_address_is_answered_and_teaches_nothing() -> None:
    host = SingleHost()
    host.receive(who_has(OUR_V4, sender="0.0.0.0"))
    (reply,) = host.sent()
    assert (reply[ARP].psrc, reply[ARP].pdst, reply.dst) == (OUR_V4, "0.0.0.0", PEER_MAC)
    assert destination_of_next(host, SECOND_US) == BROADCAST


def test_sender_beyond_our_prefixes_is_answered_but_not_learnt() -> None:
    host = SingleHost()
    host.layer.routes.add(Route(parse_address(FAR_V4), 32, host.interface))
    host.receive(who_has(OUR_V4, sender=FAR_V4))
    assert len(host.sent()) == 1
    assert destination_of_next(host, SECOND_US, FAR_V4) == BROADCAST


@pytest.mark.parametrize("target", [PEER_V4, "10.0.0.77", "192.0.2.1", "127.0.0.1"])
def test_request_for_others_is_not_ours_to_answer(target: str) -> None:
    host = SingleHost()
    host.receive(who_has(target, sender="10.0.0.9"))
    assert host.sent() == []
    assert host.drops() == {"NotForUs": 1}


def test_address_of_another_interface_is_answered_for() -> None:
    host = SingleHost()
    host.layer.add_interface(
        "other",
        link_type=LinkType.ETHERNET,
        mac=b"\2\0\0\0\0\x77",
        addresses=[InterfaceAddress(parse_address("198.51.100.1"), 24)],
    )
    host.receive(who_has("198.51.100.1"))
    (reply,) = host.sent()
    assert (reply[ARP].psrc, reply[ARP].hwsrc) == ("198.51.100.1", OUR_MAC)


@pytest.mark.parametrize("sender", [OUR_V4, "224.0.0.1", "127.0.0.1", "255.255.255.255"])
def test_impossible_sender_is_a_martian(sender: str) -> None:
    host = SingleHost()
    host.receive(who_has(OUR_V4, sender=sender))
    assert host.sent() == []
    assert host.drops() == {"Martian": 1}


@pytest.mark.parametrize("mac", ["00:00:00:00:00:00", "03:00:00:00:00:00", BROADCAST])
def test_sender_without_a_station_address_is_malformed(mac: str) -> None:
    host = SingleHost()
    host.receive(Ether(src=PEER_MAC, dst=BROADCAST) / ARP(op="who-has", hwsrc=mac, psrc=PEER_V4, pdst=OUR_V4))
    assert host.sent() == []
    assert host.drops() == {"MalformedArp": 1}


def test_packet_waits_for_the_answer_and_then_goes_first() -> None:
    host = SingleHost()
    payload = bytearray(b"first")
    assert host.send(payload=(bytes(payload),), at_us=0)
    assert host.send(payload=(b"second",), at_us=10)
    (request,) = host.sent()
    expected = Ether(src=OUR_MAC, dst=BROADCAST) / ARP(op="who-has", hwsrc=OUR_MAC, psrc=OUR_V4, pdst=PEER_V4)
    assert bytes(request) == bytes(expected)
    assert host.receive(is_at(PEER_V4, PEER_MAC), 20) is None
    host.send(payload=(b"third",), at_us=30)
    frames = host.sent()
    assert [bytes(frame[TCP].payload) for frame in frames] == [b"first", b"second", b"third"]
    for frame in frames:
        assert (frame.src, frame.dst) == (OUR_MAC, PEER_MAC)
        assert_checksums_good(frame)
    assert host.layer.next_deadline_us() is None


def test_gateway_is_asked_for_instead_of_the_destination() -> None:
    host = SingleHost()
    host.layer.routes.add(Route(bytes(4), 0, host.interface, gateway=parse_address(GATEWAY_V4)))
    host.send(FAR_V4)
    (request,) = host.sent()
    assert request[ARP].pdst == GATEWAY_V4
    host.receive(is_at(GATEWAY_V4, OTHER_MAC))
    (frame,) = host.sent()
    assert (frame.dst, frame[IP].dst) == (OTHER_MAC, FAR_V4)


def test_question_comes_from_an_address_of_the_link_even_if_the_packet_does_not() -> None:
    host = SingleHost()
    host.layer.add_interface(
        "tun1",
        link_type=LinkType.RAW_IP,
        addresses=[InterfaceAddress(parse_address("10.0.9.1"), 24)],
    )
    host.send(PEER_V4, "10.0.9.1")
    (request,) = host.sent()
    assert request[ARP].psrc == OUR_V4


def test_three_requests_a_second_apart_then_the_packets_are_given_up() -> None:
    host = SingleHost()
    host.send(at_us=5)
    host.send(at_us=6)
    asked_at = [5]
    host.layer.take_frames()
    while (deadline_us := host.layer.next_deadline_us()) is not None:
        host.layer.handle_deadline(deadline_us - 1)
        assert host.sent() == []
        host.layer.handle_deadline(deadline_us)
        asked_at += [deadline_us] * len(host.sent())
    assert asked_at == [5, 5 + SECOND_US, 5 + 2 * SECOND_US]
    assert host.drops() == {"NeighbourUnresolved": 2}
    errors = host.layer.take_errors()
    assert [error.kind for error in errors] == [IcmpErrorKind.HOST_UNREACHABLE] * 2
    assert (errors[0].source, errors[0].destination) == (parse_address(OUR_V4), parse_address(PEER_V4))
    assert TCP(bytes(errors[0].transport)).dport == 80
    assert host.layer.take_errors() == []


def test_resolution_starts_anew_after_it_has_failed() -> None:
    host = SingleHost()
    host.send(at_us=0)
    for second in range(1, 4):
        host.layer.handle_deadline(second * SECOND_US)
    assert destination_of_next(host, 4 * SECOND_US) == BROADCAST
    host.receive(is_at(PEER_V4, PEER_MAC), 4 * SECOND_US)
    assert len(host.sent()) == 1


def test_quiet_neighbour_is_probed_when_used_and_forgotten_when_silent() -> None:
    host = SingleHost()
    host.learn_peer(at_us=0)
    stale_us = REACHABLE_TIME_US
    assert destination_of_next(host, stale_us - 1) == PEER_MAC
    assert host.layer.next_deadline_us() is None
    assert destination_of_next(host, stale_us) == PEER_MAC
    probe_us = host.layer.next_deadline_us()
    assert probe_us == stale_us + 5 * SECOND_US
    for attempt in range(3):
        host.layer.handle_deadline(probe_us + attempt * SECOND_US)
        (probe,) = host.sent()
        assert (probe.dst, probe[ARP].op, probe[ARP].pdst) == (PEER_MAC, 1, PEER_V4)
        host.send(at_us=probe_us + attempt * SECOND_US)
        assert [frame.dst for frame in host.sent()] == [PEER_MAC]
    host.layer.handle_deadline(probe_us + 3 * SECOND_US)
    assert host.layer.next_deadline_us() is None
    assert destination_of_next(host, probe_us + 3 * SECOND_US) == BROADCAST


def test_answered_probe_keeps_the_neighbour() -> None:
    host = SingleHost()
    host.learn_peer(at_us=0)
    host.send(at_us=REACHABLE_TIME_US)
    probe_us = host.layer.next_deadline_us()
    assert probe_us is not None
    host.layer.handle_deadline(probe_us)
    host.receive(is_at(PEER_V4, PEER_MAC), probe_us + 1)
    assert host.layer.next_deadline_us() is None
    assert destination_of_next(host, probe_us + REACHABLE_TIME_US) == PEER_MAC
    assert host.layer.next_deadline_us() is None


def test_traffic_from_the_neighbour_spares_it_the_probe() -> None:
    host = SingleHost()
    host.learn_peer(at_us=0)
    segment = ethernet(IP(src=PEER_V4, dst=OUR_V4) / TCP(flags="A"))
    assert host.receive(segment, REACHABLE_TIME_US - 1) is not None
    host.send(at_us=2 * REACHABLE_TIME_US - 2)
    assert host.layer.next_deadline_us() is None
    host.send(at_us=2 * REACHABLE_TIME_US)
    assert host.layer.next_deadline_us() is not None
    host.receive(segment, 2 * REACHABLE_TIME_US + 1)
    host.layer.take_frames()
    host.layer.handle_deadline(2 * REACHABLE_TIME_US + 5 * SECOND_US)
    assert host.sent() == []
    assert host.layer.next_deadline_us() is None


def test_traffic_from_another_station_proves_nothing() -> None:
    host = SingleHost()
    host.learn_peer(at_us=0)
    segment = ethernet(IP(src=PEER_V4, dst=OUR_V4) / TCP(flags="A"), source=OTHER_MAC)
    host.receive(segment, REACHABLE_TIME_US - 1)
    host.send(at_us=REACHABLE_TIME_US)
    assert host.layer.next_deadline_us() is not None


def test_unasked_reply_creates_nothing() -> None:
    host = SingleHost()
    host.receive(is_at(PEER_V4, OTHER_MAC))
    assert destination_of_next(host, SECOND_US) == BROADCAST


@pytest.mark.parametrize(
    "claim",
    [
        is_at(PEER_V4, OTHER_MAC),
        is_at(PEER_V4, OTHER_MAC, target=PEER_V4, destination=BROADCAST),
        who_has(PEER_V4, mac=OTHER_MAC),
        who_has(OUR_V4, mac=OTHER_MAC),
    ],
    ids=["unasked reply", "gratuitous reply", "gratuitous request", "request for us"],
)
def test_unasked_change_is_believed_only_after_the_lock_time(claim: Packet) -> None:
    host = SingleHost()
    host.learn_peer(at_us=0)
    host.receive(claim, LOCK_TIME_US - 1)
    assert destination_of_next(host, LOCK_TIME_US - 1) == PEER_MAC
    host.receive(claim, LOCK_TIME_US)
    assert destination_of_next(host, LOCK_TIME_US) == OTHER_MAC
    # It is on probation: the next use starts the verification.
    assert host.layer.next_deadline_us() == LOCK_TIME_US + 5 * SECOND_US


def test_second_answer_does_not_displace_the_first_at_once() -> None:
    host = SingleHost()
    host.send(at_us=0)
    host.receive(is_at(PEER_V4, PEER_MAC), 100)
    host.receive(is_at(PEER_V4, OTHER_MAC), 101)
    assert destination_of_next(host, 102) == PEER_MAC


def test_unasked_answer_does_not_renew_the_lifetime() -> None:
    host = SingleHost()
    host.learn_peer(at_us=0)
    host.receive(is_at(PEER_V4, PEER_MAC), REACHABLE_TIME_US - 1)
    host.send(at_us=REACHABLE_TIME_US)
    assert host.layer.next_deadline_us() == REACHABLE_TIME_US + 5 * SECOND_US


def test_answer_to_everybody_serves_but_is_verified() -> None:
    host = SingleHost()
    host.send(at_us=0)
    host.layer.take_frames()
    host.receive(is_at(PEER_V4, PEER_MAC, destination=BROADCAST), 10)
    assert [frame.dst for frame in host.sent()] == [PEER_MAC]
    host.send(at_us=11)
    assert host.layer.next_deadline_us() == 11 + 5 * SECOND_US


def test_interface_down_forgets_neighbours_and_what_waits() -> None:
    host = SingleHost()
    host.learn_peer(at_us=0)
    host.send(at_us=1)
    host.send("10.0.0.9", at_us=1)
    host.layer.set_up(host.interface, False)
    assert host.sent() == []
    # Two queued frames (a segment and a request) and the segment that waited.
    assert host.drops() == {"InterfaceDown": 3}
    assert host.layer.next_deadline_us() is None
    assert not host.send(at_us=2)
    assert host.receive(who_has(OUR_V4), 3) is None
    assert host.sent() == []
    host.layer.set_up(host.interface, True)
    assert destination_of_next(host, 4) == BROADCAST
