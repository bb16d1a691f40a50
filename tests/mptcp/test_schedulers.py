"""What tells the schedulers apart, on two paths in virtual time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.errors import ConfigurationError
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.schedulers.blest import Blest
from mptcp_stack.settings import StackSettings, apply_sysctl
from mptcp_stack.tcp.retransmission_queue import Mapping
from mptcp_stack.wire.addresses import parse_address
from tests.mptcp.network import DEFAULT_WIRE, Network, Transfer, join_all

MESSAGES = 40
SLOW = replace(DEFAULT_WIRE, delay_us=60_000)


def two_paths(
    scheduler: str,
    first: WireSettings = DEFAULT_WIRE,
    second: WireSettings = DEFAULT_WIRE,
    receive_buffer_bytes: int = 6 << 20,
) -> tuple[Network, Connection, Connection]:
    settings = apply_sysctl(StackSettings(), "net.mptcp.scheduler", scheduler)
    settings = replace(settings, receive_buffer_bytes=receive_buffer_bytes)
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


def send_at_once(network: Network, near: Connection, far: Connection, length: int) -> tuple[int, list[int]]:
    """How long it takes, and what each subflow carries of it."""
    before, begin_us = carried(near), network.simulator.now_us
    transfer = Transfer(near, far, length).without_shutdown()
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()
    shares = [now - then for now, then in zip(carried(near), before, strict=True)]
    return network.simulator.now_us - begin_us, shares


def test_default_keeps_a_burst_together_and_shares_what_is_more() -> None:
    _, burst = send_at_once(*two_paths("default"), 40_000)
    assert burst == [40_000, 0]
    _, shares = send_at_once(*two_paths("default"), 2_000_000)
    assert shares[0] == pytest.approx(shares[1], rel=0.15)


def test_default_takes_the_idle_first_subflow_however_slow_it_is() -> None:
    """As Linux does: nothing is on its way, so each would be done at once."""
    network, near, far = two_paths("default", first=replace(DEFAULT_WIRE, delay_us=20_000))
    before = carried(near)
    send_messages(network, near, far)
    assert [now - then for now, then in zip(carried(near), before, strict=True)] == [MESSAGES * 1000, 0]


def test_lowest_rtt_takes_the_quicker_subflow() -> None:
    network, near, far = two_paths("lowestrtt", first=replace(DEFAULT_WIRE, delay_us=20_000))
    before = carried(near)
    send_messages(network, near, far)
    assert [now - then for now, then in zip(carried(near), before, strict=True)] == [0, MESSAGES * 1000]


def test_blest_leaves_a_slow_path_alone_that_would_block_the_window() -> None:
    wires = (
        replace(DEFAULT_WIRE, rate_bit_s=20_000_000),
        replace(DEFAULT_WIRE, delay_us=100_000, rate_bit_s=5_000_000),
    )
    times_us, shares = {}, {}
    for scheduler in ("roundrobin", "lowestrtt", "blest"):
        times_us[scheduler], shares[scheduler] = send_at_once(
            *two_paths(scheduler, *wires, receive_buffer_bytes=128_000), 1_000_000
        )
    assert shares["blest"] == [1_000_000, 0]
    assert 1.2 * times_us["blest"] < times_us["lowestrtt"] < times_us["roundrobin"]
    _, with_room = send_at_once(*two_paths("blest", *wires), 1_000_000)
    assert with_room[1] > 20_000


def test_blest_grows_more_careful_while_data_must_be_sent_again() -> None:
    _, near, _ = two_paths("blest", second=SLOW)
    scheduler = near.scheduler
    assert isinstance(scheduler, Blest)
    quick, slow = near.subflows
    near.send_buffer.write(bytes(1_000_000))
    quick.send_data((bytes(20_000),), 20_000, Mapping(2, 2, 20_000), False, 0)
    scales = []
    for _ in range(30):
        near.environment.timers.clock_us += 1_000_000
        near.data_retransmissions += 1
        scheduler.choose([quick, slow], for_reinjection=False)
        scales.append(scheduler.scale_percent)
    assert scales == sorted(scales)
    assert scales[-1] == 130
    for _ in range(50):
        near.environment.timers.clock_us += 1_000_000
        scheduler.choose([quick, slow], for_reinjection=False)
    assert scheduler.scale_percent == 100


def test_ecf_waits_for_the_quick_path_when_that_is_done_first() -> None:
    times_us, shares = {}, {}
    for scheduler in ("lowestrtt", "ecf"):
        network, near, far = two_paths(scheduler, second=SLOW)
        times_us[scheduler], shares[scheduler] = send_at_once(network, near, far, 100_000)
    assert shares["ecf"] == [100_000, 0]
    assert shares["lowestrtt"][1] > 10_000
    assert times_us["ecf"] < 40_000 < 60_000 < times_us["lowestrtt"]


def test_ecf_uses_the_slow_path_for_what_the_quick_one_takes_long_for() -> None:
    quick = replace(DEFAULT_WIRE, rate_bit_s=5_000_000)
    _, shares = send_at_once(*two_paths("ecf", quick, SLOW), 2_000_000)
    assert shares[1] > 200_000


def test_round_robin_shares_evenly() -> None:
    network, near, far = two_paths("roundrobin", second=replace(DEFAULT_WIRE, delay_us=6_000))
    before = carried(near)
    send_messages(network, near, far)
    assert [now - then for now, then in zip(carried(near), before, strict=True)] == [MESSAGES * 500] * 2


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
    with pytest.raises(ConfigurationError, match="default, lowestrtt, roundrobin, redundant, blest, ecf"):
        apply_sysctl(StackSettings(), "net.mptcp.scheduler", "fastest")
