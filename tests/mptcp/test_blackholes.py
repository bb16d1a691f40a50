"""RFC 8684 §3.9.3: what is remembered of paths that drop MP_CAPABLE."""

from __future__ import annotations

import pytest

from mptcp_stack.counters import Counters
from mptcp_stack.mptcp.blackholes import BlackholeMemory
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.settings import StackSettings, apply_sysctl
from tests.mptcp.network import Network

HOUR_US = 3600 * 1_000_000
TIMEOUT = "net.mptcp.blackhole_timeout"


def drop_capable(network: Network, *, drops: bool = True, also_first_plain: bool = False) -> None:
    forward = network.simulator.links()["1"].forward
    seen_plain: list[int] = []

    def is_dropped(frame: bytes, index: int) -> bool:
        if b"\x1e\x04\x01" in frame:
            return drops
        if also_first_plain and len(frame) > 66 and not seen_plain:
            seen_plain.append(index)
            return True
        return False

    forward.drop_if = is_dropped


def connect_again(network: Network) -> Connection:
    near = network.connect()
    network.simulator.run_until(lambda: near.is_established)
    return near


def test_connections_after_a_blackhole_are_plain_at_once() -> None:
    network = Network()
    drop_capable(network)
    network.establish()
    counters = network.client.counters
    assert counters["MPTcpExtBlackhole"] == counters["MPTcpExtMPCapableSYNTXDrop"] == 1
    began_us = network.simulator.now_us
    near = connect_again(network)
    assert not near.is_mptcp
    assert network.simulator.now_us - began_us < 500_000
    assert counters["MPTcpExtMPCapableSYNTXDisabled"] == 1
    assert counters["MPTcpExtMPCapableSYNTX"] == 1
    assert counters["MPTcpExtMPCapableFallbackSYNACK"] == 0


def test_after_the_timeout_mptcp_is_tried_again() -> None:
    network = Network(settings=apply_sysctl(StackSettings(), TIMEOUT, "2"))
    drop_capable(network)
    network.establish()
    network.simulator.run_for(2_100_000)
    network.client.handle_deadline(network.simulator.now_us)
    drop_capable(network, drops=False)
    near = connect_again(network)
    assert near.is_mptcp
    assert network.client.counters["MPTcpExtMPCapableSYNTXDisabled"] == 0
    assert not network.client.blackholes.pauses_mptcp(2_000_000, 0), "success forgets it"


def test_timeout_of_zero_remembers_nothing() -> None:
    network = Network(settings=apply_sysctl(StackSettings(), TIMEOUT, "0"))
    drop_capable(network)
    network.establish()
    drop_capable(network, drops=False)
    assert connect_again(network).is_mptcp
    assert network.client.counters["MPTcpExtBlackhole"] == 0


def test_loss_of_the_plain_syn_too_is_no_blackhole() -> None:
    network = Network()
    drop_capable(network, also_first_plain=True)
    near, _ = network.establish()
    assert not near.is_mptcp
    assert network.client.counters["MPTcpExtMPCapableSYNTXDrop"] == 1
    assert network.client.counters["MPTcpExtBlackhole"] == 0


@pytest.mark.parametrize(("detections", "hours"), [(1, 1), (2, 2), (3, 4), (7, 64), (20, 64)])
def test_pause_doubles_up_to_64_times(detections: int, hours: int) -> None:
    memory, counters = BlackholeMemory(), Counters()
    for _ in range(detections):
        memory.on_detected(HOUR_US, 5, counters)
    assert counters["MPTcpExtBlackhole"] == detections
    assert memory.pauses_mptcp(HOUR_US, 4 + hours * HOUR_US)
    assert not memory.pauses_mptcp(HOUR_US, 5 + hours * HOUR_US)


def test_another_timeout_forgets() -> None:
    memory = BlackholeMemory()
    memory.on_detected(HOUR_US, 0, Counters())
    assert not memory.pauses_mptcp(2 * HOUR_US, 1)
    assert not memory.pauses_mptcp(HOUR_US, 1)
