"""Whatever arrives: no exception, every drop counted once, memory and timers bounded."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from mptcp_stack.counters import DROP_NAMES
from mptcp_stack.ip.host_configuration import MAXIMUM_CACHED
from mptcp_stack.ip.interface import InterfaceAddress, LinkType
from mptcp_stack.ip.neighbours import (
    MAXIMUM_ENTRIES,
    MAXIMUM_INCOMPLETE_ENTRIES,
    MAXIMUM_PASSIVE_ENTRIES,
    MAXIMUM_PENDING_BYTES,
    MAXIMUM_PENDING_FRAMES,
    NeighbourCache,
)
from mptcp_stack.ip.output import MAXIMUM_ERRORS
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.checksum import checksum_of
from mptcp_stack.wire.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6
from mptcp_stack.wire.frame import ChecksumState, Frame
from tests.ip.single_host import (
    OTHER_MAC,
    OUR_MAC,
    OUR_V4,
    OUR_V6,
    PEER_MAC,
    PEER_V4,
    PEER_V6,
    SECOND_US,
    SingleHost,
    ethernet,
    is_at,
)

LEGAL_FRAMES = [
    bytes(each)
    for each in (
        Ether(src=PEER_MAC, dst=OUR_MAC) / ARP(op="who-has", hwsrc=PEER_MAC, psrc=PEER_V4, pdst=OUR_V4),
        is_at(PEER_V4, PEER_MAC),
        ethernet(IP(src=PEER_V4, dst=OUR_V4) / TCP() / Raw(bytes(40))),
        ethernet(IP(src=PEER_V4, dst=OUR_V4) / ICMP() / Raw(bytes(40))),
        ethernet(IP(src=PEER_V4, dst=OUR_V4) / ICMP(type=3, code=4) / IP(src=OUR_V4) / TCP()),
        ethernet(IPv6(src=PEER_V6, dst=OUR_V6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / TCP()),
        ethernet(IPv6(src=PEER_V6, dst=OUR_V6) / ICMPv6EchoRequest(data=b"abc")),
        ethernet(IPv6(src=PEER_V6, dst=OUR_V6) / ICMPv6PacketTooBig() / IPv6(src=OUR_V6) / TCP()),
        ethernet(
            IPv6(src=PEER_V6, dst=OUR_V6, hlim=255)
            / ICMPv6ND_NS(tgt=OUR_V6)
            / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC)
        ),
        ethernet(
            IPv6(src=PEER_V6, dst=OUR_V6, hlim=255)
            / ICMPv6ND_NA(tgt=PEER_V6)
            / ICMPv6NDOptDstLLAddr(lladdr=OTHER_MAC)
        ),
    )
]


def mutated(rng: random.Random, frame: bytes) -> bytes:
    """The frame with some bytes changed, cut out or doubled; the link header mostly spared."""
    data = bytearray(frame)
    for _ in range(rng.randint(1, 4)):
        position = rng.randrange(14 if rng.random() < 0.9 else 0, max(15, len(data)))
        match rng.randrange(4):
            case 0 if position < len(data):
                data[position] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 1 if position < len(data):
                data[position] ^= 1 << rng.randrange(8)
            case 2:
                del data[position : position + rng.randint(1, 20)]
            case _:
                data[position:position] = rng.randbytes(rng.randint(1, 20))
    if rng.random() < 0.7:
        repair_ipv4_header(data)
    return bytes(data)


def repair_ipv4_header(data: bytearray) -> None:
    """Make the header checksum good, so that what lies behind its check is reached."""
    end = 14 + 4 * (data[14] & 0x0F) if len(data) > 14 else 0
    if data[12:14] == ETHERTYPE_IPV4.to_bytes(2, "big") and 34 <= end <= len(data):
        data[24:26] = bytes(2)
        data[24:26] = checksum_of((data[14:end],)).to_bytes(2, "big")


def random_frame(rng: random.Random) -> bytes:
    """Noise, mostly behind a header that gets it past the first check."""
    noise = rng.randbytes(rng.randrange(120))
    if rng.random() < 0.3:
        return noise
    ether_type = rng.choice((ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6))
    return (
        bytes.fromhex(OUR_MAC.replace(":", "") + PEER_MAC.replace(":", ""))
        + ether_type.to_bytes(2, "big")
        + noise
    )


def frames(seed: int, count: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    for _ in range(count):
        yield random_frame(rng) if rng.random() < 0.2 else mutated(rng, rng.choice(LEGAL_FRAMES))


@pytest.mark.parametrize("link_type", list(LinkType))
@pytest.mark.parametrize("checksum", list(ChecksumState))
def test_any_frame_is_handled_answered_or_one_counted_drop(
    link_type: LinkType, checksum: ChecksumState
) -> None:
    host = SingleHost(link_type=link_type)
    if link_type is LinkType.ETHERNET:
        host.learn_peer()
    drops = handled = answered = failures = 0
    for number, raw in enumerate(frames(seed=20, count=15_000)):
        head = raw[14:] if link_type is LinkType.RAW_IP else raw
        at_us = number * 1000
        result = host.layer.receive(Frame(head, checksum=checksum), host.interface, at_us)
        dropped_now = sum(host.counters[name] for name in DROP_NAMES) - drops
        drops += dropped_now
        # A fragment may take the earlier ones of its packet with it.
        failed, failures = failures, host.counters["IpReasmFails"] + host.counters["Ip6ReasmFails"]
        assert dropped_now <= 1 or failures > failed
        assert result is None or not dropped_now
        handled += result is not None
        deadline_us = host.layer.next_deadline_us()
        if deadline_us is not None and deadline_us <= at_us:
            host.layer.handle_deadline(at_us)
            drops = sum(host.counters[name] for name in DROP_NAMES)
        answered += len(host.layer.take_frames())
    # Not a test of the drop path alone: mutations leave some frames legal.
    assert handled > 50
    assert answered > 20
    assert drops > 1000


def test_truncations_of_legal_frames() -> None:
    for link_type in LinkType:
        for checksum in ChecksumState:
            host = SingleHost(link_type=link_type)
            for frame in LEGAL_FRAMES:
                start = 14 if link_type is LinkType.RAW_IP else 0
                for length in range(start, len(frame)):
                    host.receive(frame[start:length], checksum=checksum)
            host.layer.take_frames()


def caches(host: SingleHost) -> tuple[NeighbourCache, ...]:
    return host.layer.neighbour_caches


def on_link_address(number: int) -> str:
    return f"10.1.{number >> 8}.{number & 0xFF}"


def from_sender(arp_frame: bytes, address: str) -> bytes:
    """The ARP packet with another sender's IPv4 address: patching is a hundred times faster than scapy."""
    return arp_frame[:28] + parse_address(address) + arp_frame[32:]


