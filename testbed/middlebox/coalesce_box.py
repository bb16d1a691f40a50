"""A box that joins consecutive segments of a connection, as network cards and some proxies do.

It waits for the next segment a short time; what it makes is a longer one with the options of the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from testbed.middlebox.segment import ACK, FIN, PSH, Segment
from testbed.middlebox.settings import Coalesce

MAXIMUM_HELD: Final = 1024
"""Of so many connections at once; beyond, segments pass as they are."""


class CoalesceBox:
    """See :class:`testbed.middlebox.settings.Coalesce`."""

    def __init__(self, settings: Coalesce, clock: Callable[[], int]) -> None:
        self._packet_bytes = settings.packet_bytes
        self._wants_equal_options = settings.options == "equal"
        self._hold_us = settings.hold_us
        self._clock = clock
        self._held: dict[bytes, tuple[Segment, int]] = {}
        self.joined = 0
        """Segments that became part of the one before."""

    def pass_with(self, segment: Segment) -> list[Segment]:
        flow = segment.flow
        held = self._held.pop(flow, None)
        passing: list[Segment] = []
        if held is not None:
            if self._fits(held[0], segment):
                self.joined += 1
                segment = _joined(held[0], segment)
            else:
                passing.append(held[0])
        if self._may_grow(segment):
            self._held[flow] = segment, self._clock() + self._hold_us
        else:
            passing.append(segment)
        return passing

    def pass_against(self, segment: Segment) -> list[Segment]:
        return [segment]

    def next_release_us(self) -> int | None:
        """When a segment has waited long enough; None while none waits."""
        return min((at_us for _segment, at_us in self._held.values()), default=None)

    def release(self, now_us: int) -> list[Segment]:
        """Those that have, in the order in which they came."""
        due = [flow for flow, (_segment, at_us) in self._held.items() if at_us <= now_us]
        return [self._held.pop(flow)[0] for flow in due]

    def _may_grow(self, segment: Segment) -> bool:
        is_data = bool(segment.payload) and segment.flags & ~PSH == ACK
        return is_data and _length(segment) < self._packet_bytes and len(self._held) < MAXIMUM_HELD

    def _fits(self, held: Segment, segment: Segment) -> bool:
        """Whether a segment continues the one that waits, and both are no longer than allowed."""
        continues = segment.sequence == (held.sequence + len(held.payload)) & 0xFFFF_FFFF
        is_data = bool(segment.payload) and segment.flags & ~(PSH | FIN) == ACK
        if not (continues and is_data) or _length(held) + len(segment.payload) > self._packet_bytes:
            return False
        return segment.options == held.options or not self._wants_equal_options


def _length(segment: Segment) -> int:
    """Of the IP packet."""
    options = -(-len(segment.options) // 4) * 4
    return len(segment.headers) - segment.network_offset + 20 + options + len(segment.payload)


def _joined(first: Segment, second: Segment) -> Segment:
    return replace(
        first,
        payload=first.payload + second.payload,
        flags=first.flags | second.flags,
        acknowledgment=second.acknowledgment,
        window=second.window,
    )
