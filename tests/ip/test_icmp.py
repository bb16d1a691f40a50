"""ICMP and ICMPv6: echo replies and errors, against packets that scapy has made."""

from __future__ import annotations

from errno import ENETUNREACH

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6NDOptDstLLAddr,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.packet import Packet, Raw

from mptcp_stack.ip.echo import MAXIMUM_AWAITED
from mptcp_stack.ip.icmp_input import ECHO_BURST, ECHO_REPLIES_PER_SECOND
from mptcp_stack.ip.interface import LinkType
from mptcp_stack.ip.layer import IcmpError, IcmpErrorKind
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.frame import ChecksumState
from tests.ip.single_host import (
    FAR_V4,
    FAR_V6,
    OUR_LINK_LOCAL,
    OUR_V4,
    OUR_V6,
    PEER_LINK_LOCAL,
    PEER_MAC,
    PEER_V4,
    PEER_V6,
    SECOND_US,
    SingleHost,
    assert_checksums_good,
    ethernet,
)

ECHO_V4 = IP(src=PEER_V4, dst=OUR_V4) / ICMP(type="echo-request", id=7, seq=3)
ECHO_V6 = IPv6(src=PEER_V6, dst=OUR_V6) / ICMPv6EchoRequest(id=7, seq=3)
QUOTED_TCP = TCP(sport=40_000, dport=80, seq=1234)


def error_v4(kind: int, code: int, mtu: int = 0) -> Packet:
    quoted = IP(src=OUR_V4, dst=FAR_V4) / QUOTED_TCP
    return IP(src=PEER_V4, dst=OUR_V4) / ICMP(type=kind, code=code, nexthopmtu=mtu) / quoted


def error_v6(message: Packet) -> Packet:
    return IPv6(src=PEER_V6, dst=OUR_V6) / message / IPv6(src=OUR_V6, dst=FAR_V6) / QUOTED_TCP


@pytest.mark.parametrize("length", [0, 1, 56, 1472])
def test_echo_request_is_answered(length: int) -> None:
    host = SingleHost(link_type=LinkType.RAW_IP)
    data = bytes(index % 251 for index in range(length))
    assert host.receive(ECHO_V4 / Raw(data)) is None
    (reply,) = host.sent()
    assert (reply.src, reply.dst, reply.ttl) == (OUR_V4, PEER_V4, 64)
    assert (reply[ICMP].type, reply[ICMP].code, reply[ICMP].id, reply[ICMP].seq) == (0, 0, 7, 3)
    assert bytes(reply[ICMP].payload) == data
    assert_checksums_good(reply)
    assert host.counted("IcmpInMsgs", "IcmpInEchos", "IcmpOutMsgs", "IcmpOutEchoReps") == [1, 1, 1, 1]
    assert host.drops() == {}


@pytest.mark.parametrize(
    ("source", "destination", "replier"),
    [
        (PEER_V6, OUR_V6, OUR_V6),
        (PEER_LINK_LOCAL, OUR_LINK_LOCAL, OUR_LINK_LOCAL),
        (PEER_LINK_LOCAL, "ff02::1", OUR_LINK_LOCAL),
        (PEER_V6, "ff02::1", OUR_V6),
    ],
)
def test_echo_request_over_ipv6_is_answered(source: str, destination: str, replier: str) -> None:
    host = SingleHost()
    host.send(source, OUR_V6 if source == PEER_V6 else OUR_LINK_LOCAL)
    link_destination = "33:33:00:00:00:01" if destination.startswith("ff") else "02:00:00:00:00:01"
    request = IPv6(src=source, dst=destination) / ICMPv6EchoRequest(id=7, seq=3, data=b"abc")
    host.layer.take_frames()
    host.receive(ethernet(request, destination=link_destination))
    # The reply waits for the neighbour's answer behind the segment.
    cache_frames = resolve(host, source)
    assert [IPv6 in frame for frame in cache_frames] == [True, True]
    reply = cache_frames[1]
    assert (reply[IPv6].src, reply[IPv6].dst) == (replier, source)
    assert (reply[ICMPv6EchoReply].id, reply[ICMPv6EchoReply].seq, reply[ICMPv6EchoReply].data) == (
        7,
        3,
        b"abc",
    )
    assert_checksums_good(reply)
    assert host.counted("Icmp6InEchos", "Icmp6OutEchoReplies") == [1, 1]


