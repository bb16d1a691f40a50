"""TCP_USER_TIMEOUT (RFC 5482) of an MPTCP connection holds for each of its subflows, as other TCP options do.

Linux has it for TCP sockets only.
"""

from __future__ import annotations

import socket
import struct

from mptcp_stack.sockets.options import set_option
from mptcp_stack.wire.addresses import parse_address
from tests.mptcp.network import Network, Transfer, join_all

SUBFLOW = frozenset({"subflow"})


def test_a_silent_subflow_is_given_up_in_time_and_the_connection_goes_on() -> None:
    network = Network(2)
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=SUBFLOW)
    near, far = network.establish()
    # Before the join: it holds for subflows that come later as well.
    set_option(near, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, struct.pack("=i", 3_000))
    join_all(network, near, far)
    joined = near.subflows[1]
    transfer = Transfer(near, far, 4_000_000)
    network.simulator.run_until(lambda: transfer.advance() or len(joined.retransmission_queue) > 2)
    network.simulator.set_link("2", up=False)
    cut_us = network.simulator.now_us
    network.simulator.run_until(lambda: joined not in near.subflows)
    # Counted from the first timeout, as for TCP.
    assert 3_000_000 <= network.simulator.now_us - cut_us < 3_600_000
    assert network.client.counters["TcpExtTCPAbortOnTimeout"] == 1
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()
