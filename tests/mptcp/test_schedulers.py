"""What tells the schedulers apart, on two paths in virtual time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.errors import ConfigurationError
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.settings import StackSettings, apply_sysctl
from mptcp_stack.wire.addresses import parse_address
from tests.mptcp.network import DEFAULT_WIRE, Network, Transfer, join_all

MESSAGES = 40


def two_paths(
    scheduler: str, first: WireSettings = DEFAULT_WIRE, second: WireSettings = DEFAULT_WIRE
) -> tuple[Network, Connection, Connection]:
    settings = apply_sysctl(StackSettings(), "net.mptcp.scheduler", scheduler)
    network = Network(2, wires=(first, second), settings=settings)
    network.client.path_manager.set_limits(2, 2)
    network.server.path_manager.set_limits(2, 2)
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=frozenset({"subflow"}))
    near, far = network.establish()
    join_all(network, near, far)
    return network, near, far


def carried(connection: Connection) -> list[int]:
    return [subflow.snd_nxt - subflow.snd_iss for subflow in connection.subflows]


def send_messages(network: Network, near: Connection, far: Connection) -> list[int]:
    """Short messages, one after the other: how long each takes."""
    times_us = []
    for number in range(MESSAGES):
        begin_us = network.simulator.now_us
        transfer = Transfer(near, far, 1000, number).without_shutdown()
        network.simulator.run_until(transfer.advance)
        transfer.must_be_intact()
        times_us.append(network.simulator.now_us - begin_us)
        network.simulator.run_for(50_000)
    return times_us


def test_round_robin_shares_evenly_where_the_default_prefers_the_quicker_path() -> None:
    slower = replace(DEFAULT_WIRE, delay_us=6_000)
    shares = {}
    for scheduler in ("default", "roundrobin"):
        network, near, far = two_paths(scheduler, second=slower)
        before = carried(near)
        send_messages(network, near, far)
        shares[scheduler] = [now - then for now, then in zip(carried(near), before, strict=True)]
    assert shares["default"] == [MESSAGES * 1000, 0]
    assert shares["roundrobin"] == [MESSAGES * 500] * 2


def test_round_robin_shares_a_long_transfer_on_equal_paths() -> None:
    network, near, far = two_paths("roundrobin")
    transfer = Transfer(near, far, 2_000_000)
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()
    first, second = carried(near)
    assert first == pytest.approx(second, rel=0.1)


def test_redundant_is_not_delayed_by_the_loss_on_one_path() -> None:
    """Without copies a lost message waits for a retransmission."""
    slowest_us = {}
    for scheduler in ("default", "redundant"):
        network, near, far = two_paths(scheduler, second=replace(DEFAULT_WIRE, delay_us=7_000))
        # Else a copy under way would delay the next message (RFC 9293 §3.7.4).
        near.set_socket_options(replace(near.socket_options, no_delay=True))
        link = network.simulator.links()["1"]
        link.forward.settings = replace(link.forward.settings, loss=0.3)
        slowest_us[scheduler] = max(send_messages(network, near, far))
    assert slowest_us["redundant"] < 10_000 < 100_000 < slowest_us["default"]


def test_redundant_copies_what_there_is_room_for_in_a_long_transfer() -> None:
    network, near, far = two_paths("redundant", second=replace(DEFAULT_WIRE, loss=0.02))
    transfer = Transfer(near, far, 1_000_000)
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()
    assert sum(carried(near)) > 1_010_000


def test_an_unknown_scheduler_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="default, roundrobin, redundant"):
        apply_sysctl(StackSettings(), "net.mptcp.scheduler", "fastest")
