"""Super-segments: one chunk for many segments, some of which may be lost on the way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.settings import StackSettings
from mptcp_stack.wire.frame import Frame
from mptcp_stack.wire.mptcp_options import Dss
from mptcp_stack.wire.tcp_segment import PSH, TcpSegment, parse_tcp
from tests.mptcp.network import Network, Transfer, both_ways

IDEAL = WireSettings(delay_us=5_000)
SIZE = 65536


@pytest.mark.parametrize("protocol", ["mptcp", "tcp"])
@pytest.mark.parametrize("address", ["10.0.1.1", "fd00:1::1"])
def test_super_segments_pass_whole(protocol: str, address: str) -> None:
    network = Network(wire=IDEAL, gso_max_size=SIZE)
    frames: list[Frame] = []
    network.simulator.add_tap(
        lambda now_us, wire, direction, frame: frames.append(frame) if direction == "sent" else None
    )
    near, far = network.establish(address, protocol, protocol)
    both_ways(network, near, far, 3_000_000)
    largest = max(frames, key=len)
    assert 60_000 < len(largest) <= 65535 + 14
    assert largest.gso_size == (1420 if protocol == "mptcp" else 1448) - (20 if len(address) > 8 else 0)
    assert network.client.counters["TcpRetransSegs"] == 0
    # One for each segment, not one for each super-segment.
    sent = network.client.counters["TcpExtTCPOrigDataSent"]
    assert sent >= 3_000_000 // largest.gso_size
    assert len(frames) < sent / 2


@pytest.mark.parametrize("cuts", [True, False])
@pytest.mark.parametrize("address", ["10.0.1.1", "fd00:1::1"])
def test_a_device_that_takes_none_gets_segments_under_one_mapping(address: str, cuts: bool) -> None:
    """As Linux's software GSO: the mapping of the whole goes with each segment, and PSH with the last."""
    network = Network(wire=IDEAL)
    for interface in (*network.client.ip.interfaces, *network.server.ip.interfaces):
        interface.generic_segmentation = cuts
    packets: list[bytes] = []
    network.simulator.add_tap(
        lambda now_us, wire, direction, frame: (
            packets.append(frame.to_bytes()) if direction == "sent" else None
        )
    )
    near, far = network.establish(address)
    both_ways(network, near, far, 300_000)
    assert max(map(len, packets)) == 1500 + 14
    offset = 14 + (20 if "." in address else 40)
    mapped: dict[tuple[int, int], list[TcpSegment]] = {}
    for segment in [parse_tcp(memoryview(packet)[offset:]) for packet in packets if len(packet) > 1000]:
        for option in segment.options.mptcp:
            if isinstance(option, Dss) and option.data_sequence is not None:
                mapped.setdefault((segment.source_port, option.data_sequence), []).append(segment)
                assert option.data_length >= len(segment.payload)
    longest = max(mapped.values(), key=len)
    assert len(longest) > 4 if cuts else len(longest) == 1
    assert not any(segment.flags & PSH for segment in longest[:-1])


@pytest.mark.parametrize("sack", [True, False])
@pytest.mark.parametrize(
    "lost", [(40,), (41, 42), (60, 75, 90), tuple(range(50, 70)), tuple(range(400, 460, 3))]
)
def test_a_part_of_a_super_segment_is_lost(lost: tuple[int, ...], sack: bool) -> None:
    """The wire cuts them; only what was lost is sent again."""
    network = Network(
        wire=replace(IDEAL, split=True), gso_max_size=SIZE, settings=StackSettings(tcp_sack=sack)
    )
    wire = network.simulator.links()["1"].forward
    wire.drop_if = lambda frame, index: index in lost
    near, far = network.establish()
    transfer = Transfer(near, far, 1_000_000)
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()
    assert network.client.counters["TcpExtTCPFastRetrans"] > 0
    if sack:
        assert network.client.counters["TcpRetransSegs"] == len(lost)
        assert network.client.counters["TcpExtTCPTimeouts"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_random_losses(seed: int) -> None:
    network = Network(2, seed=seed, wire=replace(IDEAL, loss=0.02), gso_max_size=SIZE)
    near, far = network.establish()
    both_ways(network, near, far, 1_000_000)


def test_retransmission_after_a_timeout_is_cut_to_what_the_window_allows() -> None:
    network = Network(wire=replace(IDEAL, split=True), gso_max_size=SIZE)
    near, far = network.establish()
    transfer = Transfer(near, far, 2_000_000)
    network.simulator.run_until(lambda: transfer.advance() or len(transfer.received) > 500_000)
    network.simulator.set_link("1", up=False)
    network.simulator.run_for(1_000_000)
    network.simulator.set_link("1", up=True)
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()
    assert network.client.counters["TcpExtTCPTimeouts"] >= 1


def test_the_cost_of_loss_without_super_segments_is_bounded() -> None:
    """One segment lost of a large window: a single retransmission, and no time-out."""
    network = Network(wire=WireSettings(delay_us=20_000, rate_bit_s=400_000_000, queue_limit_packets=5000))
    wire = network.simulator.links()["1"].forward
    wire.drop_if = lambda frame, index: index == 3000
    near, far = network.establish()
    transfer = Transfer(near, far, 8_000_000)
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()
    assert network.client.counters["TcpRetransSegs"] == 1
    assert network.client.counters["TcpExtTCPTimeouts"] == 0
