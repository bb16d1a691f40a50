"""All boxes of one link, from frame to frames; the same code in every kind of lab."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from mptcp_stack.device.interface import LinkLayer
from testbed.middlebox.coalesce_box import CoalesceBox
from testbed.middlebox.icmp_box import IcmpErrorBox
from testbed.middlebox.nat_box import NatBox
from testbed.middlebox.option_boxes import DropMptcpSynsBox, DuplicateOptionsBox, StripBox
from testbed.middlebox.segment import Segment, parse_segment
from testbed.middlebox.settings import (
    BACKWARD,
    BOTH,
    FORWARD,
    BoxCounters,
    BoxSettings,
    Coalesce,
    DropIcmpErrors,
    DropMptcpSyns,
    DuplicateOptions,
    Firewall,
    Nat44,
    Nat66,
    RandomiseSequence,
    Reset,
    Rewrite,
    Split,
    Strip,
)
from testbed.middlebox.stream_boxes import (
    FirewallBox,
    RandomiseSequenceBox,
    ResetBox,
    RewriteBox,
    SplitBox,
)

Item = TypeVar("Item", bytes, Segment)


class Box(Protocol):
    """One box that acts in one direction. What it does not change it returns as the same object."""

    def pass_with(self, segment: Segment) -> list[Segment]:
        """What goes on in place of a segment that travels in its direction."""
        ...

    def pass_against(self, segment: Segment) -> list[Segment]:
        """What goes on in place of one that comes the other way."""
        ...


def _make(settings: BoxSettings, seed: int, clock: Callable[[], int]) -> Box:
    match settings:
        case Nat44() | Nat66():
            return NatBox(settings, seed, clock)
        case DropIcmpErrors():
            return IcmpErrorBox()
        case Coalesce():
            return CoalesceBox(settings, clock)
        case RandomiseSequence():
            return RandomiseSequenceBox(settings, seed)
        case _:
            return _make_plain(settings)


def _make_plain(
    settings: Strip | DropMptcpSyns | DuplicateOptions | Split | Rewrite | Reset | Firewall,
) -> Box:
    """Boxes that need neither a clock nor randomness."""
    match settings:
        case Strip():
            return StripBox(settings)
        case DropMptcpSyns():
            return DropMptcpSynsBox(settings)
        case DuplicateOptions():
            return DuplicateOptionsBox(settings)
        case Split():
            return SplitBox(settings)
        case Rewrite():
            return RewriteBox(settings)
        case Reset():
            return ResetBox(settings)
        case Firewall():
            return FirewallBox(settings)


@dataclass(slots=True)
class _Stage(Generic[Item]):
    """What a box does in one way of the link, and how often."""

    function: Callable[[Item], list[Item]]
    counters: BoxCounters
    holder: CoalesceBox | None = None
    """A box that keeps segments for a while: none that go on are none dropped then."""

    def run(self, items: Sequence[Item]) -> list[Item]:
        counters = self.counters
        results: list[Item] = []
        for item in items:
            passing = self.function(item)
            results += passing
            counters.seen += 1
            if self.holder is not None:
                counters.changed = self.holder.joined
            elif not passing:
                counters.dropped += 1
            else:
                counters.changed += passing[0] is not item
                counters.added += len(passing) - 1
        return results


@dataclass(slots=True)
class _Way:
    """All stages of one direction of the link."""

    segments: list[_Stage[Segment]] = field(default_factory=list)
    frames: list[_Stage[bytes]] = field(default_factory=list)
    """For frames that hold no segment of TCP."""


class Middlebox:
    """The boxes of a link, the first of them nearest to the link's first end."""

    def __init__(
        self, boxes: Sequence[BoxSettings], seed: int, link_layer: LinkLayer = LinkLayer.ETHERNET
    ) -> None:
        self._link_layer = link_layer
        self._now_us = 0
        self._forward, self._backward = _Way(), _Way()
        self.counters: list[BoxCounters] = []
        """Of each box in each of its directions."""
        # A box for both directions is two, one for each.
        for number, settings in enumerate(boxes):
            if settings.direction in (FORWARD, BOTH):
                box = _make(settings, seed + 2 * number, self._clock)
                self._add(box, settings, FORWARD, self._forward, self._backward)
            if settings.direction in (BACKWARD, BOTH):
                box = _make(settings, seed + 2 * number + 1, self._clock)
                self._add(box, settings, BACKWARD, self._backward, self._forward)

    def _clock(self) -> int:
        return self._now_us

    def _add(self, box: Box, settings: BoxSettings, direction: str, along: _Way, against: _Way) -> None:
        counters = BoxCounters(settings.kind, direction)
        self.counters.append(counters)
        holder = box if isinstance(box, CoalesceBox) else None
        self._insert(along, along.segments, _Stage(box.pass_with, counters, holder))
        self._insert(against, against.segments, _Stage(box.pass_against, counters))
        if isinstance(box, NatBox | IcmpErrorBox):
            self._insert(along, along.frames, _Stage(box.pass_frame_with, counters))
            self._insert(against, against.frames, _Stage(box.pass_frame_against, counters))

    def _insert(self, way: _Way, stages: list[_Stage[Item]], stage: _Stage[Item]) -> None:
        """What comes first in the one way comes last in the other."""
        stages.insert(len(stages) if way is self._forward else 0, stage)

    def forward(self, frame: bytes, now_us: int = 0) -> list[bytes]:
        """What goes on to the second end in place of a frame from the first."""
        return self._pass(frame, self._forward, now_us)

    def backward(self, frame: bytes, now_us: int = 0) -> list[bytes]:
        return self._pass(frame, self._backward, now_us)

    def next_release_us(self, direction: str) -> int | None:
        """When something that a box holds is to go on in a direction; None while nothing is held."""
        return min(
            (
                at_us
                for stage in self._way(direction).segments
                if stage.holder is not None and (at_us := stage.holder.next_release_us()) is not None
            ),
            default=None,
        )

    def release(self, direction: str, now_us: int) -> list[bytes]:
        """What boxes have held long enough, as it goes on."""
        self._now_us = now_us
        stages = self._way(direction).segments
        released: list[Segment] = []
        for number, stage in enumerate(stages):
            if stage.holder is not None:
                segments = stage.holder.release(now_us)
                for later in stages[number + 1 :]:
                    segments = later.run(segments)
                released += segments
        return [segment.to_bytes() for segment in released]

    def _way(self, direction: str) -> _Way:
        return self._forward if direction == FORWARD else self._backward

    def _pass(self, frame: bytes, way: _Way, now_us: int) -> list[bytes]:
        self._now_us = now_us
        original = parse_segment(frame, self._link_layer)
        if original is None:
            frames = [frame]
            for each in way.frames:
                frames = each.run(frames)
            return frames
        segments = [original]
        for stage in way.segments:
            segments = stage.run(segments)
        return [frame if segment is original else segment.to_bytes() for segment in segments]
