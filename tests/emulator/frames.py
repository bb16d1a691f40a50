"""Frames behind a virtio-net header, as packet sockets give and take them."""

from __future__ import annotations

from collections.abc import Callable

from mptcp_stack.device.link_model import LinkSettings
from mptcp_stack.device.virtio_header import HEADER_LENGTH, decode, encode
from mptcp_stack.wire.frame import Frame
from testbed.emulator.configuration import DirectionConfiguration
from testbed.emulator.direction import LinkDirection


def plain(number: int, length: int = 100) -> memoryview:
    """An ordinary frame that can be told from others."""
    return memoryview(encode(Frame(b"")) + number.to_bytes(4, "big") + bytes(length - 4))


def number_of(data: bytes) -> int:
    return int.from_bytes(data[HEADER_LENGTH : HEADER_LENGTH + 4], "big")


def frame_of(data: bytes) -> Frame:
    return decode(memoryview(data))


class Rig:
    """A direction with a schedule and a next interface that are lists."""

    def __init__(
        self, settings: LinkSettings, seed: int = 1, send: Callable[[bytes | memoryview], int] | None = None
    ) -> None:
        self.sent: list[bytes] = []
        self.scheduled: list[tuple[int, bytes]] = []
        configuration = DirectionConfiguration(settings, seed)
        self.direction = LinkDirection("->", configuration, send or self._send, self._schedule)

    def _send(self, data: bytes | memoryview) -> int:
        self.sent.append(bytes(data))
        return len(data)

    def _schedule(self, at_us: int, direction: LinkDirection, data: bytes) -> None:
        assert direction is self.direction
        self.scheduled.append((at_us, data))

    def let_time_pass(self, late_us: int = 0) -> None:
        """Everything arrives, in the order of its time."""
        for _at_us, data in sorted(self.scheduled, key=lambda entry: entry[0]):
            self.direction.arrive(data, late_us)
        self.scheduled.clear()