def test_echo_request_to_a_group_needs_an_address_to_answer_from() -> None:
    host = SingleHost()
    for address in (OUR_V6, OUR_LINK_LOCAL):
        host.layer.remove_address(host.interface, parse_address(address))
    request = IPv6(src=PEER_LINK_LOCAL, dst="ff02::1") / ICMPv6EchoRequest()
    host.receive(ethernet(request, destination="33:33:00:00:00:01"))
    assert host.sent() == []
    assert host.drops() == {"NotForUs": 1}


def resolve(host: SingleHost, address: str) -> list[Packet]:
    message = ICMPv6ND_NA(tgt=address, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=PEER_MAC)
    destination = OUR_LINK_LOCAL if address == PEER_LINK_LOCAL else OUR_V6
    host.receive(ethernet(IPv6(src=address, dst=destination, hlim=255) / message))
    return host.sent()


def test_echo_reply_is_complete_on_an_offloading_interface_too() -> None:
    host = SingleHost(link_type=LinkType.RAW_IP, checksum_offload=True)
    host.receive(ECHO_V4)
    ((_, frame),) = host.layer.take_frames()
    assert frame.checksum is ChecksumState.UNVERIFIED
    assert_checksums_good(IP(frame.to_bytes()))


def test_echo_replies_are_bounded_in_rate() -> None:
    host = SingleHost(link_type=LinkType.RAW_IP)
    for _ in range(ECHO_BURST + 5):
        host.receive(ECHO_V4, at_us=0)
    assert len(host.sent()) == ECHO_BURST
    assert host.drops() == {"RateLimited": 5}
    host.receive(ECHO_V4, at_us=SECOND_US // ECHO_REPLIES_PER_SECOND - 1)
    assert host.sent() == []
    host.receive(ECHO_V4, at_us=SECOND_US // ECHO_REPLIES_PER_SECOND)
    assert len(host.sent()) == 1


def test_long_silence_saves_up_no_more_than_one_burst() -> None:
    host = SingleHost(link_type=LinkType.RAW_IP)
    host.receive(ECHO_V4, at_us=0)
    for _ in range(ECHO_BURST + 1):
        host.receive(ECHO_V4, at_us=3600 * SECOND_US)
    assert len(host.sent()) == 1 + ECHO_BURST


def test_echo_bucket_is_one_per_interface() -> None:
    host = SingleHost(link_type=LinkType.RAW_IP)
    first = host.interface
    for _ in range(ECHO_BURST):
        host.receive(ECHO_V4)
    host.interface = host.layer.add_interface("tun1", link_type=LinkType.RAW_IP)
    host.receive(ECHO_V4)
    assert len(host.sent()) == ECHO_BURST + 1
    host.interface = first
    host.receive(ECHO_V4)
    assert host.drops() == {"RateLimited": 1}


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (IP(src=PEER_V4, dst="224.0.0.1") / ICMP(), "NotForUs"),
        (IP(src=PEER_V4, dst="10.0.0.255") / ICMP(), "NotForUs"),
        (IP(src="10.0.0.255", dst=OUR_V4) / ICMP(), "Martian"),
        (IP(src="224.0.0.1", dst=OUR_V4) / ICMP(), "Martian"),
        (IP(src="0.0.0.0", dst=OUR_V4) / ICMP(), "Martian"),
        (IPv6(src="::", dst=OUR_V6) / ICMPv6EchoRequest(), "Martian"),
        (IPv6(src="ff02::1", dst=OUR_V6) / ICMPv6EchoRequest(), "Martian"),
        (IPv6(src=PEER_V6, dst="ff02::2") / ICMPv6EchoRequest(), "NotForUs"),
        (IPv6(src=PEER_V6, dst=OUR_V6) / ICMPv6MLReport2(), "IgnoredIcmp"),
        (IPv6(src=PEER_V6, dst=OUR_V6) / ICMPv6EchoReply(), "IgnoredIcmp"),
        (IP(src=PEER_V4, dst=OUR_V4) / ICMP(type="echo-reply"), "IgnoredIcmp"),
        (IP(src=PEER_V4, dst=OUR_V4) / ICMP(type="redirect"), "IgnoredIcmp"),
        (IP(src=PEER_V4, dst=OUR_V4) / ICMP(type="timestamp-request"), "IgnoredIcmp"),
        (IP(src=PEER_V4, dst=OUR_V4) / ICMP(chksum=1), "BadChecksum"),
        (IPv6(src=PEER_V6, dst=OUR_V6) / ICMPv6EchoRequest(cksum=1), "BadChecksum"),
        (IP(src=PEER_V4, dst=OUR_V4, proto=1) / Raw(b"\xff\xff\x00\x00"), "MalformedIcmp"),
    ],
)
def test_what_is_not_answered_is_a_counted_drop(packet: Packet, reason: str) -> None:
    host = SingleHost()
    assert host.receive(ethernet(packet)) is None
    assert host.sent() == []
    assert host.drops() == {reason: 1}


