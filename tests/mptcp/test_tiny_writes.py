"""An application that writes byte by byte, on a path that loses: what the receiver holds stays small."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.settings import StackSettings
from mptcp_stack.tcp.reassembly import most_pieces
from tests.mptcp.network import Network

LOSSY = WireSettings(delay_us=5_000, rate_bit_s=50_000_000, queue_limit_packets=5000, loss=0.02)


@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_all_of_it_arrives_and_finds_room(protocol: str) -> None:
    """The sender's window is one of packets, however small they are, so that few are on their way at once."""
    network = Network(wire=LOSSY, seed=3, settings=StackSettings(tcp_rmem=(4096, 65536, 65536)))
    near, far = network.establish(client=protocol, server=protocol)
    near.set_socket_options(replace(near.socket_options, no_delay=True))
    data = bytes(number % 251 for number in range(3000))
    received = bytearray()
    written = 0

    def advance() -> bool:
        nonlocal written
        # One call of the stack for each byte, so that each is a segment.
        for _ in range(200):
            if written < len(data) and near.write(data[written : written + 1]):
                written += 1
                near.dispatch(network.simulator.now_us)
        received.extend(far.read(1 << 16))
        for subflow in far.subflows:
            assert subflow.reassembly.piece_count <= most_pieces(far.receive_buffer.limit)
            assert len(subflow.mappings) <= 1 + most_pieces(far.receive_buffer.limit)
        return len(received) == len(data)

    network.simulator.run_until(advance)
    assert received == data
    assert not network.server.counters["StackDropReceiveQueueFull"]
    assert network.client.counters["TcpOutSegs"] < len(data) // 2
