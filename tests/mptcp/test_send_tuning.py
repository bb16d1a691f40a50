"""The send buffer follows the congestion windows of the subflows (tcp_sndbuf_expand), unless it is fixed."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace

import pytest

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.mptcp.send_buffer import PIECE_BYTES
from mptcp_stack.settings import StackSettings, apply_sysctl, read_sysctl
from mptcp_stack.sockets.options import get_option, set_option
from tests.mptcp.network import Network, Transfer

SO_SNDBUF, SO_SNDBUFFORCE = int(socket.SO_SNDBUF), 32
FIRST_BYTES = 20 * (2048 + 256)
"""Of a connection with segments of 1460 bytes."""
LONG_FAT = WireSettings(rate_bit_s=100_000_000, delay_us=50_000, queue_limit_packets=1000)


def test_it_grows_with_the_window_up_to_the_largest() -> None:
    settings = StackSettings(tcp_wmem=(4096, 16384, 1 << 20))
    network = Network(wire=LONG_FAT, settings=settings)
    near, far = network.establish()
    assert near.send_buffer.limit == 4096 + FIRST_BYTES
    transfer = Transfer(near, far, 3_000_000)
    network.simulator.run_until(transfer.advance)
    assert near.send_buffer.limit == 4096 + (1 << 20)
    assert far.send_buffer.limit == 4096 + FIRST_BYTES


def test_nothing_grows_while_nobody_waits() -> None:
    network = Network(wire=LONG_FAT)
    near, far = network.establish(client="tcp", server="tcp")
    for _ in range(10):
        assert near.write(bytes(20_000)) == 20_000
        network.simulator.run_until(lambda: not near.unacknowledged_bytes)
        far.read(1 << 20)
    assert near.subflows[0].congestion.congestion_window > 20_000
    assert near.send_buffer.limit == FIRST_BYTES


def test_what_the_application_fixes_stays() -> None:
    network = Network(wire=LONG_FAT)
    near, far = network.establish()
    set_option(near, socket.SOL_SOCKET, SO_SNDBUF, struct.pack("=i", 60_000))
    assert near.write(bytes(500_000)) == -(-120_000 // PIECE_BYTES) * PIECE_BYTES
    network.simulator.run_until(lambda: far.readable_bytes > 60_000)
    assert near.send_buffer.limit == 120_000


@pytest.mark.parametrize(
    ("wanted", "gets"), [(0, 4608), (5_000, 10_000), (10**6, 300_000), (-1, 300_000), (150_000, 300_000)]
)
def test_a_wish_is_doubled_and_bounded(wanted: int, gets: int) -> None:
    network = Network(settings=StackSettings(wmem_max=150_000))
    near, _ = network.establish()
    set_option(near, socket.SOL_SOCKET, SO_SNDBUF, struct.pack("=i", wanted))
    assert struct.unpack("=i", get_option(near, socket.SOL_SOCKET, SO_SNDBUF)) == (gets,)


def test_who_may_force_it_is_not_bounded() -> None:
    near, _ = Network(settings=StackSettings(wmem_max=1000)).establish()
    set_option(near, socket.SOL_SOCKET, SO_SNDBUFFORCE, struct.pack("=i", 10**6))
    assert near.send_buffer.limit == 2 * 10**6


def test_writers_go_on_when_a_third_is_free() -> None:
    network = Network(wire=WireSettings(delay_us=5_000, rate_bit_s=1_000_000, queue_limit_packets=100))
    near, _ = network.establish()
    set_option(near, socket.SOL_SOCKET, SO_SNDBUF, struct.pack("=i", 15_000))
    assert near.write(bytes(30_000)) == 30_000
    network.simulator.run_until(near.check_writable)
    assert 20_000 - 2 * 1460 < near.unacknowledged_bytes <= 20_000


def test_who_waits_on_a_closed_connection_goes_on() -> None:
    near, _ = Network().establish()
    near.write(bytes(200_000))
    assert not near.check_writable()
    near.shutdown_write()
    assert near.check_writable()


def test_the_sysctls_of_the_host() -> None:
    settings = apply_sysctl(StackSettings(), "net.ipv4.tcp_wmem", "4096 20000 100000")
    assert settings == replace(StackSettings(), tcp_wmem=(4096, 20_000, 100_000))
    assert read_sysctl(settings, "net.ipv4.tcp_wmem") == "4096\t20000\t100000"
    assert read_sysctl(settings, "net.core.wmem_max") == "212992"
