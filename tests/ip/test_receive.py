"""Receiving: what is for TCP, and what is a counted drop."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from mptcp_stack.ip.interface import InterfaceAddress, LinkType
from mptcp_stack.ip.layer import Datagram
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.frame import ChecksumState, Frame
from tests.ip.single_host import (
    FAR_V4,
    FAR_V6,
    OTHER_MAC,
    OUR_LINK_LOCAL,
    OUR_MAC,
    OUR_V4,
    OUR_V6,
    PEER_LINK_LOCAL,
    PEER_MAC,
    PEER_V4,
    PEER_V6,
    PROTOCOL_TCP,
    SingleHost,
    ethernet,
)

SEGMENT = TCP(sport=40_000, dport=80, flags="PA") / Raw(b"payload")
IP_PACKETS = pytest.mark.parametrize(
    "packet",
    [
        IP(src=PEER_V4, dst=OUR_V4, tos=0x2E) / SEGMENT,
        IPv6(src=PEER_V6, dst=OUR_V6, tc=0x2E) / SEGMENT,
        IPv6(src=PEER_V6, dst=OUR_V6, tc=0x2E) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / SEGMENT,
        IPv6(src=PEER_V6, dst=OUR_V6, tc=0x2E) / IPv6ExtHdrFragment(offset=0, m=0) / SEGMENT,
        IPv6(src=PEER_LINK_LOCAL, dst=OUR_LINK_LOCAL, tc=0x2E) / SEGMENT,
    ],
    ids=["v4", "v6", "v6 with options", "v6 atomic fragment", "v6 link-local"],
)


@IP_PACKETS
@pytest.mark.parametrize("link_type", list(LinkType))
def test_segment_is_handed_up_without_a_copy(packet: Packet, link_type: LinkType) -> None:
    host = SingleHost(link_type=link_type)
    host.layer.add_interface(
        "tun9",
        link_type=LinkType.RAW_IP,
        addresses=[InterfaceAddress(parse_address(OUR_LINK_LOCAL), 64)]
        if link_type is LinkType.RAW_IP
        else [],
    )
    if packet.dst == OUR_LINK_LOCAL:
        host.interface = host.layer.interfaces[-1] if link_type is LinkType.RAW_IP else host.interface
    framed = bytes(ethernet(packet) if link_type is LinkType.ETHERNET else packet)
    frame = Frame(bytearray(framed), gso_size=1400)
    datagram = host.layer.receive(frame, host.interface, 0)
    assert isinstance(datagram, Datagram)
    assert (datagram.source, datagram.destination) == (parse_address(packet.src), parse_address(packet.dst))
    assert (datagram.protocol, datagram.interface) == (PROTOCOL_TCP, host.interface)
    assert (datagram.traffic_class, datagram.gso_size) == (0x2E, 1400)
    assert bytes(datagram.payload[20:]) == b"payload"
    assert datagram.payload.obj is frame.head
    assert host.drops() == {}
    family = "Ip6" if IPv6 in packet else "Ip"
    assert host.counted(f"{family}InReceives", f"{family}InDelivers") == [1, 1]


def test_padding_of_the_link_is_cut_off() -> None:
    host = SingleHost()
    datagram = host.receive(bytes(ethernet(IP(src=PEER_V4, dst=OUR_V4) / SEGMENT)) + bytes(30))
    assert isinstance(datagram, Datagram)
    assert len(datagram.payload) == 27


def test_frame_in_parts_is_put_together() -> None:
    host = SingleHost()
    raw = bytes(ethernet(IP(src=PEER_V4, dst=OUR_V4) / SEGMENT))
    datagram = host.layer.receive(Frame(raw[:54], (raw[54:57], raw[57:])), host.interface, 0)
    assert isinstance(datagram, Datagram)
    assert bytes(datagram.payload[20:]) == b"payload"


@IP_PACKETS
def test_wrong_checksum_is_dropped_unless_the_device_vouches_for_it(packet: Packet) -> None:
    raw = bytearray(bytes(ethernet(packet)))
    raw[-1] ^= 0x40
    host = SingleHost()
    assert host.receive(bytes(raw)) is None
    assert host.drops() == {"BadChecksum": 1}
    assert host.counted("TcpInSegs", "TcpInErrs", "TcpInCsumErrors") == [1, 1, 1]
    for state in (ChecksumState.PARTIAL, ChecksumState.VERIFIED):
        assert isinstance(host.receive(bytes(raw), checksum=state), Datagram)


def test_address_of_another_interface_is_ours_too() -> None:
    host = SingleHost()
    host.layer.add_interface(
        "tun1",
        link_type=LinkType.RAW_IP,
        addresses=[InterfaceAddress(parse_address("10.0.9.1"), 24)],
    )
    datagram = host.receive(ethernet(IP(src=PEER_V4, dst="10.0.9.1") / SEGMENT))
    assert isinstance(datagram, Datagram)
    assert datagram.interface is host.interface


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (ethernet(IP(src=PEER_V4, dst="10.0.0.77") / SEGMENT), "NotForUs"),
        (ethernet(IP(src=PEER_V4, dst="10.0.0.255") / SEGMENT), "NotForUs"),
        (ethernet(IP(src=PEER_V4, dst="255.255.255.255") / SEGMENT), "NotForUs"),
        (ethernet(IP(src=PEER_V4, dst="224.0.0.1") / SEGMENT), "NotForUs"),
        (ethernet(IPv6(src=PEER_V6, dst="fd00::77") / SEGMENT), "NotForUs"),
        (ethernet(IPv6(src=PEER_V6, dst="ff02::1") / SEGMENT), "NotForUs"),
        (ethernet(IPv6(src=PEER_V6, dst="fe80::77") / SEGMENT), "NotForUs"),
        (ethernet(IP(src=PEER_V4, dst=OUR_V4) / SEGMENT, destination=OTHER_MAC), "NotForUs"),
        (ethernet(IP(src=PEER_V4, dst=OUR_V4) / SEGMENT, destination="ff:ff:ff:ff:ff:ff"), "NotForUs"),
        (ethernet(IPv6(src=PEER_V6, dst=OUR_V6) / SEGMENT, destination="33:33:00:00:00:01"), "NotForUs"),
        (ethernet(IP(src="127.0.0.1", dst=OUR_V4) / SEGMENT), "Martian"),
        (ethernet(IP(src=PEER_V4, dst="127.0.0.1") / SEGMENT), "Martian"),
        (ethernet(IP(src=OUR_V4, dst=OUR_V4) / SEGMENT), "Martian"),
        (ethernet(IP(src="224.0.0.1", dst=OUR_V4) / SEGMENT), "Martian"),
        (ethernet(IP(src="10.0.0.255", dst=OUR_V4) / SEGMENT), "Martian"),
        (ethernet(IP(src="255.255.255.255", dst=OUR_V4) / SEGMENT), "Martian"),
        (ethernet(IP(src="0.0.0.0", dst=OUR_V4) / SEGMENT), "Martian"),
        (ethernet(IPv6(src="ff02::1", dst=OUR_V6) / SEGMENT), "Martian"),
        (ethernet(IPv6(src="::", dst=OUR_V6) / SEGMENT), "Martian"),
        (ethernet(IPv6(src="::1", dst=OUR_V6) / SEGMENT), "Martian"),
        (ethernet(IPv6(src=PEER_V6, dst="::1") / SEGMENT), "Martian"),
        (ethernet(IPv6(src=OUR_LINK_LOCAL, dst=OUR_V6) / SEGMENT), "Martian"),
        (ethernet(IPv6(src="::ffff:10.0.0.2", dst=OUR_V6) / SEGMENT), "Martian"),
        (ethernet(IP(src=PEER_V4, dst=OUR_V4) / UDP(dport=53)), "UnknownProtocol"),
        (ethernet(IPv6(src=PEER_V6, dst=OUR_V6) / UDP(dport=53)), "UnknownProtocol"),
        (ethernet(IPv6(src=PEER_V6, dst=OUR_V6, nh=59)), "UnknownProtocol"),
        (Ether(src=PEER_MAC, dst=OUR_MAC) / Dot1Q(vlan=5) / IP(src=PEER_V4, dst=OUR_V4), "UnknownProtocol"),
        (Ether(src="01:00:00:00:00:00", dst=OUR_MAC) / IP(src=PEER_V4, dst=OUR_V4), "MalformedEthernet"),
        (ethernet(IP(src=PEER_V4, dst=OUR_V4, chksum=1) / SEGMENT), "MalformedIp"),
        (ethernet(IP(src=PEER_V4, dst=OUR_V4, len=19) / SEGMENT), "MalformedIp"),
        (ethernet(IP(src=PEER_V4, dst=OUR_V4, len=2000) / SEGMENT), "MalformedIp"),
        (ethernet(IPv6(src=PEER_V6, dst=OUR_V6, plen=2000) / SEGMENT), "MalformedIp"),
    ],
)
def test_drop_is_counted_by_its_reason(packet: Packet, reason: str) -> None:
    host = SingleHost()
    assert host.receive(packet) is None
    assert host.drops() == {reason: 1}
    assert host.sent() == []
    assert host.counted("IpInDelivers", "Ip6InDelivers") == [0, 0]


def test_path_back_does_not_vouch_for_what_tcp_must_not_get() -> None:
    """A cached path shortens the address checks, but not those of the link layer."""
    host = SingleHost()
    host.learn_peer()
    packet = IP(src=PEER_V4, dst=OUR_V4) / SEGMENT
    assert isinstance(host.receive(ethernet(packet)), Datagram)
    assert host.receive(ethernet(packet, destination="ff:ff:ff:ff:ff:ff")) is None
    host.layer.remove_address(host.interface, parse_address(OUR_V4))
    assert host.receive(ethernet(packet)) is None
    assert host.drops() == {"NotForUs": 2}


def test_packets_to_ourselves_from_outside_stay_martians_when_looped_ones_flow() -> None:
    host = SingleHost()
    host.send(OUR_V4)
    host.send("127.0.0.1", "127.0.0.1")
    assert host.receive(ethernet(IP(src=OUR_V4, dst=OUR_V4) / SEGMENT)) is None
    assert host.receive(ethernet(IP(src="127.0.0.1", dst="127.0.0.1") / SEGMENT)) is None
    assert host.drops() == {"Martian": 2}


def test_link_local_address_of_another_link_is_not_ours() -> None:
    host = SingleHost()
    other = host.layer.add_interface("tun1", link_type=LinkType.RAW_IP)
    raw = bytes(IPv6(src=PEER_LINK_LOCAL, dst=OUR_LINK_LOCAL) / SEGMENT)
    assert host.layer.receive(Frame(raw), other, 0) is None
    assert host.drops() == {"NotForUs": 1}


@pytest.mark.parametrize(
    ("packet", "is_taken"),
    [
        (IP(src=PEER_V4, dst=FAR_V4) / SEGMENT, True),
        (IPv6(src=PEER_V6, dst=FAR_V6) / SEGMENT, True),
        (IP(src=PEER_V4, dst="10.0.0.255") / SEGMENT, False),
        (IP(src=PEER_V4, dst="255.255.255.255") / SEGMENT, False),
        (IP(src=PEER_V4, dst="224.0.0.9") / SEGMENT, False),
        (IPv6(src=PEER_V6, dst="ff02::1") / SEGMENT, False),
        (IPv6(src=PEER_V6, dst="fe80::99") / SEGMENT, False),
        (IP(src=PEER_V4, dst="127.0.0.1") / SEGMENT, False),
        (IP(src="10.0.0.255", dst=FAR_V4) / SEGMENT, False),
        (IP(src=PEER_V4, dst=FAR_V4) / UDP(), False),
    ],
)
def test_what_others_are_meant_by_is_taken_on_request(packet: Packet, is_taken: bool) -> None:
    """For transparent sockets: TCP to one host elsewhere."""
    host = SingleHost()
    assert host.layer.receive(Frame(bytes(ethernet(packet))), host.interface, 0) is None
    host.layer.takes_for_others = lambda packet: True
    datagram = host.layer.receive(Frame(bytes(ethernet(packet))), host.interface, 0)
    assert isinstance(datagram, Datagram) is is_taken


def test_what_leaves_for_others() -> None:
    """Only when it was allowed, and not from a loopback address."""
    host = SingleHost()
    foreign = parse_address(FAR_V4)

    def sends(source: bytes) -> bool:
        return host.layer.send(
            source,
            parse_address(PEER_V4),
            PROTOCOL_TCP,
            bytearray(bytes(SEGMENT)),
            (),
            checksum_offset=16,
            now_us=0,
        )

    assert not sends(foreign)
    host.layer.send_for_others()
    assert sends(foreign)
    assert not sends(bytes((127, 0, 0, 1)))