def test_broadcast_of_the_link_is_not_answered() -> None:
    host = SingleHost()
    assert host.receive(ethernet(ECHO_V4, destination="ff:ff:ff:ff:ff:ff")) is None
    assert host.sent() == []
    assert host.drops() == {"NotForUs": 1}


@pytest.mark.parametrize(
    ("packet", "kind", "mtu"),
    [
        (error_v4(3, 0), IcmpErrorKind.NETWORK_UNREACHABLE, None),
        (error_v4(3, 1), IcmpErrorKind.HOST_UNREACHABLE, None),
        (error_v4(3, 2), IcmpErrorKind.PROTOCOL_UNREACHABLE, None),
        (error_v4(3, 3), IcmpErrorKind.PORT_UNREACHABLE, None),
        (error_v4(3, 4, mtu=1280), IcmpErrorKind.PACKET_TOO_BIG, 1280),
        (error_v4(3, 4), IcmpErrorKind.PACKET_TOO_BIG, 0),
        (error_v4(3, 7), IcmpErrorKind.HOST_UNKNOWN, None),
        (error_v4(3, 9), IcmpErrorKind.NETWORK_REFUSED, None),
        (error_v4(3, 10), IcmpErrorKind.HOST_REFUSED, None),
        (error_v4(3, 13), IcmpErrorKind.HOST_REFUSED, None),
        (error_v4(12, 0), IcmpErrorKind.PARAMETER_PROBLEM, None),
        (error_v4(11, 0), IcmpErrorKind.TIME_EXCEEDED, None),
        (error_v6(ICMPv6DestUnreach(code=0)), IcmpErrorKind.NETWORK_UNREACHABLE, None),
        (error_v6(ICMPv6DestUnreach(code=1)), IcmpErrorKind.ACCESS_DENIED, None),
        (error_v6(ICMPv6DestUnreach(code=3)), IcmpErrorKind.HOST_UNREACHABLE, None),
        (error_v6(ICMPv6DestUnreach(code=4)), IcmpErrorKind.PORT_UNREACHABLE, None),
        (error_v6(ICMPv6DestUnreach(code=5)), IcmpErrorKind.ACCESS_DENIED, None),
        (error_v6(ICMPv6PacketTooBig(mtu=1300)), IcmpErrorKind.PACKET_TOO_BIG, 1300),
        (error_v6(ICMPv6TimeExceeded()), IcmpErrorKind.TIME_EXCEEDED, None),
        (error_v6(ICMPv6ParamProblem(code=1)), IcmpErrorKind.PARAMETER_PROBLEM, None),
    ],
)
def test_error_about_our_packet_is_handed_up(packet: Packet, kind: IcmpErrorKind, mtu: int | None) -> None:
    host = SingleHost()
    error = host.receive(ethernet(packet))
    assert isinstance(error, IcmpError)
    is_ipv6 = IPv6 in packet
    assert (error.kind, error.mtu, error.protocol) == (kind, mtu, 6)
    assert error.source == parse_address(OUR_V6 if is_ipv6 else OUR_V4)
    assert error.destination == parse_address(FAR_V6 if is_ipv6 else FAR_V4)
    assert error.icmp_source == parse_address(PEER_V6 if is_ipv6 else PEER_V4)
    transport = TCP(bytes(error.transport))
    assert (transport.sport, transport.dport, transport.seq) == (40_000, 80, 1234)
    assert host.drops() == {}


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (error_v4(3, 16), "IgnoredIcmp"),
        (error_v6(ICMPv6DestUnreach(code=9)), "IgnoredIcmp"),
        (IP(src=PEER_V4, dst=OUR_V4) / ICMP(type=3) / (IP(src=PEER_V4, dst=FAR_V4) / QUOTED_TCP), "NotForUs"),
        (
            IP(src=PEER_V4, dst=OUR_V4) / ICMP(type=3) / (IP(src=OUR_V4, dst=FAR_V4, frag=5) / QUOTED_TCP),
            "NotForUs",
        ),
        (IP(src=PEER_V4, dst=OUR_V4) / ICMP(type=3) / Raw(b""), "MalformedIcmp"),
        (
            IP(src=PEER_V4, dst=OUR_V4) / ICMP(type=3) / Raw(bytes(IP(src=OUR_V4) / TCP())[:27]),
            "MalformedIcmp",
        ),
        (
            IP(src=PEER_V4, dst=OUR_V4) / ICMP(type=3) / Raw(bytes(IPv6(src=OUR_V6) / TCP())),
            "MalformedIcmp",
        ),
    ],
)
def test_error_that_means_nothing_is_a_counted_drop(packet: Packet, reason: str) -> None:
    host = SingleHost()
    assert host.receive(ethernet(packet)) is None
    assert host.drops() == {reason: 1}


