"""The packet socket against the kernel: super-segments and checksum states in both directions."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mptcp_stack.device.interface import Device, LinkLayer
from mptcp_stack.device.packet_socket import PacketSocket
from mptcp_stack.device.segmentation import complete_checksum, segment_frame
from mptcp_stack.errors import DeviceError
from mptcp_stack.wire.frame import ChecksumState, Frame
from tests.device import namespaces
from tests.device.packets import ACK, CWR, FIN, PSH, tcp_frame, word_sum
from tests.device.tcp_peer import TcpPeer, assert_partial, receive_until

ADDRESSES = {4: ("10.99.0.1", "10.99.0.2"), 6: ("fd99::1", "fd99::2")}
needs_namespaces = pytest.mark.skipif(
    namespaces.missing() is not None, reason=namespaces.missing() or "namespaces can be made"
)


class Pair:
    """Our end's device and namespace, and the kernel's end."""

    def __init__(self, ours: str, theirs: str) -> None:
        self.ours = ours
        self.theirs = theirs
        with namespaces.inside(ours):
            self.device = PacketSocket.open("veth0")
        with namespaces.inside(theirs):
            self.peer = PacketSocket.open("veth0")
        mac = ":".join(f"{byte:02x}" for byte in self.device.mac)
        for own, _ in ADDRESSES.values():
            namespaces.run("ip", "-n", theirs, "neigh", "add", own, "lladdr", mac, "dev", "veth0")

    @property
    def macs(self) -> tuple[bytes, bytes]:
        return self.peer.mac, self.device.mac


@pytest.fixture
def pair() -> Iterator[Pair]:
    with namespaces.veth_pair() as (ours, theirs):
        pair = Pair(ours, theirs)
        try:
            yield pair
        finally:
            pair.device.close()
            pair.peer.close()


def is_ip(frame: Frame) -> bool:
    return bytes(frame.head[12:14]) in (b"\x08\0", b"\x86\xdd")


@pytest.mark.root
@needs_namespaces
def test_describes_its_interface(pair: Pair) -> None:
    namespaces.run("ip", "-n", pair.ours, "link", "set", "veth0", "mtu", "9000")
    with namespaces.inside(pair.ours):
        device: Device = PacketSocket.open("veth0")
    shown = namespaces.run("ip", "-n", pair.ours, "-o", "link", "show", "veth0")
    assert device.mac.hex(":") in shown
    assert (device.name, device.mtu, device.link_layer) == ("veth0", 9000, LinkLayer.ETHERNET)
    device.close()
    assert device.fileno() == -1


@pytest.mark.root
@needs_namespaces
@pytest.mark.parametrize("family", [4, 6])
def test_kernel_leaves_udp_checksums_to_the_device(pair: Pair, family: int) -> None:
    own, remote = ADDRESSES[family]
    with namespaces.inside(pair.theirs):
        sender = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    with sender:
        sender.bind((remote, 0))
        sender.sendto(b"an odd number of bytes!", (own, 9))
    *_, frame = receive_until(pair.device, lambda frame: b"an odd number" in bytes(frame.head))
    assert frame.checksum is ChecksumState.PARTIAL
    assert frame.checksum_offset == 6
    packet = complete_checksum(frame, 14).to_bytes()
    addresses = packet[26:34] if family == 4 else packet[22:54]
    udp = packet[34:] if family == 4 else packet[54:]
    assert word_sum(addresses + bytes((0, 17)) + len(udp).to_bytes(2, "big") + udp) == 0xFFFF


@pytest.mark.root
@needs_namespaces
@pytest.mark.parametrize("family", [4, 6])
def test_super_segments_to_and_from_kernel_tcp(pair: Pair, family: int) -> None:
    own, remote = ADDRESSES[family]
    data = random.Random(family).randbytes(400_000)
    with namespaces.inside(pair.theirs):
        client = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    with client:
        client.setblocking(False)
        client.connect_ex((own, 80))
        peer = TcpPeer(pair.device, own, remote, port=80, macs=pair.macs)
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
        assert longest.gso_size == 1400
        assert longest.is_ipv6 == (family == 6)
        assert_partial(longest)

        assert peer.send_until_read(data[:60_000], 1400, client) == data[:60_000]
    assert pair.device.counters.send_errors == 0
    assert pair.device.counters.receive_errors == 0


@pytest.mark.root
@needs_namespaces
@pytest.mark.parametrize("family", [4, 6])
def test_super_segment_passes_whole_between_packet_sockets(pair: Pair, family: int) -> None:
    payload = random.Random(1).randbytes(65_000)
    frame = tcp_frame(*ADDRESSES[family], payload, gso_size=1400, macs=pair.macs)
    parts = replace(frame, payload=(payload[:1], memoryview(payload)[1:40_000], payload[40_000:]))
    assert pair.device.transmit([parts]) == 1
    received = receive_until(pair.peer, is_ip)[-1]
    assert received == replace(frame, head=frame.to_bytes(), payload=())
    assert pair.device.counters.sent_bytes == pair.device.counters.sent_frames * len(frame)
    # What we send ourselves is not received.
    assert not any(frame.head[6:12] == pair.device.mac for frame in pair.device.receive(64))


@pytest.mark.root
@needs_namespaces
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("length", [1, 1400, 1401, 9999])
def test_software_segmentation_equals_the_kernels(pair: Pair, family: int, length: int) -> None:
    # Without these the kernel has to cut and sum by itself on the way to the other end.
    namespaces.run(
        "ip", "netns", "exec", pair.ours, "ethtool", "-K", "veth0", "tx", "off", "tso", "off", "gso", "off"
    )
    payload = random.Random(length).randbytes(length)
    frame = tcp_frame(
        *ADDRESSES[family],
        payload,
        flags=ACK | PSH | FIN | CWR,
        options=b"\x01\x01\x08\x0a" + bytes(range(8)),
        sequence=0xFFFFF000,
        gso_size=1400,
        identification=0xFFFE,
        macs=pair.macs,
    )
    expected = [segment.to_bytes() for segment in segment_frame(frame, 14)]
    if length <= 1400:
        frame = replace(frame, gso_size=0)
    assert pair.device.transmit([frame]) == 1
    received: list[bytes] = []
    while len(received) < len(expected):
        frames = receive_until(pair.peer, is_ip)
        received += [frame.to_bytes() for frame in frames if is_ip(frame)]
        assert all(frame.gso_size == 0 for frame in frames)
    assert received == expected


@pytest.mark.root
@needs_namespaces
def test_link_down_loses_frames_but_not_the_device(pair: Pair) -> None:
    frame = tcp_frame(*ADDRESSES[4], b"data", macs=pair.macs)
    namespaces.run("ip", "-n", pair.ours, "link", "set", "veth0", "down")
    pair.device.receive(64)
    assert pair.device.transmit([frame, frame]) == 2
    assert pair.device.counters.send_errors == 2
    namespaces.run("ip", "-n", pair.ours, "link", "set", "veth0", "up")
    assert pair.device.transmit([frame]) == 1
    assert receive_until(pair.peer, is_ip)
    assert pair.device.counters.send_errors == 2


@pytest.mark.root
@needs_namespaces
def test_removed_interface_does_not_crash(pair: Pair) -> None:
    frame = tcp_frame(*ADDRESSES[4], b"data", macs=pair.macs)
    namespaces.run("ip", "-n", pair.ours, "link", "del", "veth0")
    pair.device.receive(64)
    assert pair.device.receive(64) == []
    assert pair.device.transmit([frame]) == 1
    assert pair.device.counters.send_errors == 1


@pytest.mark.root
@needs_namespaces
def test_frames_that_never_fit_are_counted(pair: Pair) -> None:
    too_long = tcp_frame(*ADDRESSES[4], bytes(2000), macs=pair.macs)
    no_header = Frame(b"short", gso_size=100, checksum=ChecksumState.PARTIAL)
    fine = tcp_frame(*ADDRESSES[4], b"fine", macs=pair.macs)
    assert pair.device.transmit([too_long, no_header, fine]) == 3
    assert pair.device.counters.send_errors == 2
    assert bytes(receive_until(pair.peer, is_ip)[-1].head).endswith(b"fine")


@pytest.mark.root
@needs_namespaces
def test_receive_is_bounded(pair: Pair) -> None:
    frame = tcp_frame(*ADDRESSES[4], b"data", macs=pair.macs)
    pair.peer.receive(1000)
    pair.device.transmit([frame] * 10)
    assert len(pair.peer.receive(4)) == 4


def test_unknown_interface_is_one_clear_message() -> None:
    with pytest.raises(DeviceError, match=r"^interface no-such-one: "):
        PacketSocket.open("no-such-one")


def test_without_permission_the_message_names_the_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(DeviceError, match="veth0: a packet socket needs CAP_NET_RAW"):
        PacketSocket.open("veth0")
