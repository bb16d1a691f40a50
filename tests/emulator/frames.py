"""Frames behind a virtio-net header, as packet sockets give and take them."""

from __future__ import annotations

from collections.abc import Callable

from mptcp_stack.device.link_model import LinkSettings
from mptcp_stack.device.virtio_header import HEADER_LENGTH, decode, encode
from mptcp_stack.wire.frame import Frame
from testbed.emulator.configuration import DirectionConfiguration
from testbed.emulator.direction import LinkDirection, Piece, Schedule
from tests.device.packets import tcp_frame

MACS = (b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02")
SUPER_SEGMENT = tcp_frame("10.0.0.1", "10.0.0.2", bytes(range(250)) * 20, gso_size=1400, macs=MACS)


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
        self,
        settings: LinkSettings,
        seed: int = 1,
        send: Callable[[bytes | memoryview], int] | None = None,
        mtu: int = 1500,
        schedule: Schedule | None = None,
    ) -> None:
        self.sent: list[bytes] = []
        self._waiting: list[tuple[int, bytes | Piece]] = []
        configuration = DirectionConfiguration(settings, seed)
        self.direction = LinkDirection(
            "->", configuration, send or self._send, schedule or self._schedule, mtu
        )

    def _send(self, data: bytes | memoryview) -> int:
        self.sent.append(bytes(data))
        return len(data)

    def _schedule(self, at_us: int, direction: LinkDirection, item: bytes | Piece) -> None:
        assert direction is self.direction
        self._waiting.append((at_us, item))

    @property
    def scheduled(self) -> list[tuple[int, bytes]]:
        """What goes on when, each packet alone."""
        return [
            (at_us, item.to_bytes() if isinstance(item, Piece) else item) for at_us, item in self._waiting
        ]

    def take_scheduled(self) -> list[tuple[int, bytes]]:
        """The same, which is then gone."""
        scheduled, self._waiting = self.scheduled, []
        return scheduled

    def let_time_pass(self, late_us: int = 0) -> None:
        """Everything arrives, in the order of its time, and all at once."""
        for _at_us, item in sorted(self._waiting, key=lambda entry: entry[0]):
            self.direction.arrive(item, late_us)
        self.direction.flush()
        self._waiting.clear()

    def let_time_pass_one_by_one(self) -> None:
        """Each packet arrives in a turn of its own."""
        for _at_us, item in sorted(self._waiting, key=lambda entry: entry[0]):
            self.direction.arrive(item, 0)
            self.direction.flush()
        self._waiting.clear()
