"""Mechanisms 1 and 2 of NSDI 2012, on a model of its paths: Wi-Fi and a mobile network with deep queues."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.mptcp import opportunism
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.settings import StackSettings, apply_sysctl
from mptcp_stack.wire.addresses import parse_address
from tests.mptcp.network import Network, join_all
from tests.mptcp.test_schedulers import send_at_once

QUICK = WireSettings(delay_us=10_000, rate_bit_s=8_000_000, queue_limit_packets=20)
SLOW = WireSettings(delay_us=75_000, rate_bit_s=2_000_000, queue_limit_packets=330)
RETRANSMISSION = "net.mptcp.opportunistic_retransmission"
PENALISATION = "net.mptcp.penalise_slow_subflows"


def connect(*switched_on: str, receive_buffer_bytes: int) -> tuple[Network, Connection, Connection]:
    settings = replace(StackSettings(), receive_buffer_bytes=receive_buffer_bytes)
    for name in switched_on:
        settings = apply_sysctl(settings, name, "1")
    network = Network(2, wires=(QUICK, SLOW), settings=settings)
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=frozenset({"subflow"}))
    near, far = network.establish()
    join_all(network, near, far)
    return network, near, far


def megabits_per_second(*switched_on: str, receive_buffer_bytes: int) -> float:
    time_us, _ = send_at_once(*connect(*switched_on, receive_buffer_bytes=receive_buffer_bytes), 4_000_000)
    return 32_000_000 / time_us


@pytest.mark.parametrize("receive_buffer_bytes", [100_000, 200_000])
def test_both_together_make_small_windows_do(receive_buffer_bytes: int) -> None:
    without = megabits_per_second(receive_buffer_bytes=receive_buffer_bytes)
    both = megabits_per_second(RETRANSMISSION, PENALISATION, receive_buffer_bytes=receive_buffer_bytes)
    assert both > 1.6 * without


def test_retransmission_alone_copies_what_blocks_and_harms_nobody() -> None:
    network, near, far = connect(RETRANSMISSION, receive_buffer_bytes=100_000)
    slow_window = near.subflows[1].congestion.congestion_window
    _, shares = send_at_once(network, near, far, 1_000_000)
    assert network.client.counters["MPTcpExtMPTCPRetrans"] > 20
    assert sum(shares) > 1_000_000, "the copies were sent besides"
    assert near.subflows[1].congestion.congestion_window >= slow_window


def test_neither_happens_by_default() -> None:
    network, near, far = connect(receive_buffer_bytes=100_000)
    send_at_once(network, near, far, 300_000)
    assert network.client.counters["MPTcpExtMPTCPRetrans"] == 0


def test_penalty_comes_once_in_a_round_trip_of_the_quick_subflow() -> None:
    network, near, far = connect(PENALISATION, receive_buffer_bytes=100_000)
    quick, slow = near.subflows
    send_at_once(network, near, far, 10_000)
    network.simulator.run_for(1_000_000)
    slow.penalised_at_us = 0
    near.send_buffer.write(bytes(1000))
    near.send_buffer.take(1000, slow)
    near.send_buffer.window_edge = near.send_buffer.nxt
    slow.congestion.congestion_window = 16 * slow.segment_bytes
    now_us, windows = network.simulator.now_us, []
    half_us = ((quick.round_trip.srtt_us or 0) + 1) // 2
    for step in range(5):
        assert not opportunism.unblock(near, quick, now_us + step * half_us)
        windows.append(slow.congestion.congestion_window // slow.segment_bytes)
    assert windows == [8, 8, 4, 4, 2]
    slow.congestion.congestion_window = slow.segment_bytes
    opportunism.unblock(near, quick, now_us + 1_000_000)
    assert slow.congestion.congestion_window == slow.segment_bytes
