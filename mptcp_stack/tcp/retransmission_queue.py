"""What was sent and is not acknowledged yet, and which of it is lost.

The queue holds *chunks*: ranges of the sequence space as they were handed to the device, a super-segment
being one chunk. ``bytes_in_flight`` is RFC 6675's "pipe": what is believed to be on its way. A chunk leaves
the pipe when it is acknowledged, selectively acknowledged, or marked lost, and enters it when sent again.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from operator import itemgetter

from mptcp_stack.tcp.buffers import Parts, slice_parts
from mptcp_stack.wire.tcp_segment import FIN, PSH, SYN

DUPLICATE_THRESHOLD = 3
"""RFC 5681 §3.2, RFC 6675 §2 (DupThresh)."""


@dataclass(slots=True, eq=False)
class Mapping:
    """Where a run of subflow bytes belongs in the data sequence (RFC 8684 §3.3.1).

    Positions are unbounded: ``data_start`` counts from the sender's initial data sequence number,
    ``subflow_start`` from the subflow's initial sequence number (its first byte is 1).
    """

    data_start: int
    subflow_start: int
    length: int
    checksum: int | None = None
    has_data_fin: bool = False


@dataclass(slots=True, eq=False)
class Chunk:
    """A range [sequence, end) of the subflow's sequence space; SYN and FIN take one number each."""

    sequence: int
    end: int
    payload: Parts
    flags: int
    sent_us: int
    mapping: Mapping | None = None
    transmissions: int = 1
    in_pipe: bool = True
    is_sacked: bool = False
    is_lost: bool = False

    @property
    def length(self) -> int:
        return self.end - self.sequence

    @property
    def data_length(self) -> int:
        """Without the numbers that SYN and FIN take."""
        return self.end - self.sequence - bool(self.flags & (SYN | FIN)) if self.payload else 0


@dataclass(slots=True)
class Acknowledged:
    """What one acknowledgement told."""

    newly_delivered_bytes: int = 0
    """Acknowledged for the first time, selectively or not."""
    cumulative_bytes: int = 0
    latest_sent_us: int | None = None
    """When the latest delivered chunk that was sent only once was sent: an RTT sample by Karn's rule."""
    latest_sent_again_us: int | None = None
    """When the latest delivered chunk that was sent more than once was sent last."""

    @property
    def has_retransmitted(self) -> bool:
        return self.latest_sent_again_us is not None


