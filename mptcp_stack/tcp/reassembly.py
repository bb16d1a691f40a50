"""Puts byte ranges that arrive in any order into order: at subflow level and at data level alike.

Positions are unbounded integers, so nothing wraps. What is held is bounded twice: by the window, which the
caller checks, and by the number of pieces, so that tiny segments take about as much memory beside their
data as the buffer has for data. Linux counts each packet's memory against the buffer to the same end.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from enum import Enum, auto

from mptcp_stack.wire.frame import Buffer

MAXIMUM_PIECES = 16_384
"""More than the segments of Linux's largest default window, 6 MiB."""
MINIMUM_PIECES = 64
PIECE_BYTES = 256
"""What a piece takes at most beside its data: objects, and places in lists."""
_SMALL_BYTES = 512
_SMALL_SHARE = 4
_GATHER_BYTES = 4096
"""Pieces below this, or below this part of their frame, are copied: a view would keep the whole frame."""
MAXIMUM_REPORTED_RANGES = 4


def most_pieces(buffer_bytes: int) -> int:
    """How many pieces may wait in a buffer for so much data."""
    return min(MAXIMUM_PIECES, max(MINIMUM_PIECES, buffer_bytes // PIECE_BYTES))


def _is_small(piece: memoryview) -> bool:
    length = len(piece)
    return length < _SMALL_BYTES or length * _SMALL_SHARE < memoryview(piece.obj).nbytes


def _kept(view: memoryview) -> Buffer:
    """A copy of what is small, to which more may be added."""
    return bytearray(view) if _is_small(view) else view


class Placement(Enum):
    """Where a range went."""

    IN_ORDER = auto()
    OUT_OF_ORDER_TAIL = auto()
    OUT_OF_ORDER = auto()
    DUPLICATE = auto()
    REFUSED = auto()
    """Too many pieces are held already."""


@dataclass(slots=True)
class _Range:
    """Contiguous bytes held out of order."""

    start: int
    end: int
    pieces: list[Buffer]

    def append(self, view: memoryview) -> int:
        """At the end, where small pieces are gathered; returns how many pieces it has more."""
        last = self.pieces[-1]
        if isinstance(last, bytearray) and len(last) < _GATHER_BYTES and _is_small(view):
            last += view
            return 0
        self.pieces.append(_kept(view))
        return 1


class Reassembly:
    """Finished when the caller has seen the end of data and ``next_position`` has reached it."""

    __slots__ = ("_latest", "_piece_count", "_ranges", "_starts", "buffer_bytes", "merges", "next_position")

    def __init__(self, next_position: int) -> None:
        self.next_position = next_position
        self.buffer_bytes = MAXIMUM_PIECES * PIECE_BYTES
        """For how much data there is room in all: whoever inserts something out of order says it before."""
        self.merges = 0
        """How often an arriving range joined one that was held."""
        self._latest: int | None = None
        self._starts: list[int] = []
        self._ranges: list[_Range] = []
        self._piece_count = 0

    @property
    def is_empty(self) -> bool:
        return not self._starts

    @property
    def end(self) -> int:
        """The position after the last byte that is held, or was."""
        return self._ranges[-1].end if self._ranges else self.next_position

    @property
    def piece_count(self) -> int:
        """Buffers held out of order."""
        return self._piece_count

    def insert(self, position: int, data: Buffer) -> tuple[Placement, list[Buffer]]:
        """Adds a range; returns where it went and what is now in order, oldest first."""
        end = position + len(data)
        if end <= self.next_position:
            return Placement.DUPLICATE, []
        if position > self.next_position:
            return self._hold(position, end, data), []
        if position < self.next_position:
            view = memoryview(data)[self.next_position - position :]
            data = bytes(view) if _is_small(view) else view
        ready = [data]
        self.next_position = end
        if self._starts and self._starts[0] <= end:
            self._take_reached(ready)
        return Placement.IN_ORDER, ready

    def _take_reached(self, ready: list[Buffer]) -> None:
        # Ranges that touch are one, so that taking the last of these reaches no further one.
        count = bisect_right(self._starts, self.next_position)
        reached = self._ranges[:count]
        del self._starts[:count], self._ranges[:count]
        for held in reached:
            self._piece_count -= len(held.pieces)
            skip = self.next_position - held.start
            for piece in held.pieces:
                if skip < len(piece):
                    ready.append(memoryview(piece)[skip:] if skip else piece)
                skip = max(0, skip - len(piece))
            self.next_position = max(self.next_position, held.end)

    def _hold(self, position: int, end: int, data: Buffer) -> Placement:
        """Fills the gaps that the range covers; what is already held stays (RFC 9293 §3.10.7.4)."""
        if self._piece_count >= most_pieces(self.buffer_bytes):
            return Placement.REFUSED
        at_tail = not self._ranges or position >= self._ranges[-1].end
        view = memoryview(data)
        added = False
        cursor = position
        while cursor < end:
            index = bisect_right(self._starts, cursor)
            if index and self._ranges[index - 1].end > cursor:
                cursor = self._ranges[index - 1].end
                continue
            stop = min(end, self._starts[index]) if index < len(self._starts) else end
            self._add(index, cursor, stop, view[cursor - position : stop - position])
            added = True
            cursor = stop
        self._latest = position
        if not added:
            return Placement.DUPLICATE
        return Placement.OUT_OF_ORDER_TAIL if at_tail else Placement.OUT_OF_ORDER

    def _add(self, index: int, start: int, end: int, view: memoryview) -> None:
        """Puts a piece into the gap before range ``index``, joined with the neighbours that it touches."""
        left = self._ranges[index - 1] if index and self._ranges[index - 1].end == start else None
        right = self._ranges[index] if index < len(self._ranges) and self._starts[index] == end else None
        if left is not None:
            self._piece_count += left.append(view)
            left.end = end
            self.merges += 1
        else:
            self._piece_count += 1
        if right is not None:
            self.merges += 1
            if left is None:
                right.pieces.insert(0, _kept(view))
                right.start = self._starts[index] = start
            else:
                left.pieces.extend(right.pieces)
                left.end = right.end
                del self._starts[index], self._ranges[index]
        elif left is None:
            self._starts.insert(index, start)
            self._ranges.insert(index, _Range(start, end, [_kept(view)]))

    def first_overlap(self, start: int, end: int) -> tuple[int, int] | None:
        """The first part of [start, end) that is held out of order."""
        index = max(0, bisect_right(self._starts, start) - 1)
        for held in self._ranges[index : index + 2]:
            if held.start < end and start < held.end:
                return max(start, held.start), min(end, held.end)
        return None

    def continues_latest(self, position: int) -> bool:
        """Whether the range that grew last ends there."""
        if self._latest is None or not self._ranges:
            return False
        return self._ranges[max(0, bisect_right(self._starts, self._latest) - 1)].end == position

    def ranges(self) -> list[tuple[int, int]]:
        """What is held out of order as (start, end), the latest first, at most four (RFC 2018 §4)."""
        result: list[tuple[int, int]] = []
        if self._latest is not None and self._ranges:
            held = self._ranges[max(0, bisect_right(self._starts, self._latest) - 1)]
            result.append((held.start, held.end))
        for held in reversed(self._ranges):
            if len(result) == MAXIMUM_REPORTED_RANGES:
                break
            if (held.start, held.end) not in result:
                result.append((held.start, held.end))
        return result
