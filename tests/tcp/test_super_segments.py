"""Super-segments: one chunk for many segments, some of which may be lost on the way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.settings import StackSettings
from mptcp_stack.wire.frame import Frame
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
