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
