"""A capture in the middle of an emulated link: every packet that is offered, and what befell it.

Packets are written as the link model sees them: super-segments cut where anything but a delay is asked for.
What is lost, or comes twice, damaged or ahead of others, says so in its comment.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from mptcp_stack.device.capture import CaptureWriter, Direction
from mptcp_stack.device.virtio_header import decode
from mptcp_stack.errors import MalformedPacketError
from testbed.emulator.loop import EmulatedLink
from testbed.errors import HostError

_BUFFER_BYTES = 1 << 20


class LinkCapture:
    """Written until :meth:`close`. A full disk ends it, never the traffic."""

    def __init__(self, link: EmulatedLink, path: Path, interface: str) -> None:
        """Raises HostError."""
        self._link = link
        self._problem = ""
        try:
            self._stream = path.open("wb", buffering=_BUFFER_BYTES)
            self._writer = CaptureWriter(self._stream)
            self._writer.add_interface(interface)
        except OSError as error:
            raise HostError(f"cannot write {path}: {error.strerror}") from error
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        for direction, way in ((link.forward, Direction.OUTBOUND), (link.backward, Direction.INBOUND)):
            direction.observer = partial(self._write, way, direction.name)

    def _write(self, way: Direction, name: str, data: memoryview | bytes, now_us: int, fate: str) -> None:
        try:
            frame = decode(memoryview(data))
            comment = f"{name} {fate}" if fate else ""
            self._writer.write(0, frame, self._epoch_ns + now_us * 1000, way, comment=comment)
        except MalformedPacketError:
            # It contradicts its offload header, and is counted.
            return
        except OSError as error:
            self._problem = error.strerror or str(error)
            self._stop()

    def _stop(self) -> None:
        self._link.forward.observer = self._link.backward.observer = None

    def close(self) -> None:
        """Raises HostError when it is incomplete."""
        self._stop()
        try:
            self._stream.close()
        except OSError as error:
            self._problem = self._problem or error.strerror or str(error)
        if self._problem:
            raise HostError(f"the capture of {self._link.name} is incomplete: {self._problem}")