def host_on_a_wide_link() -> SingleHost:
    host = SingleHost()
    host.layer.add_address(host.interface, InterfaceAddress(parse_address("10.1.255.254"), 16))
    return host


def test_flood_of_requests_for_our_address_does_not_fill_the_cache_or_displace_a_busy_neighbour() -> None:
    host = host_on_a_wide_link()
    host.learn_peer()
    request = bytes(
        Ether(src=OTHER_MAC, dst=OUR_MAC) / ARP(op="who-has", hwsrc=OTHER_MAC, psrc=PEER_V4, pdst=OUR_V4)
    )
    for number in range(1, 5000):
        host.receive(from_sender(request, on_link_address(number)), number)
        host.layer.take_frames()
    assert sum(map(len, caches(host))) <= MAXIMUM_ENTRIES
    host.send(at_us=6000)
    assert [frame.dst for frame in host.sent()] == [PEER_MAC]


def test_packets_to_many_silent_neighbours_ask_for_a_bounded_number_of_them() -> None:
    host = host_on_a_wide_link()
    for number in range(1, 2000):
        host.send(on_link_address(number), OUR_V4, at_us=number)
    assert len(host.layer.take_frames()) == MAXIMUM_INCOMPLETE_ENTRIES
    assert sum(map(len, caches(host))) == MAXIMUM_INCOMPLETE_ENTRIES
    assert host.drops() == {"NeighbourQueueFull": 1999 - MAXIMUM_INCOMPLETE_ENTRIES}
    for second in range(1, 5):
        host.layer.handle_deadline(second * SECOND_US)
    assert sum(map(len, caches(host))) == 0
    assert host.layer.next_deadline_us() is None
    host.learn_peer(at_us=9 * SECOND_US)
    assert host.drops()["NeighbourUnresolved"] == MAXIMUM_INCOMPLETE_ENTRIES
    assert len(host.layer.take_errors()) == min(MAXIMUM_ERRORS, MAXIMUM_INCOMPLETE_ENTRIES)


