"""Which place in the data sequence the bytes of one subflow belong to (RFC 8684 §3.3.1).

A mapping arrives with the first or with all of the segments it covers, in any order, and is kept until the
subflow has delivered all its bytes in order.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from enum import Enum, auto

from mptcp_stack.tcp.retransmission_queue import Mapping
from mptcp_stack.wire.frame import Buffer

MAXIMUM_MAPPINGS = 8192
_SMALL_BYTES = 512


class Addition(Enum):
    ADDED = auto()
    KNOWN = auto()
    CONFLICTING = auto()
    """It overlaps another one that says otherwise."""
    TOO_MANY = auto()


@dataclass(slots=True, eq=False)
class ReceivedMapping:
    """A mapping, and what was received for it while its checksum is not verified yet."""

    mapping: Mapping
    end: int
    """The subflow position behind it."""
    held: list[Buffer] | None = None

    def hold(self, data: memoryview) -> list[Buffer]:
        """Returns all that is held. Small pieces are gathered: a view would keep the frame it came in."""
        if self.held is None:
            self.held = []
        last = self.held[-1] if self.held else None
        if len(data) >= _SMALL_BYTES:
            self.held.append(data)
        elif isinstance(last, bytearray):
            last += data
        else:
            self.held.append(bytearray(data))
        return self.held

    def take_held(self) -> list[Buffer]:
        held, self.held = self.held or [], None
        return held


class MappingTable:
    """Mappings by subflow position; they never overlap."""

    __slots__ = ("_entries", "_starts", "infinite_from", "invalid_at", "latest_start")

    def __init__(self) -> None:
        self.infinite_from: int | None = None
        """The subflow position where the peer's infinite mapping begins."""
        self.invalid_at: int | None = None
        """The subflow position of data that came with a mapping it must not have."""
        self.latest_start = 1
        """The data position of the mapping that was found last."""
        self._starts: list[int] = []
        self._entries: list[ReceivedMapping] = []

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, mapping: Mapping, most: int = MAXIMUM_MAPPINGS) -> Addition:
        """With ``most`` and more there already it is refused."""
        start, end = mapping.subflow_start, mapping.subflow_start + mapping.length
        if not self._entries or self._entries[-1].end <= start:
            index = len(self._entries)
        else:
            index = bisect_right(self._starts, start)
        if index and self._entries[index - 1].end > start:
            is_same = _is_same(self._entries[index - 1].mapping, mapping)
            return Addition.KNOWN if is_same else Addition.CONFLICTING
        if index < len(self._starts) and self._starts[index] < end:
            return Addition.CONFLICTING
        if len(self._entries) >= most:
            return Addition.TOO_MANY
        self._starts.insert(index, start)
        self._entries.insert(index, ReceivedMapping(mapping, end))
        return Addition.ADDED

    def find(self, position: int) -> ReceivedMapping | None:
        """The mapping that covers a subflow position."""
        index = bisect_right(self._starts, position)
        if index:
            entry = self._entries[index - 1]
            if entry.end > position:
                return entry
        return None

    @property
    def half_received(self) -> ReceivedMapping | None:
        """The mapping whose first bytes are held until the last have come."""
        first = self._entries[0] if self._entries else None
        return first if first is not None and first.held else None

    def is_infinite_at(self, position: int) -> bool:
        return self.infinite_from is not None and position >= self.infinite_from

    def drop_before(self, position: int) -> None:
        """Everything before the position has been delivered."""
        count = 0
        while count < len(self._entries) and self._entries[count].end <= position:
            count += 1
        if count:
            del self._starts[:count], self._entries[:count]


def _is_same(known: Mapping, mapping: Mapping) -> bool:
    """Linux adds a DATA_FIN to a mapping between two of its segments, and with it the checksum changes.

    The first form holds, as it does for Linux: its checksum was made for it.
    """
    return (known.subflow_start, known.data_start, known.length) == (
        mapping.subflow_start,
        mapping.data_start,
        mapping.length,
    ) and (known.checksum is None) is (mapping.checksum is None)
