"""Data that waits for subflows from which nothing comes any more: backups take over (RFC 8684 §3.3.8)."""

from __future__ import annotations

import pytest

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.wire.addresses import parse_address
from tests.mptcp.network import Network, Transfer, join_all


@pytest.mark.parametrize(("rate_bit_s", "received"), [(1_000_000, 200_000), (2_000_000, 600_000)])
def test_a_backup_takes_over_when_all_others_fall_silent(rate_bit_s: int, received: int) -> None:
    """All that they had on the way has been sent again soon, for windows are small: only new data is left."""
    wire = WireSettings(delay_us=5_000, rate_bit_s=rate_bit_s, queue_limit_packets=20)
    network = Network(3, wire=wire)
    for link, flags in ((2, {"subflow"}), (3, {"subflow", "backup"})):
        network.client.path_manager.add_endpoint(parse_address(f"10.0.{link}.2"), flags=frozenset(flags))
    near, far = network.establish()
    join_all(network, near, far, 3)
    transfer = Transfer(near, far, 2_000_000).without_shutdown()
    network.simulator.run_until(lambda: transfer.advance() or len(transfer.received) > received)
    for link in (1, 2):
        network.simulator.links()[str(link)].set_up(False)
    network.simulator.run_until(transfer.advance)
    assert network.client.counters["MPTcpExtSubflowStale"] == 2


def test_a_window_is_probed_though_something_is_on_its_way_over_a_silent_path() -> None:
    """No answer to that will ever tell that the window has opened (RFC 9293 §3.8.6.1)."""
    network = Network(2)
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=frozenset({"subflow"}))
    near, far = network.establish()
    join_all(network, near, far)
    transfer = Transfer(near, far, 2_000_000).without_shutdown()
    first, second = (network.simulator.links()[name] for name in ("1", "2"))
    network.simulator.run_until(lambda: transfer.advance() or len(transfer.received) > 200_000)
    first.set_up(False)

    def is_full() -> bool:
        """Nobody reads; all that the window takes came over the other path."""
        transfer.offset += near.write(transfer.data[transfer.offset :][: 1 << 17])
        is_taken = near.send_buffer.window_edge == near.send_buffer.nxt == near.send_buffer.una
        return is_taken and near.subflows[0].is_stale

    network.simulator.run_until(is_full)
    second.backward.is_up = False
    transfer.advance()
    network.simulator.run_for(50_000)
    second.backward.is_up = True
    assert len(near.subflows[0].retransmission_queue)
    network.simulator.run_until(transfer.advance, limit_us=20_000_000)
    transfer.must_be_intact()


def test_who_comes_last_is_found_to_be_silent_while_others_are_idle() -> None:
    """The window is full of what waits for the second path, so that the first one has nothing to do."""
    wires = tuple(
        WireSettings(delay_us=delay_us, rate_bit_s=50_000_000, queue_limit_packets=400)
        for delay_us in (1_000, 50_000)
    )
    network = Network(2, wires=wires)
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=frozenset({"subflow"}))
    near, far = network.establish()
    join_all(network, near, far)
    transfer = Transfer(near, far, 6_000_000).without_shutdown()
    joined = near.subflows[1]
    network.simulator.run_until(
        lambda: transfer.advance() or joined.retransmission_queue.bytes_in_flight > 300_000
    )
    network.simulator.links()["2"].set_up(False)
    network.simulator.run_until(transfer.advance, limit_us=10_000_000)
    assert network.client.counters["MPTcpExtSubflowStale"] == 1
    transfer.must_be_intact()
