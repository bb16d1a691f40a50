"""The data that a connection has still to deliver: written, sent on some subflow, acknowledged at data level.

Positions count from the initial data sequence number: the first byte is at 1 (RFC 8684 §3.3). Empty, and
finished, when ``una`` has passed the position of DATA_FIN.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from typing import TYPE_CHECKING

from mptcp_stack.tcp.buffers import ByteQueue, Parts, slice_parts
from mptcp_stack.wire.frame import Buffer

if TYPE_CHECKING:
    from mptcp_stack.mptcp.subflow import MptcpSubflow


PIECE_BYTES = 32768
"""Whether there is room is asked before each piece of this size and not before each byte, as in Linux."""


class Outstanding:
    """A run of data that a subflow carries."""

    __slots__ = ("carrier", "end", "is_queued_again", "payload", "start")

    def __init__(
        self, start: int, end: int, payload: Parts, carrier: MptcpSubflow, is_queued_again: bool = False
    ) -> None:
        self.start = start
        self.end = end
        self.payload = payload
        self.carrier = carrier
        self.is_queued_again = is_queued_again


class SendBuffer:
    """``una`` and ``nxt`` are the data-level snd_una and snd_nxt, ``window_edge`` the window's right edge.

    ``timeout_us``: how long ``una`` may stand still before the oldest data goes out again; 0: not yet told.
    ``is_short``: writers wait for room.
    The runs that are outstanding are None while there are none: an idle connection is to stay small.
    """

    __slots__ = (
        "_outstanding",
        "_reinjections",
        "is_short",
        "limit",
        "nxt",
        "timeout_us",
        "una",
        "unsent",
        "window_edge",
    )

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.is_short = False
        self.una = self.nxt = self.window_edge = 1
        self.timeout_us = 0
        self.unsent = ByteQueue()
        self._outstanding: deque[Outstanding] | None = None
        self._reinjections: list[tuple[int, Outstanding]] = []

    @property
    def writable_bytes(self) -> int:
        """What a write would take now: whole pieces, the last of which may exceed the limit."""
        free = self.limit - self.held_bytes
        return -(-free // PIECE_BYTES) * PIECE_BYTES if free > 0 else 0

    @property
    def is_writable(self) -> bool:
        """A third of it is free: when Linux wakes who waits for room."""
        held = self.held_bytes
        return held < self.limit and self.limit - held >= held >> 1

    @property
    def held_bytes(self) -> int:
        return self.unsent.length + self.nxt - self.una

    @property
    def written(self) -> int:
        """The position after the last byte written."""
        return self.nxt + self.unsent.length

    @property
    def has_outstanding(self) -> bool:
        return bool(self._outstanding)

    def write(self, data: Buffer) -> int:
        """Takes as much as there is room for; mutable memory is copied."""
        accepted = min(len(data), self.writable_bytes)
        if accepted < len(data):
            self.is_short = True
        if accepted:
            view = data if accepted == len(data) else memoryview(data)[:accepted]
            is_stable = isinstance(view, bytes) or (isinstance(view, memoryview) and view.readonly)
            self.unsent.append(view if is_stable else bytes(view))
        return accepted

    def take(self, length: int, carrier: MptcpSubflow) -> Outstanding:
        """New data for a subflow to send now."""
        payload = self.unsent.take(length)
        run = Outstanding(self.nxt, self.nxt + length, payload, carrier)
        self.nxt += length
        if self._outstanding is None:
            self._outstanding = deque()
        self._outstanding.append(run)
        return run

    def on_data_ack(self, position: int) -> bool:
        """Lets go of what the peer has. False when the position is none it could acknowledge."""
        if position > self.nxt or position <= self.una:
            return position == self.una
        self.una = position
        if self._outstanding is not None:
            while self._outstanding and self._outstanding[0].end <= position:
                self._outstanding.popleft()
            if not self._outstanding:
                self._outstanding = None
        return True

    def queue_again(self, carrier: MptcpSubflow) -> int:
        """What ``carrier`` has not delivered is to be sent once more; returns the number of runs."""
        count = 0
        for run in self._outstanding or ():
            if run.carrier is carrier and not run.is_queued_again:
                self._queue_run(run)
                count += 1
        return count

    def blocking_run(self) -> Outstanding | None:
        """What holds the window's left edge."""
        return self._outstanding[0] if self._outstanding else None

    def queue_blocking_run(self) -> None:
        """It is to be sent once more."""
        if self._outstanding and not self._outstanding[0].is_queued_again:
            self._queue_run(self._outstanding[0])

    def oldest_runs(self, limit: int) -> list[tuple[int, Parts]]:
        """The first bytes that the peer lacks, ``limit`` at most, up to what is to be sent again anyway."""
        oldest: list[tuple[int, Parts]] = []
        for run in self._outstanding or ():
            start = max(run.start, self.una)
            stop = min(run.end, start + limit)
            if run.is_queued_again or stop <= start:
                break
            oldest.append((start, slice_parts(run.payload, start - run.start, stop - run.start)))
            limit -= stop - start
        return oldest

    def _queue_run(self, run: Outstanding) -> None:
        run.is_queued_again = True
        insort(self._reinjections, (run.start, run), key=lambda entry: entry[0])

    def next_reinjection(self) -> Outstanding | None:
        """The first run to be sent again that the peer does not have meanwhile."""
        while self._reinjections:
            run = self._reinjections[0][1]
            if run.end > self.una:
                return run
            self._reinjections.pop(0)
        return None

    def take_reinjection(self, length: int, carrier: MptcpSubflow) -> tuple[int, Parts]:
        """Up to ``length`` bytes of that run for a subflow to send now: their position and the bytes."""
        run = self._reinjections[0][1]
        start = max(run.start, self.una)
        stop = min(run.end, start + length)
        payload = slice_parts(run.payload, start - run.start, stop - run.start)
        if stop < run.end:
            self._split(run, stop, carrier)
        else:
            self._reinjections.pop(0)
            run.carrier = carrier
            run.is_queued_again = False
        return start, payload

    def _split(self, run: Outstanding, position: int, carrier: MptcpSubflow) -> None:
        """The part before ``position`` now belongs to ``carrier``; the rest stays queued."""
        cut = position - run.start
        rest = Outstanding(
            position, run.end, slice_parts(run.payload, cut, run.end - run.start), run.carrier, True
        )
        run.payload = slice_parts(run.payload, 0, cut)
        run.end, run.carrier, run.is_queued_again = position, carrier, False
        self._reinjections[0] = (position, rest)
        if self._outstanding is not None:
            self._outstanding.insert(self._outstanding.index(run) + 1, rest)

    def forget_reinjections(self) -> None:
        """From now on the subflow alone repeats what is lost."""
        self._reinjections.clear()

    def clear(self) -> None:
        self.unsent.clear()
        self._outstanding = None
        self._reinjections.clear()
