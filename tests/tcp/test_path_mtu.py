"""Path MTU discovery by ICMP (RFC 1191, RFC 8201): segments that fit, for all connections to a host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mptcp_stack.ip.host_configuration import MAXIMUM_CACHED
from mptcp_stack.ip.interface import Interface, LinkType
from mptcp_stack.ip.layer import IcmpErrorKind
from mptcp_stack.ip.path_mtu import LIFETIME_US, PathMtus
from mptcp_stack.tcp.icmp_errors import on_icmp_error
from tests.mptcp.network import DEFAULT_WIRE, Network, Transfer, both_ways
from tests.mptcp.router import NarrowPath
from tests.tcp.exchange import established
from tests.tcp.test_icmp_errors import error

V4, V6 = "10.0.1.1", "fd00:1::1"
TIMESTAMPED_HEADERS = {V4: 52, V6: 72}
CLEAN = replace(DEFAULT_WIRE, queue_limit_packets=10_000)


@pytest.mark.parametrize("gso_max_size", [0, 65536])
@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
@pytest.mark.parametrize("address", [V4, V6])
def test_transfer_over_a_narrow_path(address: str, protocol: str, gso_max_size: int) -> None:
    network = Network(wire=CLEAN, gso_max_size=gso_max_size)
    near, far = network.establish(address, protocol, protocol)
    path = NarrowPath(network, 1300)
    both_ways(network, near, far, 1_000_000)
    counters = network.client.counters
    # What was on its way when the first error came, and nothing later.
    assert 0 < path.dropped <= 10
    assert path.largest_passed == 1300
    assert path.may_be_cut == 0
    assert counters["TcpExtTCPTimeouts"] == counters["TcpExtOutOfWindowIcmps"] == 0
    assert network.client.ip.path_mtu(*_ends(network, address)) == 1300


def _ends(network: Network, address: str) -> tuple[bytes, bytes]:
    interface = network.client.ip.interfaces[0]
    local = next(own.address for own in interface.addresses_of_length(4 if "." in address else 16))
    far = network.server.ip.interfaces[0]
    return local, next(own.address for own in far.addresses_of_length(len(local)))


def test_connections_share_what_one_has_learnt() -> None:
    network = Network(wire=CLEAN)
    first, far = network.establish(V4, "tcp", "tcp")
    second = network.connect(V4, "tcp")
    network.simulator.run_until(lambda: second.is_established)
    path = NarrowPath(network, 1000)
    before = second.subflows[0].congestion.congestion_window // second.subflows[0].segment_bytes
    transfer = Transfer(first, far, 100_000)
    network.simulator.run_until(transfer.advance)
    assert path.dropped
    assert second.subflows[0].segment_bytes == 1000 - TIMESTAMPED_HEADERS[V4]
    after = second.subflows[0].congestion.congestion_window // second.subflows[0].segment_bytes
    assert after == before
    third = network.connect(V4, "tcp")
    network.simulator.run_until(lambda: third.is_established)
    assert third.subflows[0].segment_bytes == 1000 - TIMESTAMPED_HEADERS[V4]


def test_other_paths_keep_their_mtu() -> None:
    network = Network(2, wire=CLEAN)
    near, far = network.establish(V4, "tcp", "tcp")
    NarrowPath(network, 1000)
    transfer = Transfer(near, far, 100_000)
    network.simulator.run_until(transfer.advance)
    other = network.connect("10.0.2.1", "tcp", local="10.0.2.2")
    network.simulator.run_until(lambda: other.is_established)
    assert other.subflows[0].segment_bytes == 1448


def test_larger_mtu_is_tried_again_after_ten_minutes() -> None:
    """RFC 1191 §6.3, RFC 8201 §5.3."""
    network = Network(wire=CLEAN)
    near, far = network.establish(V4, "tcp", "tcp")
    path = NarrowPath(network, 1000)
    transfer = Transfer(near, far, 50_000).without_shutdown()
    network.simulator.run_until(transfer.advance)
    subflow = near.subflows[0]
    learnt_us = network.simulator.now_us
    network.simulator.run_for(LIFETIME_US - 10_000_000)
    assert subflow.segment_bytes == 948
    network.simulator.run_for(10_000_000 + learnt_us)
    assert subflow.segment_bytes == 1448
    dropped = path.dropped
    again = Transfer(near, far, 50_000)
    network.simulator.run_until(again.advance)
    again.must_be_intact()
    assert path.dropped > dropped
    assert subflow.segment_bytes == 948


def test_packets_below_the_minimum_may_be_cut_by_routers() -> None:
    network = Network(wire=CLEAN)
    near, far = network.establish(V4, "tcp", "tcp")
    subflow = near.subflows[0]
    network.client.ip.learn_path_mtu(subflow.local, subflow.remote, 300, network.simulator.now_us)
    assert subflow.segment_bytes == 500
    path = NarrowPath(network, 1500)
    transfer = Transfer(near, far, 10_000)
    network.simulator.run_until(transfer.advance)
    assert path.largest_passed == 552
    assert path.may_be_cut >= 20


@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_segments_follow_the_interface(protocol: str) -> None:
    network = Network(wire=CLEAN)
    near, far = network.establish(V4, protocol, protocol)
    ip = network.client.ip
    transfer = Transfer(near, far, 1_000_000)
    network.simulator.run_until(lambda: transfer.advance() or len(transfer.received) > 200_000)
    ip.set_mtu(ip.interfaces[0], 900)
    network.simulator.run_until(lambda: transfer.advance() or len(transfer.received) > 400_000)
    small = near.subflows[0].segment_bytes
    ip.set_mtu(ip.interfaces[0], 1500)
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()
    assert near.subflows[0].segment_bytes == small + 600
    assert network.client.counters["StackDropTooBig"] == 0


@pytest.mark.parametrize("offset", [0, -1, 5000])
def test_forged_error_changes_nothing(offset: int) -> None:
    """RFC 5927 §4.1: the quoted sequence number must be in flight."""
    exchange = established()
    exchange.write(bytes(1000))
    exchange.send("A", 1, 1001)
    forged = replace(error(exchange, IcmpErrorKind.PACKET_TOO_BIG, 1 + offset), mtu=600)
    on_icmp_error(exchange.stack.environment, forged, exchange.now_us)
    assert exchange.subflow.segment_bytes == 1000
    assert exchange.stack.counters["TcpExtOutOfWindowIcmps"] == 1


def test_memory_is_bounded() -> None:
    interface = Interface(2, "eth0", LinkType.RAW_IP, b"", 1500)
    paths = PathMtus()
    for number in range(MAXIMUM_CACHED + 10):
        assert paths.learn(interface, number.to_bytes(4, "big"), 1000, number)
    assert len(paths) == MAXIMUM_CACHED
    assert paths.get(interface, bytes(4)) is None


@pytest.mark.parametrize(
    ("address_bytes", "reports", "mtu", "may_fragment"),
    [
        (4, (1400, 1200), 1200, False),
        (4, (1200, 1400), 1200, False),
        (4, (552,), 552, False),
        (4, (551,), 552, True),
        (4, (68, 1000), 552, True),
        (4, (0,), 552, True),
        (16, (1400, 1280), 1280, False),
        (16, (1400, 1279), 1400, False),
        (16, (0,), None, False),
        (4, (1501,), None, False),
    ],
)
def test_what_reports_make_of_the_estimate(
    address_bytes: int, reports: tuple[int, ...], mtu: int | None, may_fragment: bool
) -> None:
    interface = Interface(2, "eth0", LinkType.RAW_IP, b"", 1500)
    paths = PathMtus()
    for reported in reports:
        paths.learn(interface, bytes(address_bytes), reported, 0)
    known = paths.get(interface, bytes(address_bytes))
    assert (known and known.mtu) == mtu
    assert known is None or known.may_fragment is may_fragment
