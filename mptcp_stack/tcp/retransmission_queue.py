"""What was sent and is not acknowledged yet, and which of it is lost.

The queue holds *chunks*: ranges of the sequence space as they were handed to the device, a super-segment
being one chunk. ``bytes_in_flight`` is RFC 6675's "pipe": what is believed to be on its way. A chunk leaves
the pipe when it is acknowledged, selectively acknowledged, or marked lost, and enters it when sent again.

What is in the pipe is also linked in the order in which it was sent last, which is how RACK looks for losses
(RFC 8985 §6.2): each acknowledgement costs what it removes, not what is in flight.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from mptcp_stack.tcp.buffers import Parts, slice_parts
from mptcp_stack.wire.tcp_segment import FIN, PSH, SYN


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
    earlier: Chunk | None = field(default=None, repr=False)
    """The one in the pipe that was sent before this, and in ``later`` the one after."""
    later: Chunk | None = field(default=None, repr=False)

    @property
    def length(self) -> int:
        return self.end - self.sequence

    @property
    def data_length(self) -> int:
        """Without the numbers that SYN and FIN take."""
        return self.end - self.sequence - bool(self.flags & (SYN | FIN)) if self.payload else 0


_NO_POSITION = 1 << 63


@dataclass(slots=True)
class Acknowledged:
    """What one acknowledgement told. Times of chunks are those of their last transmission."""

    newly_delivered_bytes: int = 0
    """Acknowledged for the first time, selectively or not."""
    newly_delivered_chunks: int = 0
    """How many of those with data that was in."""
    cumulative_bytes: int = 0
    newly_sacked: bool = False
    has_retransmitted: bool = False
    """Something that was sent more than once is acknowledged cumulatively: no sample by Karn's rule."""
    first_sent_us: int | None = None
    """Of the first chunk acknowledged cumulatively, and for the first time, that was sent once."""
    last_sent_us: int | None = None
    first_sacked_sent_us: int | None = None
    """Of the first chunk newly acknowledged selectively that was sent once."""
    last_sacked_sent_us: int | None = None
    latest_sent_us: int | None = None
    """Of the delivered chunk that was sent last, which RACK goes by (RFC 8985 §6.2, step 2)."""
    latest_sent_end: int = 0
    lowest_original_end: int = _NO_POSITION
    """The least end of a newly delivered chunk that was sent only once (F-RTO)."""
    lowest_reordered: int = _NO_POSITION
    """Where the first such chunk starts that arrived after something above it."""


