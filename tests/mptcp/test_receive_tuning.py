"""The receive buffer follows what the path and the application can take (dynamic right-sizing)."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace

import pytest

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.errors import ConfigurationError
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.settings import StackSettings, apply_sysctl, read_sysctl
from mptcp_stack.sockets.options import get_option, set_option
from tests.mptcp.network import Network, Transfer

V4 = "10.0.1.1"
FIRST_WINDOW = 65_536
LONG_FAT = WireSettings(rate_bit_s=100_000_000, delay_us=50_000, queue_limit_packets=1000)
"""What is in flight is 1.25 MB when the link is full."""


def opened(
    settings: StackSettings | None = None, wire: WireSettings = LONG_FAT, protocol: str = "mptcp"
) -> tuple[Network, Connection, Connection]:
    network = Network(wire=wire, settings=settings or StackSettings(), gso_max_size=65536)
    return network, *network.establish(V4, protocol, protocol)


def rate_bit_s(network: Network, near: Connection, far: Connection, length: int) -> float:
    start_us = network.simulator.now_us
    transfer = Transfer(near, far, length).without_shutdown()
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()
    return length * 8 * 1_000_000 / (network.simulator.now_us - start_us - LONG_FAT.delay_us)


@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
@pytest.mark.parametrize("timestamps", [True, False])
def test_a_long_fat_path_is_filled(protocol: str, timestamps: bool) -> None:
    network, near, far = opened(StackSettings(tcp_timestamps=timestamps), protocol=protocol)
    assert far.receive_buffer.limit == FIRST_WINDOW
    rate_bit_s(network, near, far, 5_000_000)
    assert rate_bit_s(network, near, far, 4_000_000) > 80_000_000
    assert 1_250_000 < far.receive_buffer.limit <= 3 << 20


def test_without_tuning_the_first_window_bounds_the_rate() -> None:
    network, near, far = opened(StackSettings(tcp_moderate_rcvbuf=False))
    assert rate_bit_s(network, near, far, 2_000_000) < 1.1 * FIRST_WINDOW * 8 / 0.1
    assert far.receive_buffer.limit == FIRST_WINDOW


def test_a_clamp_bounds_what_is_offered() -> None:
    network, near, far = opened()
    set_option(far, socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, struct.pack("=i", 20_000))
    transfer = Transfer(near, far, 1_000_000).without_shutdown()
    network.simulator.run_until(lambda: transfer.advance() or transfer.offset > 400_000)
    assert far.receive_buffer.window() <= 20_000
    assert struct.unpack("=i", get_option(far, socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP)) == (20_000,)


def test_windows_rise_with_the_data_that_comes() -> None:
    """Twice as much as came, once the buffer is larger (tcp_grow_window)."""
    network, near, far = opened()
    transfer = Transfer(near, far, 5_000_000).without_shutdown()
    network.simulator.run_until(lambda: transfer.advance() or far.receive_buffer.limit > FIRST_WINDOW)
    limit, offered, received = far.receive_buffer.limit, far.receive_buffer.window(), len(transfer.received)
    assert offered < limit // 2
    network.simulator.run_until(lambda: transfer.advance() or far.receive_buffer.window() >= limit)
    assert len(transfer.received) - received >= (limit - offered) // 2 - 2 * 65536


def test_the_largest_buffer_of_the_host_is_the_limit() -> None:
    network, near, far = opened(StackSettings(tcp_rmem=(4096, 131_072, 400_000)))
    rate_bit_s(network, near, far, 5_000_000)
    assert far.receive_buffer.limit == 200_000


@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_a_large_first_buffer_is_offered_whole(protocol: str) -> None:
    """What a SYN can tell, 64 KB, does not bound the connection."""
    settings = StackSettings(tcp_rmem=(4096, 6_291_456, 6_291_456), tcp_moderate_rcvbuf=False)
    network, near, far = opened(settings, protocol=protocol)
    assert 3_000_000 < far.receive_buffer.window() <= 6_291_456 >> 1
    assert rate_bit_s(network, near, far, 5_000_000) > 5 * FIRST_WINDOW * 8 / 0.1


def test_what_the_application_fixes_stays() -> None:
    network, near, far = opened()
    far.set_socket_options(replace(far.socket_options, receive_buffer_bytes=400_000))
    assert far.receive_buffer.limit == 200_000
    rate_bit_s(network, near, far, 2_000_000)
    assert far.receive_buffer.limit == 200_000


@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_a_larger_buffer_is_offered_as_data_comes(protocol: str) -> None:
    """As in Linux: two segments more with each that comes, up to what the new buffer holds."""
    network, near, far = opened(protocol=protocol)
    before = far.receive_buffer.right_edge - far.receive_buffer.next_position
    far.set_socket_options(replace(far.socket_options, receive_buffer_bytes=400_000))
    assert far.receive_buffer.window() == before
    near.write(bytes(10_000))
    network.simulator.run_until(lambda: far.readable_bytes == 10_000)
    far.read(10_000)
    assert before < far.receive_buffer.offered_limit < 200_000
    rate_bit_s(network, near, far, 2_000_000)
    assert far.receive_buffer.offered_limit == 200_000


@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_what_a_syn_offered_is_taken(protocol: str) -> None:
    """Before the passive side has sent anything but its SYN/ACK."""
    network, near, far = opened(protocol=protocol)
    far.set_socket_options(replace(far.socket_options, receive_buffer_bytes=4_000))
    rate_bit_s(network, near, far, 100_000)


def test_a_smaller_buffer_takes_back_nothing_that_was_offered() -> None:
    network, near, far = opened()
    edge = far.receive_buffer.right_edge
    far.set_socket_options(replace(far.socket_options, receive_buffer_bytes=20_000))
    assert far.receive_buffer.right_edge == edge
    rate_bit_s(network, near, far, 300_000)
    assert far.receive_buffer.window() <= 10_000


def test_who_does_not_read_gets_no_more_room() -> None:
    network, near, far = opened()
    near.write(bytes(1_000_000))
    network.simulator.run_for(20_000_000)
    assert far.receive_buffer.limit == FIRST_WINDOW
    assert FIRST_WINDOW - 1500 < far.readable_bytes <= FIRST_WINDOW


def test_a_slow_path_needs_no_larger_buffer() -> None:
    slow = replace(LONG_FAT, rate_bit_s=1_000_000, delay_us=10_000)
    network, near, far = opened(wire=slow)
    rate_bit_s(network, near, far, 500_000)
    # The queue makes the path long, so that twice what fits in it is right.
    assert far.receive_buffer.limit <= 5 * FIRST_WINDOW


def test_sizes_are_read_as_they_are_written() -> None:
    changed = apply_sysctl(StackSettings(), "net.ipv4.tcp_rmem", "4096 20000 33554432")
    assert changed.tcp_rmem == (4096, 20_000, 33_554_432)
    assert changed.receive_window_scale == 10
    assert read_sysctl(changed, "net.ipv4.tcp_rmem").split() == ["4096", "20000", "33554432"]
    for wrong in ("1 2", "3 2 1", "0 1 2", "a b c", f"1 2 {1 << 31}"):
        with pytest.raises(ConfigurationError, match="expected three numbers"):
            apply_sysctl(changed, "net.ipv4.tcp_rmem", wrong)
