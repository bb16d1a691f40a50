"""Packet captures of a lab: one pcapng file per link.

In the middle of an emulated link the emulator writes what it is offered, and what it decides. Any other is
captured at one of its ends in both directions, as frames cross the veth: super-segments whole, unfinished
checksums completed, times from the kernel, so that the order within a link is the order on the link.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mptcp_stack.device.capture import CaptureWriter, Direction
from mptcp_stack.device.virtio_header import HEADER_LENGTH, decode
from mptcp_stack.errors import MalformedPacketError
from testbed.backend.lab import Lab
from testbed.backend.system import network_namespace
from testbed.emulator.port import LINK_IS_DOWN
from testbed.errors import HostError
from testbed.selftests.capture_files import CaptureError, LinkFile, capture_files
from testbed.selftests.captured_frames import captured_frames
from testbed.selftests.key_log import KeyLog
from testbed.topology.model import Link, LinkEnd

# Constants that the socket module does not name (linux/if_packet.h, asm/socket.h).
_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_ETH_P_ALL = 3
_PACKET_OUTGOING = 4

_RECEIVE_BUFFER_BYTES = 32 << 20
_LARGEST_FRAME_BYTES = 65535 + 22
_ANCILLARY_BYTES = 256
_TIMESTAMP = struct.Struct("@ll")
_POLL_MS = 50


@dataclass(slots=True)
class _Tap:
    """One link's socket and file."""

    socket: socket.socket
    writer: CaptureWriter
    keys: KeyLog
    is_at_first_end: bool

    def take(self) -> bool:
        """Write one frame. Returns False when none is waiting. Raises OSError."""
        try:
            data, ancillary, _flags, sender = self.socket.recvmsg(
                HEADER_LENGTH + _LARGEST_FRAME_BYTES, _ANCILLARY_BYTES
            )
        except BlockingIOError:
            return False
        except OSError as error:
            # Told once when the interface goes down, which may be what the run is about, or moves away.
            if error.errno not in LINK_IS_DOWN:
                raise
            return True
        try:
            frame = decode(memoryview(data))
        except MalformedPacketError:
            # metadata that makes no sense; the bytes are not to be trusted either
            return True
        is_outgoing = (sender[2] == _PACKET_OUTGOING) == self.is_at_first_end
        direction = Direction.OUTBOUND if is_outgoing else Direction.INBOUND
        self.keys.look(frame)
        self.writer.write(0, frame, _time_ns(ancillary), direction)
        return True


@contextmanager
def captured_links(lab: Lab, directory: Path, stem: str) -> Iterator[tuple[str, ...]]:
    """Capture every link of a lab during the body; yields the paths of the files, complete afterwards.

    Raises CaptureError when a file cannot be written, at the end of the body at the latest.
    """
    with ExitStack() as closing:
        emulated = closing.enter_context(_EmulatedCaptures(lab))
        files = closing.enter_context(capture_files(lab.topology.links, directory, stem, emulated.begin))
        recorder = _Recorder([_open_tap(lab, file, files.keys, closing) for file in files.links])
        recorder.start()
        try:
            yield files.paths
        finally:
            recorder.stop()
            emulated.end(files.keys)
        if recorder.error is not None:
            raise CaptureError(f"the capture in {directory} is incomplete: {recorder.error.strerror}")


class _EmulatedCaptures:
    """The captures that the emulator writes. Those that were not ended are with the ``with`` block."""

    def __init__(self, lab: Lab) -> None:
        self._links = lab.links
        self._running: dict[Path, Callable[[Path | None], None]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        # The emulator may be gone, and it is another failure that matters then.
        with suppress(HostError):
            self._stop()

    def begin(self, link: Link, path: Path) -> bool:
        """Whether the emulator captures a link. Raises CaptureError."""
        capture = self._links.capturer(link)
        if capture is None:
            return False
        try:
            capture(path)
        except HostError as error:
            raise CaptureError(f"cannot capture {link.first}: {error}") from error
        self._running[path] = capture
        return True

    def end(self, keys: KeyLog) -> None:
        """Raises CaptureError."""
        paths = list(self._running)
        try:
            self._stop()
            for path in paths:
                for frame in captured_frames(path):
                    keys.look(frame)
        except (HostError, OSError) as error:
            raise CaptureError(f"a capture is incomplete: {error}") from error

    def _stop(self) -> None:
        while self._running:
            _path, capture = self._running.popitem()
            capture(None)


def _open_tap(lab: Lab, file: LinkFile, keys: KeyLog, closing: ExitStack) -> _Tap:
    try:
        end = _end_that_stays(lab, file.link)
        packet_socket = closing.enter_context(_open_socket(lab, end))
    except OSError as error:
        raise CaptureError(f"cannot capture {file.link.first}: {error.strerror}") from error
    return _Tap(packet_socket, file.writer, keys, is_at_first_end=end == file.link.first)


def _end_that_stays(lab: Lab, link: Link) -> LinkEnd:
    """A cable may be pulled out of its switch. Directions are as seen from the first end all the same."""
    is_in_a_switch = lab.topology.node(link.first.node).is_bridge
    return link.second if is_in_a_switch else link.first


def _open_socket(lab: Lab, end: LinkEnd) -> socket.socket:
    """A socket that sees all frames at this end. A socket stays in the namespace in which it was opened."""
    descriptor = os.open(lab.namespace_path(end.node), os.O_RDONLY | os.O_CLOEXEC)
    try:
        with network_namespace(descriptor):
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    finally:
        os.close(descriptor)
    opened.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    # bound only now: until then protocol 0 keeps other interfaces' frames out
    opened.bind((end.interface, _ETH_P_ALL))
    return opened


class _Recorder(threading.Thread):
    """Empties the taps until it is stopped, then once more."""

    def __init__(self, taps: list[_Tap]) -> None:
        super().__init__(name="capture", daemon=True)
        self._taps = {tap.socket.fileno(): tap for tap in taps}
        self._is_over = threading.Event()
        self.error: OSError | None = None

    def run(self) -> None:
        waiting = select.poll()
        for descriptor in self._taps:
            waiting.register(descriptor, select.POLLIN)
        try:
            while not self._is_over.is_set():
                for descriptor, _events in waiting.poll(_POLL_MS):
                    self._empty(self._taps[descriptor])
            for tap in self._taps.values():
                self._empty(tap)
                tap.writer.flush()
        except OSError as error:
            self.error = error

    def stop(self) -> None:
        self._is_over.set()
        self.join()

    def _empty(self, tap: _Tap) -> None:
        while tap.take():
            continue


def _time_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= _TIMESTAMP.size:
            seconds, nanoseconds = _TIMESTAMP.unpack_from(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()