class RetransmissionQueue:
    """Chunks in sequence order. Empty when everything that was sent has been acknowledged."""

    __slots__ = (
        "_examined_to",
        "_first_lost_from",
        "_known_blocks",
        "_sent_again",
        "_starts",
        "bytes_in_flight",
        "chunks",
        "highest_sacked",
        "lost_count",
        "sacked_bytes",
    )

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self._starts: list[int] = []
        self.bytes_in_flight = 0
        self.lost_count = 0
        self.sacked_bytes = 0
        self.highest_sacked = 0
        # Where the two searches may start, so that neither looks at the same chunks for every segment.
        self._examined_to = 0
        self._first_lost_from = 0
        self._known_blocks: list[tuple[int, int]] = []
        # Retransmissions by the time they were sent; stale entries are skipped when they come up.
        self._sent_again: list[tuple[int, Chunk]] = []

    def __len__(self) -> int:
        return len(self.chunks)

    def append(self, chunk: Chunk) -> None:
        """A chunk that was just sent for the first time."""
        self.chunks.append(chunk)
        self._starts.append(chunk.sequence)
        self.bytes_in_flight += chunk.length

    def acknowledge(self, acknowledgement: int, sack_blocks: list[tuple[int, int]]) -> Acknowledged:
        """Takes a cumulative acknowledgement and the SACK blocks of one segment (all positions unbounded)."""
        result = Acknowledged()
        self._acknowledge_cumulatively(acknowledgement, result)
        for block in sack_blocks:
            # Blocks grow with every segment that arrives: only what is new in them is looked at.
            for start, end in _without(block, self._known_blocks):
                if end > acknowledgement:
                    self._acknowledge_selectively(max(start, acknowledgement), end, result)
        self._known_blocks = sack_blocks
        return result

    def _acknowledge_cumulatively(self, acknowledgement: int, result: Acknowledged) -> None:
        count = 0
        for chunk in self.chunks:
            if chunk.sequence >= acknowledgement:
                break
            if chunk.end > acknowledgement:
                self._split(count, acknowledgement)
            self._on_delivered(chunk, result)
            if chunk.is_sacked:
                self.sacked_bytes -= chunk.length
            result.cumulative_bytes += chunk.length
            count += 1
        if count:
            del self.chunks[:count], self._starts[:count]

    def _acknowledge_selectively(self, start: int, end: int, result: Acknowledged) -> None:
        index = bisect_left(self._starts, start)
        if index and self.chunks[index - 1].end > start:
            self._split(index - 1, start)
        while index < len(self.chunks) and self._starts[index] < end:
            chunk = self.chunks[index]
            if chunk.end > end:
                self._split(index, end)
            if not chunk.is_sacked:
                self._on_delivered(chunk, result)
                chunk.is_sacked = True
                self.sacked_bytes += chunk.length
                self.highest_sacked = max(self.highest_sacked, chunk.end)
            index += 1

    def _on_delivered(self, chunk: Chunk, result: Acknowledged) -> None:
        if chunk.is_sacked:
            return
        result.newly_delivered_bytes += chunk.length
        if chunk.transmissions > 1:
            result.latest_sent_again_us = max(result.latest_sent_again_us or 0, chunk.sent_us)
        elif result.latest_sent_us is None or chunk.sent_us > result.latest_sent_us:
            result.latest_sent_us = chunk.sent_us
        self._leave_pipe(chunk)
        self._unmark_lost(chunk)

    def _leave_pipe(self, chunk: Chunk) -> None:
        if chunk.in_pipe:
            chunk.in_pipe = False
            self.bytes_in_flight -= chunk.length

    def _unmark_lost(self, chunk: Chunk) -> None:
        if chunk.is_lost:
            chunk.is_lost = False
            self.lost_count -= 1

    def _split(self, index: int, position: int) -> None:
        """Cuts a chunk in two at ``position``; both halves keep the mapping of the whole."""
        chunk = self.chunks[index]
        cut = position - chunk.sequence
        second = Chunk(
            position,
            chunk.end,
            slice_parts(chunk.payload, cut, chunk.length),
            chunk.flags,
            chunk.sent_us,
            chunk.mapping,
            chunk.transmissions,
            chunk.in_pipe,
            chunk.is_sacked,
            chunk.is_lost,
        )
        chunk.payload = slice_parts(chunk.payload, 0, cut)
        chunk.end = position
        chunk.flags &= ~(FIN | PSH)
        self.chunks.insert(index + 1, second)
        self._starts.insert(index + 1, position)
        if chunk.is_lost:
            self.lost_count += 1
        if chunk.in_pipe and chunk.transmissions > 1:
            insort(self._sent_again, (chunk.sent_us, second), key=itemgetter(0))

    def mark_lost_by_sack(self, segment_bytes: int) -> int:
        """RFC 6675 §4 IsLost(): enough was selectively acknowledged above. Returns the bytes newly lost.

        A chunk that was sent again is left to ``mark_lost_retransmissions``.
        """
        # What ends below this has more than two segments above it.
        limit = self.highest_sacked - (DUPLICATE_THRESHOLD - 1) * segment_bytes
        lost = 0
        index = bisect_left(self._starts, self._examined_to)
        while index < len(self.chunks):
            chunk = self.chunks[index]
            if chunk.sequence + min(chunk.length, segment_bytes) >= limit:
                break
            if chunk.end >= limit and not chunk.is_sacked:
                self._split(
                    index, chunk.sequence + (limit - 1 - chunk.sequence) // segment_bytes * segment_bytes
                )
            if not chunk.is_sacked and not chunk.is_lost:
                lost += self._mark_lost(chunk)
            self._examined_to = chunk.end
            index += 1
        return lost

    def mark_lost_retransmissions(self, before_us: int) -> int:
        """RFC 8985 §6.2: something that was sent after a retransmission arrived, and it did not.

        Those sent before ``before_us`` leave the pipe, so that they go out once more; returns their bytes.
        """
        lost = count = 0
        for sent_us, chunk in self._sent_again:
            if chunk.in_pipe and chunk.sent_us == sent_us:
                if sent_us >= before_us:
                    break
                lost += chunk.length
                self._leave_pipe(chunk)
                self._first_lost_from = min(self._first_lost_from, chunk.sequence)
            count += 1
        del self._sent_again[:count]
        return lost

    def mark_first_lost(self, segment_bytes: int) -> int:
        """Without SACK: the first unacknowledged segment is lost (RFC 6582 §3.2). Returns the bytes."""
        if not self.chunks or self.chunks[0].is_lost:
            return 0
        if self.chunks[0].data_length > segment_bytes:
            self._split(0, self.chunks[0].sequence + segment_bytes)
        return self._mark_lost(self.chunks[0])

    def mark_long_lost(self, segment_bytes: int) -> int:
        """What does not fit into one segment now that the path's MTU is smaller. Returns the bytes."""
        lost = 0
        for chunk in self.chunks:
            if chunk.is_sacked or chunk.data_length <= segment_bytes:
                continue
            lost += chunk.length
            if not chunk.is_lost:
                self._mark_lost(chunk)
            else:
                self._leave_pipe(chunk)
                self._first_lost_from = min(self._first_lost_from, chunk.sequence)
        return lost

    def mark_all_lost(self) -> None:
        """After a timeout everything that is not selectively acknowledged counts as lost (RFC 6675 §5.1).

        A selective acknowledgement of the very next byte was taken back since, or the timer would not have
        fired: then none of them counts any more (RFC 2018 §8).
        """
        if self.chunks and self.chunks[0].is_sacked:
            self._forget_selective_acknowledgements()
        for chunk in self.chunks:
            if not chunk.is_sacked and not chunk.is_lost:
                self._mark_lost(chunk)
            elif chunk.is_lost:
                self._leave_pipe(chunk)
        if self.chunks:
            self._first_lost_from = self.chunks[0].sequence

    def _forget_selective_acknowledgements(self) -> None:
        for chunk in self.chunks:
            chunk.is_sacked = False
        self.sacked_bytes = self.highest_sacked = 0
        self._known_blocks = []

    def _mark_lost(self, chunk: Chunk) -> int:
        self._leave_pipe(chunk)
        chunk.is_lost = True
        self.lost_count += 1
        self._first_lost_from = min(self._first_lost_from, chunk.sequence)
        return chunk.length

    def next_lost(self, limit_bytes: int, segment_bytes: int) -> Chunk | None:
        """The first lost chunk that is not on its way again, cut to ``limit_bytes`` (whole segments)."""
        if not self.lost_count:
            return None
        for index in range(bisect_left(self._starts, self._first_lost_from), len(self.chunks)):
            chunk = self.chunks[index]
            self._first_lost_from = chunk.sequence
            if chunk.is_lost and not chunk.in_pipe:
                allowed = max(segment_bytes, limit_bytes // segment_bytes * segment_bytes)
                if chunk.length > allowed:
                    self._split(index, chunk.sequence + allowed)
                return chunk
            self._first_lost_from = chunk.end
        return None

    def on_sent_again(self, chunk: Chunk, now_us: int) -> None:
        chunk.transmissions += 1
        chunk.sent_us = now_us
        self._sent_again.append((now_us, chunk))
        if not chunk.in_pipe:
            chunk.in_pipe = True
            self.bytes_in_flight += chunk.length

    def clear(self) -> None:
        self.chunks.clear()
        self._starts.clear()
        self.bytes_in_flight = self.lost_count = self.sacked_bytes = self.highest_sacked = 0
        self._examined_to = self._first_lost_from = 0
        self._known_blocks = []
        self._sent_again.clear()


def _without(block: tuple[int, int], known: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The parts of a range that none of the known ranges covers."""
    parts = [block]
    for known_start, known_end in known:
        parts = [
            (first, last)
            for start, end in parts
            for first, last in ((start, min(end, known_start)), (max(start, known_end), end))
            if first < last
        ]
    return parts