class RetransmissionQueue:
    """Chunks in sequence order. Empty when everything that was sent has been acknowledged."""

    __slots__ = (
        "_first_lost_from",
        "_known_blocks",
        "_latest",
        "_starts",
        "again_bytes",
        "bytes_in_flight",
        "chunks",
        "chunks_in_flight",
        "highest_sacked",
        "lost_count",
        "oldest",
        "sacked_bytes",
    )

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self._starts: list[int] = []
        self.bytes_in_flight = 0
        self.chunks_in_flight = 0
        self.again_bytes = 0
        """Of what is in flight, what was lost and is on its way again."""
        self.lost_count = 0
        self.sacked_bytes = 0
        self.highest_sacked = 0
        # Where the search may start, so that it does not look at the same chunks for every segment.
        self._first_lost_from = 0
        self._known_blocks: Sequence[tuple[int, int]] = ()
        self.oldest: Chunk | None = None
        """Of what is in the pipe, the one that was sent first; ``later`` leads on."""
        self._latest: Chunk | None = None

    def __len__(self) -> int:
        return len(self.chunks)

    def append(self, chunk: Chunk) -> None:
        """A chunk that was just sent for the first time."""
        self.chunks.append(chunk)
        self._starts.append(chunk.sequence)
        self.bytes_in_flight += chunk.end - chunk.sequence
        self._link_as_latest(chunk)

    def acknowledge(
        self, acknowledgement: int, sack_blocks: list[tuple[int, int]], credible_us: int = _NO_POSITION
    ) -> Acknowledged:
        """Takes a cumulative acknowledgement and the SACK blocks of one segment (all positions unbounded).

        A retransmission sent after ``credible_us`` cannot have been acknowledged yet: it was the original.
        """
        result = Acknowledged()
        highest_before = self.highest_sacked if self.sacked_bytes else 0
        self._acknowledge_cumulatively(acknowledgement, result, credible_us, highest_before)
        if not sack_blocks:
            return result
        for block in sorted(sack_blocks):
            # Blocks grow with every segment that arrives: only what is new in them is looked at.
            for start, end in _without(block, self._known_blocks):
                if end > acknowledgement:
                    self._acknowledge_selectively(max(start, acknowledgement), end, result, credible_us)
        self._known_blocks = sack_blocks
        return result

    def _acknowledge_cumulatively(
        self, acknowledgement: int, result: Acknowledged, credible_us: int, highest_sacked: int
    ) -> None:
        count = 0
        for chunk in self.chunks:
            if chunk.sequence >= acknowledgement:
                break
            if chunk.end > acknowledgement:
                self._split(count, acknowledgement)
            if chunk.transmissions > 1:
                result.has_retransmitted = True
            elif not chunk.is_sacked:
                result.last_sent_us = chunk.sent_us
                if result.first_sent_us is None:
                    result.first_sent_us = chunk.sent_us
            if chunk.is_sacked:
                self.sacked_bytes -= chunk.length
            else:
                self._on_delivered(chunk, result, credible_us, highest_sacked)
            result.cumulative_bytes += chunk.length
            count += 1
        if count:
            del self.chunks[:count], self._starts[:count]

    def _acknowledge_selectively(self, start: int, end: int, result: Acknowledged, credible_us: int) -> None:
        index = bisect_left(self._starts, start)
        if index and self.chunks[index - 1].end > start:
            self._split(index - 1, start)
        while index < len(self.chunks) and self._starts[index] < end:
            chunk = self.chunks[index]
            if chunk.end > end:
                self._split(index, end)
            if not chunk.is_sacked:
                if chunk.transmissions == 1:
                    result.last_sacked_sent_us = chunk.sent_us
                    if result.first_sacked_sent_us is None:
                        result.first_sacked_sent_us = chunk.sent_us
                self._on_delivered(chunk, result, credible_us, self.highest_sacked)
                chunk.is_sacked = result.newly_sacked = True
                self.sacked_bytes += chunk.length
                self.highest_sacked = max(self.highest_sacked, chunk.end)
            index += 1

    def _on_delivered(
        self, chunk: Chunk, result: Acknowledged, credible_us: int, highest_sacked: int
    ) -> None:
        """Delivered for the first time; what was above it was delivered up to ``highest_sacked``."""
        result.newly_delivered_bytes += chunk.length
        if chunk.payload:
            result.newly_delivered_chunks += 1
        if chunk.transmissions == 1:
            result.lowest_original_end = min(result.lowest_original_end, chunk.end)
            if chunk.sequence < highest_sacked:
                result.lowest_reordered = min(result.lowest_reordered, chunk.sequence)
        if chunk.transmissions == 1 or chunk.sent_us <= credible_us:
            latest_us = result.latest_sent_us
            if latest_us is None or (chunk.sent_us, chunk.end) > (latest_us, result.latest_sent_end):
                result.latest_sent_us, result.latest_sent_end = chunk.sent_us, chunk.end
        self._leave_pipe(chunk)
        self._unmark_lost(chunk)

    def _link_as_latest(self, chunk: Chunk) -> None:
        self.chunks_in_flight += 1
        chunk.earlier, chunk.later = self._latest, None
        if self._latest is None:
            self.oldest = chunk
        else:
            self._latest.later = chunk
        self._latest = chunk

    def _unlink(self, chunk: Chunk) -> None:
        self.chunks_in_flight -= 1
        if chunk.earlier is None:
            self.oldest = chunk.later
        else:
            chunk.earlier.later = chunk.later
        if chunk.later is None:
            self._latest = chunk.earlier
        else:
            chunk.later.earlier = chunk.earlier
        chunk.earlier = chunk.later = None

    def _leave_pipe(self, chunk: Chunk) -> None:
        if chunk.in_pipe:
            chunk.in_pipe = False
            self.bytes_in_flight -= chunk.length
            if chunk.is_lost:
                self.again_bytes -= chunk.length
            self._unlink(chunk)

    def _unmark_lost(self, chunk: Chunk) -> None:
        if chunk.is_lost:
            chunk.is_lost = False
            self.lost_count -= 1
            if chunk.in_pipe:
                self.again_bytes -= chunk.length

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
        if chunk.in_pipe:
            self._link_after(chunk, second)

    def _link_after(self, chunk: Chunk, second: Chunk) -> None:
        self.chunks_in_flight += 1
        second.earlier, second.later = chunk, chunk.later
        if chunk.later is None:
            self._latest = second
        else:
            chunk.later.earlier = second
        chunk.later = second

    def mark_lost(self, chunk: Chunk) -> None:
        """What is in the pipe is lost; when it was sent again before, that was lost as well."""
        self._leave_pipe(chunk)
        if not chunk.is_lost:
            chunk.is_lost = True
            self.lost_count += 1
        self._first_lost_from = min(self._first_lost_from, chunk.sequence)

    def mark_first_lost(self, segment_bytes: int) -> int:
        """Without SACK: the first unacknowledged segment is lost (RFC 6582 §3.2). Returns the bytes."""
        if not self.chunks or self.chunks[0].is_lost:
            return 0
        if self.chunks[0].data_length > segment_bytes:
            self._split(0, self.chunks[0].sequence + segment_bytes)
        self.mark_lost(self.chunks[0])
        return self.chunks[0].length

    def mark_long_lost(self, segment_bytes: int) -> int:
        """What does not fit into one segment now that the path's MTU is smaller. Returns the bytes."""
        lost = 0
        for chunk in self.chunks:
            if chunk.is_sacked or chunk.data_length <= segment_bytes:
                continue
            lost += chunk.length
            self.mark_lost(chunk)
        return lost

    def mark_timed_out(self, spared_after_us: int = _NO_POSITION) -> None:
        """After a timeout what is not selectively acknowledged counts as lost (RFC 8985 §6.3, RFC 6675 §5.1).

        Except what was sent after ``spared_after_us``, which an acknowledgement may still be coming for; the
        first chunk is never spared. A selective acknowledgement of the very next byte was taken back since,
        or the timer would not have fired: then none of them counts any more (RFC 2018 §8).
        """
        if not self.chunks:
            return
        was_taken_back = self.chunks[0].is_sacked
        if was_taken_back:
            self._forget_selective_acknowledgements()
        for index, chunk in enumerate(self.chunks):
            if not chunk.is_sacked and (was_taken_back or not index or chunk.sent_us <= spared_after_us):
                self.mark_lost(chunk)
        self._first_lost_from = self.chunks[0].sequence

    def restore_lost(self) -> None:
        """Nothing was lost after all (RFC 4015 §3.2): what was sent once is on its way still."""
        for chunk in self.chunks:
            if chunk.is_lost:
                self._unmark_lost(chunk)
            if not chunk.in_pipe and not chunk.is_sacked:
                chunk.in_pipe = True
                self.bytes_in_flight += chunk.length
        self.oldest = self._latest = None
        self.chunks_in_flight = 0
        for chunk in sorted(self.chunks, key=lambda chunk: (chunk.sent_us, chunk.end)):
            if chunk.in_pipe:
                self._link_as_latest(chunk)

    def was_sent_again(self, start: int, end: int) -> bool:
        """Whether a chunk within the range was sent more than once."""
        index = max(0, bisect_left(self._starts, start + 1) - 1)
        while index < len(self.chunks) and self._starts[index] < end:
            if self.chunks[index].transmissions > 1 and self.chunks[index].end > start:
                return True
            index += 1
        return False

    def _forget_selective_acknowledgements(self) -> None:
        for chunk in self.chunks:
            chunk.is_sacked = False
        self.sacked_bytes = self.highest_sacked = 0
        self._known_blocks = ()

    def next_lost(self, limit_bytes: int, segment_bytes: int) -> Chunk | None:
        """The first lost chunk that is not on its way again, cut to ``limit_bytes`` (whole segments)."""
        if not self.lost_count:
            return None
        for index in range(bisect_left(self._starts, self._first_lost_from), len(self.chunks)):
            chunk = self.chunks[index]
            self._first_lost_from = chunk.sequence
            if chunk.is_lost and not chunk.in_pipe:
                allowed = max(segment_bytes, limit_bytes // segment_bytes * segment_bytes)
                if chunk.data_length > allowed:
                    self._split(index, chunk.sequence + allowed)
                return chunk
            self._first_lost_from = chunk.end
        return None

    def last_segment(self, segment_bytes: int) -> Chunk | None:
        """The last segment of the last chunk, cut off from it if need be."""
        if not self.chunks:
            return None
        chunk = self.chunks[-1]
        whole = (chunk.data_length - 1) // segment_bytes * segment_bytes
        if whole > 0:
            self._split(len(self.chunks) - 1, chunk.sequence + whole)
        return self.chunks[-1]

    def on_sent_again(self, chunk: Chunk, now_us: int) -> None:
        chunk.transmissions += 1
        chunk.sent_us = now_us
        if chunk.in_pipe:
            self._unlink(chunk)
        elif not chunk.is_sacked:
            chunk.in_pipe = True
            self.bytes_in_flight += chunk.length
            if chunk.is_lost:
                self.again_bytes += chunk.length
        if chunk.in_pipe:
            self._link_as_latest(chunk)

    def clear(self) -> None:
        for chunk in self.chunks:
            # Else they would hold each other until the next collection of cycles.
            chunk.earlier = chunk.later = None
        self.chunks.clear()
        self._starts.clear()
        self.bytes_in_flight = self.lost_count = self.sacked_bytes = self.highest_sacked = 0
        self.again_bytes = self.chunks_in_flight = self._first_lost_from = 0
        self._known_blocks = ()
        self.oldest = self._latest = None


def _without(block: tuple[int, int], known: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
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
