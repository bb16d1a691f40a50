"""Paths that remove MPTCP's options, from some packets or from all (RFC 8684 §3.7)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mptcp_stack.settings import StackSettings
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.checksum import checksum_of, pseudo_header_sum
from mptcp_stack.wire.ip_packet import PROTOCOL_TCP, IpPacket, parse_ipv4
from mptcp_stack.wire.tcp_segment import ACK, RST, SYN, TcpSegment, parse_tcp
from tests.mptcp.network import Network, Transfer, advance_all, both_ways, join_all

_MPTCP_KIND = 30
_ETHERNET_BYTES = 14
_ETHERTYPE_IPV4 = b"\x08\x00"

Matcher = Callable[[TcpSegment], bool]


def strip(matches: Matcher) -> Callable[[bytes, int], list[bytes]]:
    """A middlebox that overwrites the MPTCP options of matching segments with NOPs."""

    def rewrite(packet: bytes, index: int) -> list[bytes]:
        if packet[12:14] != _ETHERTYPE_IPV4:
            return [packet]
        ip_packet = parse_ipv4(memoryview(packet)[_ETHERNET_BYTES:])
        if ip_packet.protocol != PROTOCOL_TCP or not matches(parse_tcp(ip_packet.payload)):
            return [packet]
        segment = bytearray(ip_packet.payload)
        _blank_options(segment)
        return [with_segment(packet, ip_packet, segment)]

    return rewrite


def with_segment(packet: bytes, ip_packet: IpPacket, segment: bytearray) -> bytes:
    """The packet with another TCP segment of the same length, its checksum made right."""
    segment[16:18] = b"\0\0"
    total = pseudo_header_sum(ip_packet.source, ip_packet.destination, PROTOCOL_TCP, len(segment))
    segment[16:18] = checksum_of((segment,), total).to_bytes(2, "big")
    return packet[: _ETHERNET_BYTES + ip_packet.payload_offset] + bytes(segment)


def _blank_options(segment: bytearray) -> None:
    position, end = 20, (segment[12] >> 4) * 4
    while position < end:
        kind = segment[position]
        length = 1 if kind < 2 else segment[position + 1]
        if kind == _MPTCP_KIND:
            segment[position : position + length] = b"\x01" * length
        position += length


def is_syn(segment: TcpSegment) -> bool:
    return segment.flags & (SYN | ACK) == SYN


def is_syn_ack(segment: TcpSegment) -> bool:
    return segment.flags & (SYN | ACK) == SYN | ACK


def is_later(segment: TcpSegment) -> bool:
    return not segment.flags & (SYN | RST)


def is_anything(segment: TcpSegment) -> bool:
    return True


@pytest.mark.parametrize(
    ("forward", "backward", "client_counter", "server_counter"),
    [
        (is_syn, None, "MPTcpExtMPCapableFallbackSYNACK", None),
        (None, is_syn_ack, "MPTcpExtMPCapableFallbackSYNACK", "MPTcpExtMPCapableFallbackACK"),
        (is_later, None, None, "MPTcpExtMPCapableFallbackACK"),
        (is_anything, is_anything, "MPTcpExtMPCapableFallbackSYNACK", None),
    ],
    ids=["SYN", "SYN/ACK", "everything from the client after its SYN", "everything"],
)
def test_falls_back_and_delivers(
    forward: Matcher | None, backward: Matcher | None, client_counter: str | None, server_counter: str | None
) -> None:
    network = Network()
    link = network.simulator.links()["1"]
    link.forward.rewrite = strip(forward) if forward else None
    link.backward.rewrite = strip(backward) if backward else None
    near, far = network.establish()
    both_ways(network, near, far, 200_000)
    assert not far.is_mptcp
    assert not near.is_mptcp
    for counters, name in (
        (network.client.counters, client_counter),
        (network.server.counters, server_counter),
    ):
        if name is not None:
            assert counters[name] == 1


def test_options_lost_after_the_handshake_in_both_directions() -> None:
    network = Network()
    link = network.simulator.links()["1"]
    has_begun = False

    def matches(segment: TcpSegment) -> bool:
        return has_begun and is_later(segment)

    link.forward.rewrite = link.backward.rewrite = strip(matches)
    near, far = network.establish()
    has_begun = True
    both_ways(network, near, far, 200_000)
    assert not near.is_mptcp
    assert not far.is_mptcp
    # The server has seen both keys, so it misses a mapping; the client has seen nothing since the SYN/ACK.
    assert network.server.counters["MPTcpExtDssFallback"] == 1
    assert network.client.counters["MPTcpExtMPCapableDataFallback"] == 1


def test_an_announcement_that_a_box_takes_away_does_not_pass_for_a_path_without_options() -> None:
    """It left as an acknowledgement of nothing new; that of the data tells whether options come through."""
    network = Network()
    near, far = network.establish()
    near.write(bytes(1000))
    network.simulator.run_until(lambda: far.readable_bytes == 1000 and not near.unacknowledged_bytes)
    (subflow,) = near.subflows
    network.simulator.links()["1"].backward.rewrite = strip(lambda segment: not segment.payload)
    received = network.client.counters["TcpInSegs"]
    network.server.path_manager.add_endpoint(parse_address("10.0.9.1"), flags=frozenset({"signal"}))
    network.simulator.run_until(lambda: network.client.counters["TcpInSegs"] > received)
    assert network.server.counters["MPTcpExtAddAddrTx"] == 1
    assert network.client.counters["MPTcpExtAddAddr"] == 0
    assert subflow.hears_options
    near.write(bytes(1000))
    network.simulator.run_until(lambda: not subflow.retransmission_queue)
    assert not subflow.hears_options


def test_options_lost_on_a_join_reset_that_subflow_only() -> None:
    network = Network(2)
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=frozenset({"subflow"}))
    near, far = network.establish()
    join_all(network, near, far)
    network.simulator.links()["2"].forward.rewrite = strip(is_later)
    transfers = [Transfer(near, far, 1_000_000), Transfer(far, near, 1_000_000)]
    network.simulator.run_until(lambda: advance_all(transfers))
    for transfer in transfers:
        transfer.must_be_intact()
    assert near.is_mptcp
    assert far.is_mptcp
    assert len(near.subflows) == 1
    assert network.server.counters["MPTcpExtMPRstTx"] == network.client.counters["MPTcpExtMPRstRx"] == 1


def test_corrupted_data_on_a_join_is_found_by_the_checksum() -> None:
    network = Network(2, settings=StackSettings(checksum_enabled=True))
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=frozenset({"subflow"}))
    near, far = network.establish()
    join_all(network, near, far)

    def flip(packet: bytes, index: int) -> list[bytes]:
        """Changes payload and TCP checksum alike, as an application-level gateway does."""
        ip_packet = parse_ipv4(memoryview(packet)[_ETHERNET_BYTES:])
        segment = parse_tcp(ip_packet.payload)
        if len(segment.payload) < 100:
            return [packet]
        changed = bytearray(segment.payload)
        changed[50] ^= 0xFF
        header_bytes = len(ip_packet.payload) - len(changed)
        return [with_segment(packet, ip_packet, bytearray(ip_packet.payload[:header_bytes]) + changed)]

    network.simulator.links()["2"].forward.rewrite = flip
    transfer = Transfer(near, far, 1_000_000)
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()
    assert network.server.counters["MPTcpExtDataCsumErr"] == 1
    assert network.client.counters["MPTcpExtMPFailRx"] == 1


@pytest.mark.parametrize(
    ("option", "byte", "counter"),
    [
        (b"\x1e\x18\x10", 8, "MPTcpExtMPJoinAckHMacFailure"),
        (b"\x1e\x0c\x10", 5, "MPTcpExtMPJoinNoTokenFound"),
    ],
    ids=["wrong proof", "unknown token"],
)
def test_join_that_proves_nothing_is_reset(option: bytes, byte: int, counter: str) -> None:
    network = Network(2)
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=frozenset({"subflow"}))
    near, far = network.establish()

    def forge(packet: bytes, index: int) -> list[bytes]:
        if option not in packet:
            return [packet]
        ip_packet = parse_ipv4(memoryview(packet)[_ETHERNET_BYTES:])
        segment = bytearray(ip_packet.payload)
        segment[segment.index(option) + byte] ^= 1
        return [with_segment(packet, ip_packet, segment)]

    network.simulator.links()["2"].forward.rewrite = forge
    both_ways(network, near, far, 100_000)
    assert network.server.counters[counter] == 1
    assert network.server.counters["MPTcpExtMPJoinAckRx"] == 0
    assert near.error is None
    assert far.error is None
