"""What happened in a run, in the scripts' language: for ``--trace``, for failures, and as a capture."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from mptcp_stack.device.capture import CaptureWriter
from mptcp_stack.device.capture import Direction as CaptureDirection
from mptcp_stack.device.interface import LinkLayer
from mptcp_stack.wire.frame import Frame
from testbed.packetdrill.printer import print_seconds
from testbed.packetdrill.syntax import Direction

KEPT_LINES = 10


class Trace:
    """``say`` gets every line as it happens, with the time since the line before, as a script has it."""

    def __init__(
        self, say: Callable[[str], None] | None = None, capture: CaptureWriter | None = None
    ) -> None:
        self._say = say
        self._capture = capture
        self._interface = capture.add_interface("tun0", LinkLayer.RAW_IP) if capture is not None else 0
        self._packets: deque[str] = deque(maxlen=KEPT_LINES)
        self._last_us = 0

    def add_packet(self, at_us: int, direction: Direction, packet: bytes, text: str) -> None:
        """Raises OSError when the capture cannot be written."""
        self._packets.append(f"{at_us / 1_000_000:.6f} {text}")
        self.add_line(at_us, text)
        if self._capture is not None:
            way = CaptureDirection.INBOUND if direction is Direction.IN else CaptureDirection.OUTBOUND
            frame = Frame(packet, is_ipv6=packet[0] >> 4 == 6)
            self._capture.write(self._interface, frame, at_us * 1000, way)

    def add_line(self, at_us: int, text: str) -> None:
        """A system call, a command."""
        if self._say is not None:
            self._say(f"+{print_seconds(max(0, at_us - self._last_us))} {text}")
        self._last_us = max(self._last_us, at_us)

    def last_packets(self) -> list[str]:
        """With absolute times, the oldest first."""
        return list(self._packets)
