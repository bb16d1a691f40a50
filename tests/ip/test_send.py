"""Sending: headers, checksums, offloads, limits, and packets to ourselves."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from mptcp_stack.device.segmentation import segment_frame
from mptcp_stack.ip.interface import InterfaceAddress, LinkType
from mptcp_stack.ip.layer import IcmpErrorKind
from mptcp_stack.ip.output import MAXIMUM_LOOPED_DATAGRAMS, MAXIMUM_QUEUED_FRAMES
from mptcp_stack.ip.routing import Route
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.checksum import pseudo_header_sum
from mptcp_stack.wire.frame import ChecksumState
from tests.ip.single_host import (
    OUR_LINK_LOCAL,
    OUR_V4,
    OUR_V6,
    PEER_MAC,
    PEER_V4,
    PEER_V6,
    PROTOCOL_TCP,
    TCP_CHECKSUM_OFFSET,
    SingleHost,
    assert_checksums_good,
    is_at,
    tcp_header,
)

PEERS = pytest.mark.parametrize("peer", [PEER_V4, PEER_V6])


@PEERS
@pytest.mark.parametrize("payload", [(), (b"x",), (b"odd", b"even", b"", b"y"), (b"\xff" * 1400,)])
def test_packet_is_complete_without_offload(peer: str, payload: tuple[bytes, ...]) -> None:
    host = SingleHost(link_type=LinkType.RAW_IP)
    for _ in range(2):
        assert host.send(peer, payload=payload, traffic_class=0xB9)
    frames = host.layer.take_frames()
    assert all(frame.checksum is ChecksumState.UNVERIFIED for _, frame in frames)
    for _, frame in frames:
        packet = (IPv6 if ":" in peer else IP)(frame.to_bytes())
        assert_checksums_good(packet)
        assert packet.dst == peer
        assert bytes(packet[TCP].payload) == b"".join(payload)
        assert (packet.tc if ":" in peer else packet.tos) == 0xB9


def test_every_ipv4_packet_has_its_own_identification_and_forbids_fragments() -> None:
    host = SingleHost(link_type=LinkType.RAW_IP, checksum_offload=True, gso_max_size=65_536)
    host.send(payload=(bytes(10),))
    host.send(payload=(bytes(4500),), gso_size=1400)
    host.send(payload=(bytes(10),))
    packets = host.sent()
    assert [packet.id for packet in packets] == [0, 1, 5]
    assert all(packet.flags == "DF" for packet in packets)


def test_ipv4_header_checksum_holds_for_every_identification() -> None:
    host = SingleHost(link_type=LinkType.RAW_IP, checksum_offload=True, gso_max_size=65_536)
    for _ in range(70):
        host.send(payload=(bytes(60_000),), gso_size=37)
    for packet in host.sent():
        again = IP(bytes(packet))
        del again.chksum
        assert bytes(again)[:20] == bytes(packet)[:20]


@PEERS
def test_offloading_interface_gets_the_pseudo_header_sum_and_untouched_payload(peer: str) -> None:
    host = SingleHost(link_type=LinkType.RAW_IP, checksum_offload=True, gso_max_size=65_536)
    source = OUR_V6 if ":" in peer else OUR_V4
    payload = (bytes(30_000), memoryview(bytes(20_000)))
    host.layer.send(
        parse_address(source),
        parse_address(peer),
        PROTOCOL_TCP,
        tcp_header(),
        payload,
        checksum_offset=TCP_CHECKSUM_OFFSET,
        gso_size=1400,
        now_us=0,
    )
    ((interface, frame),) = host.layer.take_frames()
    assert interface is host.interface
    assert frame.payload is payload
    header_length = 40 if ":" in peer else 20
    assert (frame.checksum, frame.gso_size, frame.is_ipv6) == (ChecksumState.PARTIAL, 1400, ":" in peer)
    assert (frame.transport_offset, frame.checksum_offset) == (header_length, TCP_CHECKSUM_OFFSET)
    expected = pseudo_header_sum(parse_address(source), parse_address(peer), PROTOCOL_TCP, 50_020)
    assert int.from_bytes(frame.head[header_length + 16 : header_length + 18], "big") == expected


def test_transport_offset_counts_the_link_header() -> None:
    host = SingleHost(checksum_offload=True)
    host.learn_peer()
    host.send(at_us=1)
    ((_, frame),) = host.layer.take_frames()
    assert frame.transport_offset == 14 + 20
    assert TCP(frame.to_bytes()[frame.transport_offset :]).dport == 80


def test_packet_that_waited_keeps_its_offload_metadata() -> None:
    host = SingleHost(checksum_offload=True, gso_max_size=65_536)
    data = bytearray(5000)
    host.layer.send(
        parse_address(OUR_V4),
        parse_address(PEER_V4),
        PROTOCOL_TCP,
        tcp_header(),
        (memoryview(data),),
        checksum_offset=TCP_CHECKSUM_OFFSET,
        gso_size=1400,
        now_us=0,
    )
    data[:] = b"\xee" * 5000  # The owner reuses its memory while the packet waits.
    host.layer.take_frames()
    host.receive(is_at(PEER_V4, PEER_MAC), 1)
    ((_, frame),) = host.layer.take_frames()
    assert (frame.gso_size, frame.checksum, frame.transport_offset) == (1400, ChecksumState.PARTIAL, 34)
    assert frame.to_bytes()[34 + 20 :] == bytes(5000)


@PEERS
@pytest.mark.parametrize("payload_length", [1401, 14_000, 60_001])
def test_a_device_without_super_segments_gets_what_a_wire_would_carry(peer: str, payload_length: int) -> None:
    """Byte for byte what software segmentation makes of the super-segment."""
    header = tcp_header()
    header[4:8] = b"\xff\xff\xff\0"
    header[13] = 0xD9  # CWR, ECE, ACK, PSH, FIN
    data = bytes(range(256)) * 235
    payload = (data[:1000], data[1000:payload_length])
    sent = {}
    for gso_max_size in (0, 65_536):
        host = SingleHost(link_type=LinkType.RAW_IP, gso_max_size=gso_max_size)
        host.send(peer, head=bytearray(header), payload=payload, gso_size=1400, traffic_class=2)
        host.send(peer)
        sent[gso_max_size] = [frame for _, frame in host.layer.take_frames()]
        assert host.counted("Ip6OutRequests" if ":" in peer else "IpOutRequests") == [2]
    expected = [part.to_bytes() for frame in sent[65_536] for part in segment_frame(frame, 0)]
    assert [frame.to_bytes() for frame in sent[0]] == expected
    assert len(expected) == -(-payload_length // 1400) + 1
    assert all(frame.gso_size == 0 and len(frame) <= 1500 for frame in sent[0])


def test_single_segment_is_no_super_segment() -> None:
    host = SingleHost(link_type=LinkType.RAW_IP, checksum_offload=True, gso_max_size=65_536)
    host.send(payload=(bytes(1400),), gso_size=1400)
    ((_, frame),) = host.layer.take_frames()
    assert frame.gso_size == 0


@pytest.mark.parametrize(
    ("peer", "payload_length", "gso_size", "fits"),
    [
        (PEER_V4, 1460, 0, True),
        (PEER_V4, 1461, 0, False),
        (PEER_V6, 1440, 0, True),
        (PEER_V6, 1441, 0, False),
        (PEER_V4, 60_000, 1460, True),
        (PEER_V4, 60_000, 1461, False),
        (PEER_V4, 65_495, 1460, True),
        (PEER_V4, 65_496, 1460, False),
    ],
)
def test_what_exceeds_the_mtu_is_dropped_and_reported(
    peer: str, payload_length: int, gso_size: int, fits: bool
) -> None:
    host = SingleHost(link_type=LinkType.RAW_IP, checksum_offload=True, gso_max_size=65_536)
    assert host.send(peer, payload=(bytes(payload_length),), gso_size=gso_size)
    assert len(host.layer.take_frames()) == fits
    assert host.drops() == ({} if fits else {"TooBig": 1})
    errors = host.layer.take_errors()
    assert [(error.kind, error.mtu) for error in errors] == (
        [] if fits else [(IcmpErrorKind.PACKET_TOO_BIG, 1500)]
    )


def test_changed_mtu_counts_at_once() -> None:
    host = SingleHost(link_type=LinkType.RAW_IP)
    host.send(payload=(bytes(1400),))
    host.layer.set_mtu(host.interface, 1300)
    host.send(payload=(bytes(1400),))
    assert len(host.layer.take_frames()) == 1
    assert host.drops() == {"TooBig": 1}


@pytest.mark.parametrize(
    ("destination", "source"),
    [
        ("192.0.2.1", OUR_V4),
        ("2001:db8::1", OUR_V6),
        (PEER_V4, "10.0.0.99"),
        (PEER_V4, "127.0.0.1"),
        ("224.0.0.5", OUR_V4),
        ("10.0.0.255", OUR_V4),
        ("255.255.255.255", OUR_V4),
        ("0.0.0.0", OUR_V4),
        ("ff02::1", OUR_V6),
        ("::", OUR_V6),
    ],
)
def test_no_route(destination: str, source: str) -> None:
    host = SingleHost(link_type=LinkType.RAW_IP)
    assert not host.send(destination, source)
    assert host.sent() == []
    assert host.drops() == {"NoRoute": 1}
    assert host.counters["Ip6OutNoRoutes" if ":" in destination else "IpOutNoRoutes"] == 1


def test_link_local_source_stays_on_its_link() -> None:
    host = SingleHost()
    other = host.layer.add_interface("tun0", link_type=LinkType.RAW_IP)
    host.layer.routes.add(Route(parse_address("2001:db8::"), 32, other))
    assert not host.send("2001:db8::1", OUR_LINK_LOCAL)
    assert host.send("2001:db8::1", OUR_V6)


def test_cached_path_follows_a_new_route_and_a_lost_address() -> None:
    host = SingleHost(link_type=LinkType.RAW_IP)
    other = host.layer.add_interface("tun1", link_type=LinkType.RAW_IP)
    host.send()
    host.layer.routes.add(Route(parse_address(PEER_V4), 32, other))
    host.send()
    assert [interface.name for interface, _ in host.layer.take_frames()] == ["eth0", "tun1"]
    host.layer.remove_address(host.interface, parse_address(OUR_V4))
    assert not host.send()


@pytest.mark.parametrize(
    ("source", "destination"),
    [(OUR_V4, OUR_V4), ("127.0.0.1", "127.0.0.1"), (OUR_V4, "127.3.2.1"), (OUR_V6, OUR_V6), ("::1", "::1")],
)
def test_packet_to_ourselves_is_looped(source: str, destination: str) -> None:
    host = SingleHost()
    assert host.send(destination, source, payload=(bytes(30_000), b"end"), traffic_class=2)
    assert host.sent() == []
    (datagram,) = host.layer.take_looped()
    assert (datagram.source, datagram.destination) == (parse_address(source), parse_address(destination))
    assert (datagram.interface, datagram.traffic_class) == (host.layer.loopback, 2)
    assert bytes(datagram.payload[20:]) == bytes(30_000) + b"end"
    assert host.layer.take_looped() == []


def test_looped_packet_waits_in_a_bounded_queue() -> None:
    host = SingleHost()
    for _ in range(MAXIMUM_LOOPED_DATAGRAMS + 3):
        host.send(OUR_V4, payload=())
    assert len(host.layer.take_looped()) == MAXIMUM_LOOPED_DATAGRAMS
    assert host.drops() == {"TransmitQueueFull": 3}


def test_transmit_queue_is_bounded() -> None:
    host = SingleHost(link_type=LinkType.RAW_IP, checksum_offload=True)
    for _ in range(MAXIMUM_QUEUED_FRAMES + 3):
        host.send(payload=())
    assert len(host.layer.take_frames()) == MAXIMUM_QUEUED_FRAMES
    assert host.drops() == {"TransmitQueueFull": 3}


def test_second_interface_address_is_a_source_of_its_own() -> None:
    host = SingleHost(link_type=LinkType.RAW_IP)
    host.layer.add_address(host.interface, InterfaceAddress(parse_address("10.0.0.7"), 24))
    assert host.send(PEER_V4, "10.0.0.7")
    (packet,) = host.sent()
    assert packet.src == "10.0.0.7"
