"""All boxes of one link, from frame to frames; the same code in every kind of lab."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from mptcp_stack.device.interface import LinkLayer
from testbed.middlebox.option_boxes import DropMptcpSynsBox, DuplicateOptionsBox, StripBox
from testbed.middlebox.segment import Segment, parse_segment
from testbed.middlebox.settings import (
    BACKWARD,
    BOTH,
    FORWARD,
    BoxSettings,
    DropMptcpSyns,
    DuplicateOptions,
    Firewall,
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


class Box(Protocol):
    """One box that acts in one direction. What it does not change it returns as the same object."""

    def pass_with(self, segment: Segment) -> list[Segment]:
        """What goes on in place of a segment that travels in its direction."""
        ...

    def pass_against(self, segment: Segment) -> list[Segment]:
        """What goes on in place of one that comes the other way."""
        ...


def _make(settings: BoxSettings, seed: int) -> Box:
    match settings:
        case Strip():
            return StripBox(settings)
        case DropMptcpSyns():
            return DropMptcpSynsBox(settings)
        case DuplicateOptions():
            return DuplicateOptionsBox(settings)
        case Split():
            return SplitBox(settings)
        case RandomiseSequence():
            return RandomiseSequenceBox(settings, seed)
        case Rewrite():
            return RewriteBox(settings)
        case Reset():
            return ResetBox(settings)
        case Firewall():
            return FirewallBox(settings)


class Middlebox:
    """The boxes of a link, the first of them nearest to the link's first end."""

    def __init__(
        self, boxes: Sequence[BoxSettings], seed: int, link_layer: LinkLayer = LinkLayer.ETHERNET
    ) -> None:
        self._link_layer = link_layer
        # A box for both directions is two, one for each.
        forward: list[Callable[[Segment], list[Segment]]] = []
        backward: list[Callable[[Segment], list[Segment]]] = []
        for number, settings in enumerate(boxes):
            if settings.direction in (FORWARD, BOTH):
                box = _make(settings, seed + 2 * number)
                forward.append(box.pass_with)
                backward.insert(0, box.pass_against)
            if settings.direction in (BACKWARD, BOTH):
                box = _make(settings, seed + 2 * number + 1)
                forward.append(box.pass_against)
                backward.insert(0, box.pass_with)
        self._forward, self._backward = tuple(forward), tuple(backward)

    def forward(self, frame: bytes) -> list[bytes]:
        """What goes on to the second end in place of a frame from the first."""
        return self._pass(frame, self._forward)

    def backward(self, frame: bytes) -> list[bytes]:
        return self._pass(frame, self._backward)

    def _pass(self, frame: bytes, stages: Sequence[Callable[[Segment], list[Segment]]]) -> list[bytes]:
        original = parse_segment(frame, self._link_layer)
        if original is None:
            return [frame]
        segments = [original]
        for stage in stages:
            segments = [result for segment in segments for result in stage(segment)]
        return [frame if segment is original else segment.to_bytes() for segment in segments]
