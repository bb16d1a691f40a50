"""One direction of an emulated link: what becomes of each frame, and when it goes on.

Pure but for the socket that takes the frames: time is handed in. Frames are bytes behind a virtio-net header
(:mod:`mptcp_stack.device.virtio_header`), so that those with unfinished checksums, and super-segments where
nothing needs packets, pass as they came.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from mptcp_stack.device.link_model import OVERFLOWED, LinkCounters, LinkModel, LinkSettings, flip_bit
from mptcp_stack.device.segmentation import segment_frame
from mptcp_stack.device.virtio_header import FLAG_NEEDS_CHECKSUM, HEADER_LENGTH, decode, encode
from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.wire.frame import Frame
from testbed.emulator.configuration import DirectionConfiguration
from testbed.emulator.port import LINK_IS_DOWN

ETHERNET_HEADER_BYTES: Final = 14
MAXIMUM_BYTES_IN_FLIGHT: Final = 64 << 20
"""Of one direction, whatever its settings: what is beyond finds the queue full."""
EARLY_US: Final = 100
"""Behind a rate, what is due so soon goes on at once when the emulator is awake.

A timer for each packet, and with it a wake-up of everybody behind the link, costs more than the packet.
"""
_BOOKKEEPING_BYTES: Final = 256
"""What a frame in flight costs beyond its bytes."""
_NO_OFFLOAD: Final = bytes(HEADER_LENGTH)
_RELEASE: Final = b""
"""Scheduled in the place of a frame, for what a box holds."""
DROPPED_BY_A_BOX: Final = "dropped by a middlebox"

FrameFunction = Callable[[Frame, int], Iterable[Frame]]
"""What a box on the path does: given a frame and the time in us, the frames that go on in its place.

