"""The least TCP that makes a kernel talk: handshake, acknowledge everything, send one super-segment."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable

from mptcp_stack.device.interface import Device, LinkLayer
from mptcp_stack.wire.frame import ChecksumState, Frame
from tests.device.packets import ACK, PSH, SYN, ParsedTcp, tcp_frame

WAIT_SECONDS = 10.0


def receive_until(
    device: Device, accept: Callable[[Frame], bool], wait_seconds: float = WAIT_SECONDS
) -> list[Frame]:
    """All frames up to and including the first one that ``accept`` takes. AssertionError when none comes."""
    seen: list[Frame] = []
    deadline = time.monotonic() + wait_seconds
    while time.monotonic() < deadline:
        select.select([device.fileno()], [], [], max(0.0, deadline - time.monotonic()))
        for frame in device.receive(1):
            seen.append(frame)
            if accept(frame):
                return seen
    raise AssertionError(f"no such frame among {len(seen)}")


class TcpPeer:
    """The passive end of one connection from the kernel, over any device."""

    def __init__(
        self, device: Device, address: str, remote: str, *, port: int, macs: tuple[bytes, bytes] | None
    ) -> None:
        self.device = device
        self.addresses = (address, remote)
        self.port = port
        self.macs = macs
        self.remote_port = 0
        self.sequence = 1_000_000
        self.expected = 0
        self.received = b""
        self.frames: list[Frame] = []

    def _tcp(self, frame: Frame) -> ParsedTcp | None:
        if self.device.link_layer is LinkLayer.ETHERNET and frame.head[12:14] not in (b"\x08\0", b"\x86\xdd"):
            return None
        parsed = ParsedTcp(frame, self.device.link_layer)
        return parsed if parsed.is_tcp and parsed.ports[1] == self.port else None

    def _send(self, flags: int, payload: bytes = b"", *, options: bytes = b"", gso_size: int = 0) -> None:
        frame = tcp_frame(
            *self.addresses,
            payload,
            ports=(self.port, self.remote_port),
            sequence=self.sequence,
            acknowledgement=self.expected,
            flags=flags,
            options=options,
            gso_size=gso_size,
            macs=self.macs,
        )
        assert self.device.transmit([frame]) == 1
        self.sequence += len(payload) + bool(flags & SYN)

    def accept(self) -> Frame:
        """Answer the kernel's SYN and return it."""
        *_, frame = receive_until(self.device, lambda frame: self._tcp(frame) is not None)
        syn = self._tcp(frame)
        assert syn is not None
        assert syn.flags & SYN
        self.remote_port = syn.ports[0]
        self.expected = syn.sequence + 1
        # MSS 1400, window scale 7.
        self._send(SYN | ACK, options=b"\x02\x04\x05\x78\x01\x03\x03\x07")
        return frame

    def receive(self, byte_count: int) -> None:
        """Acknowledge data until ``byte_count`` bytes have come; ``frames`` keeps what carried them."""

        def is_complete(frame: Frame) -> bool:
            parsed = self._tcp(frame)
            if parsed is not None and parsed.payload and parsed.sequence == self.expected % 2**32:
                self.received += parsed.payload
                self.expected += len(parsed.payload)
                self.frames.append(frame)
                self._send(ACK)
            return len(self.received) >= byte_count

        receive_until(self.device, is_complete)

    def send(self, payload: bytes, gso_size: int) -> None:
        """One super-segment."""
        self._send(ACK | PSH, payload, gso_size=gso_size)

    def send_until_read(self, payload: bytes, gso_size: int, reader: socket.socket) -> bytes:
        """One super-segment, repeated each second until the kernel's end has read all of it.

        The kernel may drop it when it is short of buffer space, as it may any segment.
        """
        read = b""
        reader.settimeout(1)
        for _ in range(10):
            self.send(payload, gso_size)
            try:
                while len(read) < len(payload):
                    read += reader.recv(len(payload))
            except TimeoutError:
                self.sequence -= len(payload)
                continue
            return read
        raise AssertionError(f"{len(read)} of {len(payload)} bytes were read")


def assert_partial(frame: Frame) -> None:
    """The kernel left the checksum to the device and said where it belongs."""
    assert frame.checksum is ChecksumState.PARTIAL
    assert frame.checksum_offset == 16
