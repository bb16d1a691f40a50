"""Paths that swallow large packets without a word are found out and used to the full (RFC 4821)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.settings import StackSettings
from tests.mptcp.network import DEFAULT_WIRE, Network, Transfer, both_ways
from tests.mptcp.router import NarrowPath

V4, V6 = "10.0.1.1", "fd00:1::1"
CLEAN = replace(DEFAULT_WIRE, queue_limit_packets=10_000)
PROBING = StackSettings(tcp_mtu_probing=1)
PATH_MTU = 1280


def send(network: Network, near: Connection, far: Connection, length: int) -> None:
    network.simulator.run_until(Transfer(near, far, length).without_shutdown().advance)


def narrow(settings: StackSettings, gso_max_size: int = 0, links: int = 1) -> tuple[Network, NarrowPath]:
    network = Network(links, wire=CLEAN, settings=settings, gso_max_size=gso_max_size)
    return network, NarrowPath(network, PATH_MTU, silent=True)


@pytest.mark.parametrize("gso_max_size", [0, 65536])
@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
@pytest.mark.parametrize("address", [V4, V6])
def test_transfer_through_a_black_hole(address: str, protocol: str, gso_max_size: int) -> None:
    network, path = narrow(PROBING, gso_max_size)
    near, far = network.establish(address, protocol, protocol)
    both_ways(network, near, far, 1_000_000)
    counters = network.client.counters
    assert counters["TcpExtTCPMTUPSuccess"] > 0
    assert counters["TcpExtTCPMTUPFail"] > 0
    # All but what no probe of a difference that small is worth.
    assert PATH_MTU - PROBING.tcp_probe_threshold < path.largest_passed <= PATH_MTU


def test_without_probing_nothing_gets_through() -> None:
    network, path = narrow(StackSettings())
    near, far = network.establish(V4, "tcp", "tcp")
    transfer = Transfer(near, far, 100_000)
    transfer.advance()
    network.simulator.run_for(60_000_000)
    assert path.dropped > 10
    assert far.readable_bytes == 0


def test_no_timeout_comes_from_probes() -> None:
    """Once the hole is found, what probes lose is repeated at once and the window stays as it is."""
    network, path = narrow(PROBING)
    near, far = network.establish(V4, "tcp", "tcp")
    send(network, near, far, 20_000)
    timeouts, dropped = network.client.counters["TcpExtTCPTimeouts"], path.dropped
    send(network, near, far, 3_000_000)
    assert path.dropped > dropped
    assert network.client.counters["TcpExtTCPTimeouts"] == timeouts
    assert network.client.counters["TcpExtTCPSackRecovery"] == 0


def test_a_path_that_got_wider_is_found_after_a_while() -> None:
    network, path = narrow(replace(PROBING, tcp_probe_interval_us=60_000_000))
    near, far = network.establish(V4, "tcp", "tcp")
    send(network, near, far, 2_000_000)
    path.mtu = 1500
    network.simulator.run_for(61_000_000)
    send(network, near, far, 1_000_000)
    assert path.largest_passed > 1500 - PROBING.tcp_probe_threshold


def test_probing_from_the_start_needs_no_timeout() -> None:
    network, path = narrow(StackSettings(tcp_mtu_probing=2))
    near, far = network.establish(V4, "tcp", "tcp")
    send(network, near, far, 1_000_000)
    assert network.client.counters["TcpExtTCPTimeouts"] == 0
    assert path.largest_passed > PATH_MTU - PROBING.tcp_probe_threshold