It sees packets as on a real wire, before the link model; it mends the checksums of what it changes, and may
complete unfinished ones with :func:`mptcp_stack.device.segmentation.complete_checksum`.
"""


class Holder(Protocol):
    """A box that may keep frames for a while."""

    def next_release_us(self) -> int | None:
        """When the next of them is to go on."""
        ...

    def release(self, now_us: int) -> Iterable[Frame]:
        """Those that are to go on by now."""
        ...


Observer = Callable[[memoryview | bytes, int, str], None]
"""Told of every frame that is offered: its bytes behind their virtio-net header, valid during the call; the
time in us; and in words what befell it beside being passed on.
"""
Schedule = Callable[[int, "LinkDirection", bytes], None]
"""Takes a frame that goes on at a time in us."""


@dataclass(slots=True)
class DirectionCounters(LinkCounters):
    """Frames of one direction; a super-segment that passes whole counts once."""

    offered: int = 0
    """As packets, where super-segments are cut."""
    delivered: int = 0
    malformed: int = 0
    """Super-segments that could not be cut, and frames that contradict their offload headers."""
    filtered: int = 0
    """Taken away by a frame function."""
    refused: int = 0
    """Not taken by the kernel: too long for the interface, or its queue is full."""
    cut_off: int = 0
    """On their way, or sent, while the link was down."""
    late_us: int = 0
    """Sum of how much later than asked the delayed frames went on."""
    latest_us: int = 0
    """The worst of them."""
    timed: int = 0
    """How many they were."""


class LinkDirection:
    """Takes frames from one port and hands them, through ``schedule``, to the other's ``send``."""

    __slots__ = (
        "_bytes_in_flight",
        "_frames_in_flight",
        "_function",
        "_is_transparent",
        "_model",
        "_needs_packets",
        "_release_at_us",
        "_schedule",
        "_send",
        "counters",
        "early_us",
        "holder",
        "name",
        "observer",
    )

    def __init__(
        self,
        name: str,
        configuration: DirectionConfiguration,
        send: Callable[[bytes | memoryview], int],
        schedule: Schedule,
    ) -> None:
        self.name = name
        self.counters = DirectionCounters()
        self._send = send
        self._schedule = schedule
        self.observer: Observer | None = None
        self.holder: Holder | None = None
        """The box on the path, if it may hold frames back for a while."""
        self._release_at_us: int | None = None
        self._function: FrameFunction | None = None
        self._frames_in_flight = 0
        self._bytes_in_flight = 0
        self._model = LinkModel(configuration.settings, random.Random(configuration.seed), self.counters)
        self._look_at_settings()

    @property
    def settings(self) -> LinkSettings:
        """May be exchanged at any time; what is on its way keeps its time."""
        return self._model.settings

    @settings.setter
    def settings(self, settings: LinkSettings) -> None:
        self._model.settings = settings
        self._look_at_settings()

    @property
    def function(self) -> FrameFunction | None:
        """A box on the path between the receiving port and the link model."""
        return self._function

    @function.setter
    def function(self, function: FrameFunction | None) -> None:
        self._function = function
        self._look_at_settings()

    @property
    def frames_in_flight(self) -> int:
        return self._frames_in_flight

    def reseed(self, seed: int) -> None:
        """Begin the randomness anew, and forget what the link was doing."""
        self._model = LinkModel(self._model.settings, random.Random(seed), self.counters)

    def _look_at_settings(self) -> None:
        settings = self._model.settings
        self._needs_packets = settings.needs_packets or self._function is not None
        self._is_transparent = not self._needs_packets and not settings.delay_us
        self.early_us = 0 if settings.rate_bit_s is None else EARLY_US

    def offer(self, data: memoryview, now_us: int) -> None:
        """A frame has come, at ``now_us``. ``data`` is valid during the call only."""
        if len(data) <= HEADER_LENGTH:
            self.counters.malformed += 1
        elif self._is_transparent and not self._frames_in_flight:
            self.counters.offered += 1
            if self.observer is not None:
                self.observer(data, now_us, "")
            self.pass_on(data)
        elif self._function is not None or (self._needs_packets and data[1]):
            self._offer_packets(data, now_us)
        else:
            self._carry(bytes(data), now_us)

    def _offer_packets(self, data: memoryview, now_us: int) -> None:
        """A super-segment becomes the packets that it stands for; a box on the path sees these."""
        try:
            packets = _cut(decode(data))
            if self._function is None:
                for packet in packets:
                    self._carry(encode(packet) + packet.to_bytes(), now_us)
                return
            for packet in packets:
                remaining = list(self._function(packet, now_us))
                if not remaining and not self._holds():
                    self.counters.filtered += 1
                    if self.observer is not None:
                        self.observer(encode(packet) + packet.to_bytes(), now_us, DROPPED_BY_A_BOX)
                for frame in remaining:
                    self._carry(encode(frame) + frame.to_bytes(), now_us)
            if self.holder is not None:
                self._await_release(self.holder)
        except MalformedPacketError:
            self.counters.malformed += 1

    def _carry(self, data: bytes, now_us: int) -> None:
        counters = self.counters
        counters.offered += 1
        if self._bytes_in_flight > MAXIMUM_BYTES_IN_FLIGHT:
            counters.overflowed += 1
            if self.observer is not None:
                self.observer(data, now_us, OVERFLOWED)
            return
        if self.observer is None:
            passages = self._model.carry(len(data) - HEADER_LENGTH, now_us)
        else:
            passages, decisions = self._model.carry_and_tell(len(data) - HEADER_LENGTH, now_us)
            self.observer(data, now_us, ", ".join(decisions))
        for arrival_us, flipped_bit in passages:
            copy = data if flipped_bit is None else _damaged(data, flipped_bit)
            self._frames_in_flight += 1
            self._bytes_in_flight += len(copy) + _BOOKKEEPING_BYTES
            self._schedule(arrival_us, self, copy)

    def _holds(self) -> bool:
        """Whether a box has kept something, as what did not go on just now."""
        return self.holder is not None and self.holder.next_release_us() is not None

    def _await_release(self, holder: Holder) -> None:
        at_us = holder.next_release_us()
        if at_us is not None and at_us != self._release_at_us:
            self._release_at_us = at_us
            self._schedule(at_us, self, _RELEASE)

    def _release(self, late_us: int) -> None:
        """Something that a box holds is to go on."""
        holder, due_us = self.holder, self._release_at_us
        if holder is None or due_us is None:
            return
        now_us = due_us + late_us
        self._release_at_us = None
        for frame in holder.release(now_us):
            self._carry(encode(frame) + frame.to_bytes(), now_us)
        self._await_release(holder)

    def arrive(self, data: bytes, late_us: int) -> None:
        """A scheduled frame's time has come, ``late_us`` ago."""
        if data is _RELEASE:
            self._release(late_us)
            return
        self._frames_in_flight -= 1
        self._bytes_in_flight -= len(data) + _BOOKKEEPING_BYTES
        counters = self.counters
        counters.timed += 1
        counters.late_us += late_us
        if late_us > counters.latest_us:
            counters.latest_us = late_us
        self.pass_on(data)

    def pass_on(self, data: bytes | memoryview) -> None:
        """To the next interface, now."""
        try:
            self._send(data)
        except OSError as error:
            if error.errno in LINK_IS_DOWN:
                self.counters.cut_off += 1
            else:
                self.counters.refused += 1
        else:
            self.counters.delivered += 1

    def cut_off(self) -> None:
        """The link went down: the schedule has dropped what was on its way."""
        self.counters.cut_off += self._frames_in_flight
        self._frames_in_flight = self._bytes_in_flight = 0
        self._release_at_us = None
        self._model.clear()


def _cut(frame: Frame) -> list[Frame]:
    """The packets of a super-segment; checksums that are unfinished stay so."""
    return segment_frame(frame, ETHERNET_HEADER_BYTES, completes_checksums=False)


def _damaged(data: bytes, bit: int) -> bytes:
    """The frame with one bit flipped and a finished checksum, without which nobody would notice."""
    if data[0] & FLAG_NEEDS_CHECKSUM:
        (frame,) = segment_frame(decode(memoryview(data)), ETHERNET_HEADER_BYTES)
        return _NO_OFFLOAD + flip_bit(frame.to_bytes(), bit)
    return _NO_OFFLOAD + flip_bit(data[HEADER_LENGTH:], bit)
