"""The boxes of a link as one of its directions has them: whole frames, as on a real wire."""

from __future__ import annotations

from mptcp_stack.device.segmentation import complete_checksum
from mptcp_stack.wire.frame import Frame
from testbed.middlebox.chain import Middlebox
from testbed.middlebox.settings import FORWARD

ETHERNET_HEADER_BYTES = 14


class LinkBox:
    """A frame function for :class:`testbed.emulator.direction.LinkDirection`, and its holder."""

    def __init__(self, middlebox: Middlebox, direction: str) -> None:
        self._middlebox = middlebox
        self._direction = direction
        self._pass = middlebox.forward if direction == FORWARD else middlebox.backward

    def __call__(self, frame: Frame, now_us: int) -> list[Frame]:
        whole = complete_checksum(frame, ETHERNET_HEADER_BYTES).to_bytes()
        return [Frame(data) for data in self._pass(whole, now_us)]

    def next_release_us(self) -> int | None:
        return self._middlebox.next_release_us(self._direction)

    def release(self, now_us: int) -> list[Frame]:
        return [Frame(data) for data in self._middlebox.release(self._direction, now_us)]
