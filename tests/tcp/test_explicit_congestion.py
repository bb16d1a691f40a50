"""ECN (RFC 3168): marks instead of losses, on every subflow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from mptcp_stack.settings import StackSettings
from mptcp_stack.wire.checksum import checksum_of
from tests.mptcp.network import DEFAULT_WIRE, Network, Transfer, join_all

ASKING = StackSettings(tcp_ecn=1)
CLEAN = replace(DEFAULT_WIRE, queue_limit_packets=10_000)
V4, V6 = "10.0.1.1", "fd00:1::1"
ETHERNET_BYTES = 14
ECN_COUNTERS = ("InNoECTPkts", "InECT1Pkts", "InECT0Pkts", "InCEPkts")


class Marker:
    """A router that marks every so manyth ECN-capable packet (RFC 3168 §5)."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.capable = self.marked = self.with_reduced_flag = 0

    def __call__(self, frame: bytes, index: int) -> Iterator[bytes]:
        data = bytearray(frame)
        start = ETHERNET_BYTES
        is_ipv4 = frame[12:14] == b"\x08\x00"
        field = data[start + 1] & 3 if is_ipv4 else data[start + 1] >> 4 & 3
        if field == 2 and frame[12:14] != b"\x08\x06":
            self.capable += 1
            flags = data[start + (20 if is_ipv4 else 40) + 13]
            self.with_reduced_flag += bool(flags & 0x80)
            if self.capable % self.every == 0:
                self.marked += 1
                self._mark(data, is_ipv4)
        yield bytes(data)

    def _mark(self, data: bytearray, is_ipv4: bool) -> None:
        start = ETHERNET_BYTES
        if is_ipv4:
            data[start + 1] |= 3
            data[start + 10 : start + 12] = bytes(2)
            checksum = checksum_of((data[start : start + 20],))
            data[start + 10 : start + 12] = checksum.to_bytes(2, "big")
        else:
            data[start + 1] |= 0x30


def marked_network(every: int, **options: object) -> tuple[Network, Marker]:
    network = Network(wire=CLEAN, settings=ASKING, gso_max_size=65536 if options.get("gso") else 0)
    marker = Marker(every)
    network.simulator.links()["1"].forward.rewrite = marker
    return network, marker


@pytest.mark.parametrize("gso", [False, True])
@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
@pytest.mark.parametrize("address", [V4, V6])
def test_marks_slow_the_sender_down_without_a_loss(address: str, protocol: str, gso: bool) -> None:
    network, marker = marked_network(100, gso=gso)
    near, far = network.establish(address, protocol, protocol)
    transfer = Transfer(near, far, 2_000_000)
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()
    assert marker.marked >= 10
    assert 1 <= marker.with_reduced_flag <= marker.marked
    assert network.client.counters["TcpRetransSegs"] == 0
    assert near.subflows[0].congestion.slow_start_threshold < 500_000
    prefix = "IpExt" if address == V4 else "Ip6"
    counted = [network.server.counters[prefix + name] for name in ECN_COUNTERS]
    assert counted[3] == marker.marked
    assert counted[2] == marker.capable - marker.marked
    assert counted[1] == 0


def test_echoes_of_one_window_reduce_it_once() -> None:
    network, marker = marked_network(1)
    near, far = network.establish(V4, "tcp", "tcp")
    subflow = near.subflows[0]
    before = subflow.congestion.congestion_window
    transfer = Transfer(near, far, before).without_shutdown()
    # The data arrives before any echo comes back.
    network.simulator.run_until(lambda: transfer.advance() and not len(subflow.retransmission_queue))
    assert marker.marked >= 10
    assert before // 2 < subflow.congestion.slow_start_threshold < before
    assert subflow.congestion.congestion_window == subflow.congestion.slow_start_threshold
    assert network.client.counters["TcpExtTCPDeliveredCE"] == marker.marked


@pytest.mark.parametrize(("client", "server"), [(0, 1), (1, 0), (2, 2), (0, 0)])
def test_both_ends_must_want_it(client: int, server: int) -> None:
    network = Network(
        wire=CLEAN, settings=StackSettings(tcp_ecn=client), server_settings=StackSettings(tcp_ecn=server)
    )
    near, far = network.establish(V4, "tcp", "tcp")
    assert near.subflows[0].explicit_congestion is None
    assert far.subflows[0].explicit_congestion is None


def test_every_subflow_negotiates() -> None:
    network = Network(2, wire=CLEAN, settings=ASKING)
    network.client.path_manager.set_limits(2, 2)
    network.server.path_manager.set_limits(2, 2)
    address = network.client.ip.interfaces[1].addresses[0].address
    network.client.path_manager.add_endpoint(address, flags=frozenset({"subflow"}))
    near, far = network.establish()
    join_all(network, near, far)
    for subflow in (*near.subflows, *far.subflows):
        assert subflow.explicit_congestion is not None


def test_lost_request_falls_back() -> None:
    """RFC 3168 §6.1.1.1: a path that drops SYNs with the flags still carries connections."""
    network = Network(wire=CLEAN, settings=ASKING)
    wire = network.simulator.links()["1"].forward
    wire.drop_if = lambda frame, index: len(frame) > 47 and frame[47] & 0xC2 == 0xC2
    near, far = network.establish(V4, "tcp", "tcp")
    assert near.subflows[0].explicit_congestion is None
    assert far.subflows[0].explicit_congestion is None
    stubborn = replace(ASKING, tcp_ecn_fallback=False, tcp_syn_retries=2)
    network.client.settings = network.client.environment.settings = stubborn
    failing = network.connect(V4, "tcp")
    network.simulator.run_until(lambda: failing.is_closed)
