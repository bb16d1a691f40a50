"""Capture files, read back by independent programs."""

from __future__ import annotations

import errno
import io
import shutil
import subprocess
from pathlib import Path

import pytest
from scapy.utils import PcapNgReader, RawPcapNgReader

from mptcp_stack.device.capture import CaptureDevice, CaptureWriter, Direction
from mptcp_stack.device.in_memory import in_memory_pair
from mptcp_stack.device.interface import Device, LinkLayer
from mptcp_stack.wire.frame import Frame
from tests.device.packets import tcp_frame

MACS = (b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02")
TIME_NS = 1_700_000_000_123_456_789
needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


def tshark(file: Path, *fields: str) -> list[list[str]]:
    words = ["tshark", "-r", str(file), "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    words += ["-T", "fields", *(word for field in fields for word in ("-e", field))]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    return [line.split("\t") for line in done.stdout.splitlines()]


@needs_tshark
def test_wireshark_finds_good_packets_on_every_interface(tmp_path: Path) -> None:
    file = tmp_path / "capture.pcapng"
    with file.open("wb") as stream:
        writer = CaptureWriter(stream)
        ethernet = writer.add_interface("veth0")
        raw = writer.add_interface("tun0", LinkLayer.RAW_IP)
        odd = tcp_frame("10.0.0.1", "10.0.0.2", b"odd", macs=MACS)
        whole = tcp_frame("fd00::1", "fd00::2", bytes(60_001), gso_size=1400)
        writer.write(ethernet, odd, TIME_NS, Direction.OUTBOUND)
        writer.write(raw, whole, TIME_NS + 1, Direction.INBOUND)
    rows = tshark(
        file,
        "frame.interface_name",
        "frame.time_epoch",
        "frame.packet_flags_direction",
        "tcp.checksum.status",
        "tcp.len",
    )
    assert rows == [
        ["veth0", "1700000000.123456789", "0x00000002", "1", "3"],
        ["tun0", "1700000000.123456790", "0x00000001", "1", "60001"],
    ]
    # What is sent is not what is written down: the device gets the frame as it was.
    assert odd.checksum.name == "PARTIAL"


def test_scapy_reads_every_byte(tmp_path: Path) -> None:
    file = tmp_path / "capture.pcapng"
    frames = [Frame(bytes(range(length))) for length in (0, 1, 2, 3, 4, 5, 60)]
    with file.open("wb") as stream:
        writer = CaptureWriter(stream)
        interface = writer.add_interface("veth0")
        for frame in frames:
            writer.write(interface, frame, TIME_NS, Direction.INBOUND)
    # Unparsed: what scapy makes of an empty frame depends on the protocols that it has loaded by then.
    with RawPcapNgReader(str(file)) as reader:
        assert [data for data, _metadata in reader] == [frame.to_bytes() for frame in frames]


def test_snap_length_keeps_the_original_length(tmp_path: Path) -> None:
    file = tmp_path / "capture.pcapng"
    with file.open("wb") as stream:
        writer = CaptureWriter(stream, snap_length=66)
        interface = writer.add_interface("veth0")
        writer.write(
            interface, tcp_frame("10.0.0.1", "10.0.0.2", bytes(900), macs=MACS), 0, Direction.INBOUND
        )
        writer.flush()
    with PcapNgReader(str(file)) as reader:
        (packet,) = reader
    assert len(packet) == 66
    assert packet.wirelen == 954


def test_capture_device_writes_both_directions_and_only_what_was_sent() -> None:
    near, far = in_memory_pair(("a0", "b0"), MACS, mtu=9000)
    stream = io.BytesIO()
    device: Device = CaptureDevice(near, CaptureWriter(stream), lambda: TIME_NS)
    assert (device.name, device.mac, device.mtu) == ("a0", MACS[0], 9000)
    assert (device.link_layer, device.checksum_offload) == (LinkLayer.ETHERNET, True)
    assert (device.gso_max_size, device.fileno()) == (near.gso_max_size, near.fileno())
    accepted = device.transmit([Frame(b"an outgoing frame")] * 2000)
    assert accepted < 2000
    far.transmit([Frame(b"an incoming frame")])
    assert device.receive(64) == [Frame(b"an incoming frame")]
    assert device.counters.sent_frames == accepted
    assert stream.getvalue().count(b"an outgoing frame") == accepted
    assert stream.getvalue().count(b"an incoming frame") == 1
    device.close()
    far.close()


class FullDisk(io.BytesIO):
    """Takes the file's head and nothing more."""

    def write(self, data: object) -> int:
        if self.tell() >= 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        assert isinstance(data, bytes)
        return super().write(data)


def test_full_disk_ends_the_capture_not_the_traffic() -> None:
    near, far = in_memory_pair(("a0", "b0"))
    device = CaptureDevice(near, CaptureWriter(FullDisk()), lambda: TIME_NS)
    for _ in range(3):
        assert device.transmit([Frame(b"frame")]) == 1
    assert device.error is not None
    assert device.error.errno == errno.ENOSPC
    assert len(far.receive(9)) == 3
    device.close()
    far.close()