def test_many_neighbours_that_answer_displace_the_quiet_ones_first() -> None:
    host = host_on_a_wide_link()
    host.learn_peer()
    reply = bytes(is_at(PEER_V4, OTHER_MAC))
    segment = bytes(ethernet(IP(src=PEER_V4, dst=OUR_V4) / TCP()))
    for number in range(1, 2 * MAXIMUM_ENTRIES):
        at_us = number * 1000
        host.send(on_link_address(number), OUR_V4, at_us=at_us)
        host.receive(from_sender(reply, on_link_address(number)), at_us)
        # The peer goes on talking, so it is never the longest silent one.
        host.receive(segment, at_us)
        host.layer.take_frames()
    assert sum(map(len, caches(host))) == MAXIMUM_ENTRIES
    host.send(at_us=2 * SECOND_US)
    assert [frame.dst for frame in host.sent()] == [PEER_MAC]
    # A displaced neighbour is simply asked for again.
    host.send(on_link_address(1), OUR_V4, at_us=2 * SECOND_US)
    assert [frame[ARP].pdst for frame in host.sent()] == [on_link_address(1)]


def test_those_who_asked_give_way_to_those_we_talk_to() -> None:
    host = host_on_a_wide_link()
    request = bytes(
        Ether(src=OTHER_MAC, dst=OUR_MAC) / ARP(op="who-has", hwsrc=OTHER_MAC, psrc=PEER_V4, pdst=OUR_V4)
    )
    reply = bytes(is_at(PEER_V4, PEER_MAC))
    talked_to = [on_link_address(0x8000 + number) for number in range(MAXIMUM_ENTRIES)]
    for number in range(1, MAXIMUM_PASSIVE_ENTRIES + 10):
        host.receive(from_sender(request, on_link_address(number)), 0)
    assert sum(map(len, caches(host))) == MAXIMUM_PASSIVE_ENTRIES
    for address in talked_to:
        host.send(address, OUR_V4, at_us=1)
        host.receive(from_sender(reply, address), 1)
    # Now the cache is full of addresses in use: who merely asks for ours finds no place in it.
    host.receive(from_sender(request, on_link_address(1)), 2)
    host.layer.take_frames()
    assert sum(map(len, caches(host))) == MAXIMUM_ENTRIES
    for address in talked_to:
        host.send(address, OUR_V4, at_us=3)
    assert [frame.dst for frame in host.sent()] == [PEER_MAC] * MAXIMUM_ENTRIES


def test_packets_for_one_silent_neighbour_wait_in_a_bounded_queue() -> None:
    host = SingleHost()
    for number in range(MAXIMUM_PENDING_FRAMES + 10):
        host.send(payload=(number.to_bytes(2, "big"),), at_us=number)
    assert host.drops() == {"NeighbourQueueFull": 10}
    host.layer.take_frames()
    host.receive(is_at(PEER_V4, PEER_MAC), 1000)
    payloads = [bytes(frame[TCP].payload) for frame in host.sent()]
    assert payloads == [number.to_bytes(2, "big") for number in range(10, MAXIMUM_PENDING_FRAMES + 10)]


def test_bytes_that_wait_for_all_neighbours_are_bounded() -> None:
    host = SingleHost(checksum_offload=True, gso_max_size=65_536)
    for number in range(2, 100):
        for _ in range(10):
            host.send(f"10.0.0.{number}", payload=(bytes(60_000),), gso_size=1400)
    waiting = [cache.pending_bytes for cache in caches(host)]
    assert MAXIMUM_PENDING_BYTES - 70_000 < sum(waiting) <= MAXIMUM_PENDING_BYTES
    for second in range(1, 5):
        host.layer.handle_deadline(second * SECOND_US)
    assert [cache.pending_bytes for cache in caches(host)] == [0, 0]


def test_caches_keyed_by_the_peers_addresses_are_bounded() -> None:
    host = SingleHost(link_type=LinkType.RAW_IP)
    host.layer.add_address(host.interface, InterfaceAddress(parse_address("10.1.255.254"), 16))
    for number in range(1, MAXIMUM_CACHED + 500):
        host.send(on_link_address(number), OUR_V4)
    assert 0 < host.layer.cached_paths <= MAXIMUM_CACHED
