"""Where each connection's data begins, for boxes that have to know: a table that cannot grow for ever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mptcp_stack.wire.sequence import unwrap
from testbed.middlebox.segment import Segment

MAXIMUM_FLOWS: Final = 4096
"""Beyond these the one that was opened first is forgotten: its segments pass as they are."""


@dataclass(slots=True)
class Stream:
    """One direction of a connection. Positions count bytes of data from 0, without end."""

    first: int
    """The sequence number of the first byte."""
    highest: int
    """Unbounded, the furthest position seen."""

    def position(self, sequence: int) -> int:
        """Of a sequence or acknowledgment number; the nearest one that fits."""
        found = unwrap(sequence, self.first + self.highest) - self.first
        self.highest = max(self.highest, found)
        return found

    def sequence(self, position: int) -> int:
        return (self.first + position) & 0xFFFF_FFFF


class FlowTable:
    """The streams that began while the box was there."""

    def __init__(self, limit: int = MAXIMUM_FLOWS) -> None:
        self._streams: dict[bytes, Stream] = {}
        self._limit = limit

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, segment: Segment) -> None:
        """A segment with SYN begins a stream; sent again it begins the same."""
        known = self._streams.get(segment.flow)
        first = (segment.sequence + 1) & 0xFFFF_FFFF
        if known is not None and known.first == first:
            return
        self._streams.pop(segment.flow, None)
        if len(self._streams) >= self._limit:
            del self._streams[next(iter(self._streams))]
        self._streams[segment.flow] = Stream(first, 0)

    def find(self, flow: bytes) -> Stream | None:
        return self._streams.get(flow)

    def forget(self, flow: bytes) -> None:
        self._streams.pop(flow, None)