class Asking:
    """A host that has asked its peer, and when the replies came."""

    def __init__(self, address: str = PEER_V4, *, requests: int = 1) -> None:
        self.host = SingleHost(link_type=LinkType.RAW_IP)
        self.replies: list[int] = []
        for sequence in range(1, requests + 1):
            self.host.layer.echo_requests.send(
                parse_address(address),
                identifier=9,
                sequence=sequence,
                data=b"abc",
                on_reply=self.replies.append,
                now_us=0,
            )

    def reply(self, packet: Packet, at_us: int) -> None:
        self.host.receive(packet, at_us)


def reply_v4(source: str = PEER_V4, sequence: int = 1, data: bytes = b"abc", identifier: int = 9) -> Packet:
    message = ICMP(type="echo-reply", id=identifier, seq=sequence)
    return IP(src=source, dst=OUR_V4) / message / Raw(data)


def test_a_reply_is_noticed_once() -> None:
    asking = Asking()
    (request,) = asking.host.sent()
    assert (request.src, request.dst, request[ICMP].type) == (OUR_V4, PEER_V4, 8)
    assert (request[ICMP].id, request[ICMP].seq, bytes(request[ICMP].payload)) == (9, 1, b"abc")
    assert_checksums_good(request)
    asking.reply(reply_v4(), 700)
    assert (asking.replies, asking.host.drops()) == ([700], {})
    asking.reply(reply_v4(), 800)
    assert asking.replies == [700]
    assert asking.host.drops() == {"IgnoredIcmp": 1}
    assert asking.host.counted("IcmpOutMsgs", "IcmpOutEchos", "IcmpOutEchoReps", "IcmpInEchoReps") == [
        1,
        1,
        0,
        1,
    ]


def test_a_reply_over_ipv6_is_noticed() -> None:
    asking = Asking(PEER_V6)
    (request,) = asking.host.sent()
    assert (request[ICMPv6EchoRequest].id, request[ICMPv6EchoRequest].data) == (9, b"abc")
    assert_checksums_good(request)
    asking.reply(IPv6(src=PEER_V6, dst=OUR_V6) / ICMPv6EchoReply(id=9, seq=1, data=b"abc"), 700)
    assert asking.replies == [700]
    assert asking.host.counted("Icmp6OutEchos", "Icmp6InEchoReplies") == [1, 1]


@pytest.mark.parametrize(
    "packet",
    [
        reply_v4(source=FAR_V4),
        reply_v4(sequence=2),
        reply_v4(identifier=8),
        reply_v4(data=b"abd"),
        reply_v4(data=b""),
    ],
)
def test_other_replies_are_ignored(packet: Packet) -> None:
    asking = Asking()
    asking.reply(packet, 700)
    assert (asking.replies, asking.host.drops()) == ([], {"IgnoredIcmp": 1})
    asking.reply(reply_v4(), 800)
    assert asking.replies == [800]


def test_of_too_many_requests_the_oldest_is_forgotten() -> None:
    asking = Asking(requests=MAXIMUM_AWAITED + 1)
    for sequence in (1, 2, MAXIMUM_AWAITED + 1):
        asking.reply(reply_v4(sequence=sequence), sequence)
    assert asking.replies == [2, MAXIMUM_AWAITED + 1]


def test_an_own_address_answers_at_once_and_one_without_a_way_never() -> None:
    asking = Asking(OUR_V4)
    assert (asking.replies, asking.host.sent()) == ([0], [])
    with pytest.raises(OSError, match="no route") as refused:
        Asking(FAR_V4)
    assert refused.value.errno == ENETUNREACH
