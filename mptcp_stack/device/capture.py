"""Writes frames to a pcapng file (draft-ietf-opsawg-pcapng) that tcpdump and Wireshark read."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from enum import Enum
from typing import BinaryIO

from mptcp_stack.device.interface import Device, DeviceCounters, LinkLayer
from mptcp_stack.device.segmentation import complete_checksum
from mptcp_stack.wire.frame import Frame

_SECTION_HEADER = 0x0A0D0D0A
_INTERFACE_DESCRIPTION = 1
_ENHANCED_PACKET = 6
_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_UNKNOWN_SECTION_LENGTH = 0xFFFFFFFFFFFFFFFF

_OPTION_END = 0
_OPTION_COMMENT = 1
_LONGEST_OPTION_BYTES = 0xFFFF
_OPTION_INTERFACE_NAME = 2
_OPTION_TIME_RESOLUTION = 9
_OPTION_FLAGS = 2
_OPTION_USER_APPLICATION = 4
_NANOSECONDS = 9

_LINK_TYPES = {LinkLayer.ETHERNET: 1, LinkLayer.RAW_IP: 101}


class Direction(Enum):
    """A packet's direction, as its ``epb_flags`` say it."""

    INBOUND = 1
    OUTBOUND = 2


class CaptureWriter:
    """One capture file with any number of interfaces; times are handed in.

    Errors of the stream (a full disk) raise OSError. The file is complete after every call once flushed.
    """

    __slots__ = ("_link_layers", "_stream", "snap_length")

    def __init__(self, stream: BinaryIO, *, snap_length: int = 0) -> None:
        """``snap_length``: keep only so many bytes of each frame; 0 keeps all."""
        self._stream = stream
        self._link_layers: list[LinkLayer] = []
        self.snap_length = snap_length
        body = struct.pack("=IHHQ", _BYTE_ORDER_MAGIC, 1, 0, _UNKNOWN_SECTION_LENGTH)
        application = _option(_OPTION_USER_APPLICATION, b"mptcp-testbed") + _option(_OPTION_END, b"")
        self._write_block(_SECTION_HEADER, body + application)

    def add_interface(self, name: str, link_layer: LinkLayer = LinkLayer.ETHERNET) -> int:
        """Describe an interface; the answer is its number for ``write``."""
        body = struct.pack("=HHI", _LINK_TYPES[link_layer], 0, self.snap_length)
        options = (
            _option(_OPTION_INTERFACE_NAME, name.encode())
            + _option(_OPTION_TIME_RESOLUTION, bytes((_NANOSECONDS,)))
            + _option(_OPTION_END, b"")
        )
        self._write_block(_INTERFACE_DESCRIPTION, body + options)
        self._link_layers.append(link_layer)
        return len(self._link_layers) - 1

    def write(
        self, interface: int, frame: Frame, time_ns: int, direction: Direction, *, comment: str = ""
    ) -> None:
        """Append a frame. An unfinished checksum is completed in the copy that is written."""
        data = complete_checksum(frame, self._link_layers[interface].header_length).to_bytes()
        captured = data[: self.snap_length] if self.snap_length else data
        header = struct.pack(
            "=IIIII", interface, time_ns >> 32 & 0xFFFFFFFF, time_ns & 0xFFFFFFFF, len(captured), len(data)
        )
        options = _option(_OPTION_FLAGS, struct.pack("=I", direction.value))
        if comment:
            options += _option(_OPTION_COMMENT, comment.encode()[:_LONGEST_OPTION_BYTES])
        options += _option(_OPTION_END, b"")
        self._write_block(_ENHANCED_PACKET, header + _padded(captured) + options)

    def flush(self) -> None:
        self._stream.flush()

    def _write_block(self, block_type: int, body: bytes) -> None:
        length = len(body) + 12
        self._stream.write(struct.pack("=II", block_type, length) + body + struct.pack("=I", length))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("=HH", code, len(value)) + _padded(value)


class CaptureDevice:
    """Passes everything through to another device and writes it down.

    A full disk ends the capture, never the traffic: see ``error``. The writer's stream stays the caller's to
    close.
    """

    __slots__ = ("_clock_ns", "_inner", "_interface", "_writer", "error")

    def __init__(self, inner: Device, writer: CaptureWriter, clock_ns: Callable[[], int]) -> None:
        """``clock_ns`` gives nanoseconds since the epoch."""
        self._inner = inner
        self._writer = writer
        self._clock_ns = clock_ns
        self._interface = writer.add_interface(inner.name, inner.link_layer)
        self.error: OSError | None = None

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def mac(self) -> bytes:
        return self._inner.mac

    @property
    def mtu(self) -> int:
        return self._inner.mtu

    @property
    def link_layer(self) -> LinkLayer:
        return self._inner.link_layer

    @property
    def checksum_offload(self) -> bool:
        return self._inner.checksum_offload

    @property
    def gso_max_size(self) -> int:
        return self._inner.gso_max_size

    @property
    def counters(self) -> DeviceCounters:
        return self._inner.counters

    def fileno(self) -> int:
        return self._inner.fileno()

    def receive(self, limit: int) -> list[Frame]:
        frames = self._inner.receive(limit)
        self._record(frames, Direction.INBOUND)
        return frames

    def transmit(self, frames: Sequence[Frame]) -> int:
        accepted = self._inner.transmit(frames)
        self._record(frames[:accepted], Direction.OUTBOUND)
        return accepted

    def close(self) -> None:
        self._inner.close()

    def _record(self, frames: Sequence[Frame], direction: Direction) -> None:
        if self.error is not None or not frames:
            return
        now_ns = self._clock_ns()
        try:
            for frame in frames:
                self._writer.write(self._interface, frame, now_ns, direction)
        except OSError as error:
            self.error = error
