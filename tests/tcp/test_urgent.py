"""Urgent data of plain TCP (RFC 9293 §3.8.5) between two stacks; what a peer says of it may be nonsense."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mptcp_stack.mptcp import urgent_reading
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.wire.tcp_options import TcpOptions
from mptcp_stack.wire.tcp_segment import ACK, URG, TcpSegment
from tests.mptcp.attacker import MASK_32, Attacker
from tests.mptcp.network import DEFAULT_WIRE, Network, with_loss


def opened(
    protocol: str = "tcp", *, loss: float = 0.0, gso: int = 0
) -> tuple[Network, Connection, Connection]:
    network = Network(wire=with_loss(loss) if loss else DEFAULT_WIRE, gso_max_size=gso)
    return network, *network.establish(client=protocol, server=protocol)


def read_until(network: Network, far: Connection, length: int) -> list[bytes]:
    """The pieces that reading gives, as it is interrupted."""
    pieces: list[bytes] = []

    def has_all() -> bool:
        piece = far.read(1 << 20)
        if piece:
            pieces.append(piece)
        return sum(map(len, pieces)) == length

    network.simulator.run_until(has_all)
    return pieces


@pytest.mark.parametrize("gso", [0, 65_536])
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_the_last_urgent_byte_is_apart_and_the_rest_in_order(loss: float, gso: int) -> None:
    network, near, far = opened(loss=loss, gso=gso)
    near.write(b"a" * 5_000)
    near.write(b"b" * 4_999 + b"!", urgent=True)
    near.write(b"c" * 5_000)
    network.simulator.run_until(lambda: far.urgent is not None and far.urgent.is_readable)
    assert urgent_reading.read_apart(far) == b"!"
    network.simulator.run_until(lambda: far.readable_bytes >= 14_999)
    assert read_until(network, far, 14_999) == [b"a" * 5_000 + b"b" * 4_999, b"c" * 5_000]
    with pytest.raises(OSError, match="no urgent data"):
        urgent_reading.read_apart(far)


def test_who_wants_it_in_line_gets_all_of_the_stream() -> None:
    network, near, far = opened()
    far.set_socket_options(replace(far.socket_options, urgent_inline=True))
    near.write(b"abc", urgent=True)
    network.simulator.run_until(lambda: far.readable_bytes == 3)
    assert read_until(network, far, 3) == [b"ab", b"c"]


def test_it_means_nothing_to_mptcp() -> None:
    network, near, far = opened("mptcp")
    near.write(b"abc", urgent=True)
    network.simulator.run_until(lambda: far.readable_bytes == 3)
    assert near.urgent is None
    assert far.urgent is None
    assert far.read(10) == b"abc"


def test_the_end_of_the_stream_comes_after_an_urgent_byte_that_nobody_asked_for() -> None:
    network, near, far = opened()
    near.write(b"abc", urgent=True)
    near.shutdown_write()
    network.simulator.run_until(lambda: far.receive_buffer.fin_was_taken)
    assert far.read(10) == b"ab"
    assert not far.readable_bytes
    assert far.read(10) == b""
    assert far.end_of_stream


@pytest.mark.parametrize("pointer", [0, 1, 2, 40_000])
def test_pointers_to_anywhere_do_no_harm(pointer: int) -> None:
    network, near, far = opened()
    attacker = Attacker(network, 1)
    peer = far.subflows[0]
    segment = TcpSegment(
        peer.remote_port,
        peer.local_port,
        peer.rcv_nxt & MASK_32,
        peer.snd_nxt & MASK_32,
        ACK | URG,
        65535,
        TcpOptions(timestamp_value=peer.timestamp_recent, timestamp_echo=0),
    )
    segment.urgent_pointer = pointer
    attacker.inject(network.server, near.local[0], far.local[0], segment)
    with pytest.raises(BlockingIOError):
        urgent_reading.read_apart(far)
    near.write(b"x" * 50_000)
    pieces = read_until(network, far, 49_999)
    assert b"".join(pieces) == b"x" * 49_999
