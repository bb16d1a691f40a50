"""The TUN device against the kernel."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest

from mptcp_stack.device.interface import Device, LinkLayer
from mptcp_stack.device.tun import TunDevice
from mptcp_stack.errors import DeviceError
from mptcp_stack.wire.frame import ChecksumState, Frame
from tests.device import namespaces
from tests.device.packets import tcp_frame
from tests.device.tcp_peer import TcpPeer, assert_partial

ADDRESSES = {4: ("10.98.0.1", "10.98.0.2"), 6: ("fd98::1", "fd98::2")}
needs_namespaces = pytest.mark.skipif(
    namespaces.missing() is not None, reason=namespaces.missing() or "namespaces can be made"
)


@pytest.fixture
def space() -> Iterator[str]:
    with namespaces.namespace() as name:
        yield name


def opened(space: str) -> TunDevice:
    """A TUN interface that is up, with the kernel at the second addresses."""
    with namespaces.inside(space):
        device = TunDevice.open("tun-test")
    namespaces.run("ip", "-n", space, "addr", "add", "10.98.0.2/24", "dev", "tun-test")
    namespaces.run("ip", "-n", space, "addr", "add", "fd98::2/64", "dev", "tun-test", "nodad")
    namespaces.run("ip", "-n", space, "link", "set", "tun-test", "up")
    return device


@pytest.mark.root
@needs_namespaces
@pytest.mark.parametrize("family", [4, 6])
def test_super_segments_to_and_from_kernel_tcp(space: str, family: int) -> None:
    device = opened(space)
    own, remote = ADDRESSES[family]
    data = random.Random(family).randbytes(200_000)
    with namespaces.inside(space):
        client = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    with client:
        client.setblocking(False)
        client.connect_ex((own, 80))
        peer = TcpPeer(device, own, remote, port=80, macs=None)
        assert_partial(peer.accept())
        client.settimeout(10)
        sent = 0
        while sent < len(data):
            count = client.send(data[sent : sent + 60_000])
            peer.receive(sent + count)
            sent += count
        assert peer.received == data
        longest = max(peer.frames, key=len)
        assert len(longest) > 20_000
        assert_partial(longest)
        peer.send(data[:60_000], gso_size=1400)
        echoed = b""
        while len(echoed) < 60_000:
            echoed += client.recv(60_000)
        assert echoed == data[:60_000]
    assert (device.counters.send_errors, device.counters.receive_errors) == (0, 0)
    device.close()


@pytest.mark.root
@needs_namespaces
def test_describes_its_interface_and_goes_with_its_descriptor(space: str) -> None:
    with namespaces.inside(space):
        device: Device = TunDevice.open()
    assert device.name == "tun0"
    assert (device.mtu, device.mac, device.link_layer) == (1500, b"", LinkLayer.RAW_IP)
    device.close()
    device.close()
    assert "tun0" not in namespaces.run("ip", "-n", space, "link")


@pytest.mark.root
@needs_namespaces
def test_interface_that_is_down_loses_packets(space: str) -> None:
    with namespaces.inside(space):
        device = TunDevice.open("tun-test")
    assert device.receive(64) == []
    assert device.transmit([tcp_frame(*ADDRESSES[4], b"data")]) == 1
    assert device.counters.send_errors == 1
    device.close()


@pytest.mark.root
@needs_namespaces
def test_removed_interface_is_a_device_error(space: str) -> None:
    device = opened(space)
    namespaces.run("ip", "-n", space, "link", "del", "tun-test")
    with pytest.raises(DeviceError, match="TUN interface tun-test: "):
        device.receive(64)
    with pytest.raises(DeviceError, match="TUN interface tun-test: "):
        device.transmit([tcp_frame(*ADDRESSES[4], b"data")])
    device.close()


@pytest.mark.root
@needs_namespaces
def test_hostile_frames_are_counted(space: str) -> None:
    device = opened(space)
    frames = [
        Frame(b""),
        Frame(b"\xff" * 40),
        Frame(b"short", gso_size=100, checksum=ChecksumState.PARTIAL),
        Frame(bytes(40), checksum=ChecksumState.PARTIAL, transport_offset=60),
    ]
    assert device.transmit(frames) == 4
    assert device.counters.send_errors == 4
    device.close()


@pytest.mark.root
@needs_namespaces
def test_taken_name_is_one_clear_message(space: str) -> None:
    with namespaces.inside(space):
        device = TunDevice.open("tun-test")
        with pytest.raises(DeviceError, match="TUN interface tun-test: "):
            TunDevice.open("tun-test")
    device.close()


@pytest.mark.parametrize("name", ["", "a-name-of-sixteen"])
def test_impossible_name_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match="1 to 15 bytes"):
        TunDevice.open(name)
