"""Where PSH stands in the stream of a plain TCP connection (RFC 9293 §3.9.1.2 leaves it to the sender).

Linux collects what is written in buffers of about the largest super-segment, half the peer's window at most.
The end of the last write has the flag; appending to its buffer takes it away again. In a long write a full
buffer gets it when more than half the peer's largest window was written since the last one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection

_LARGEST_BUFFER_BYTES = 65_279
"""What Linux's headers leave of the largest super-segment."""


class PushMarks:
    """Positions as in the send buffer; one for the last byte of a segment means: the flag is set there."""

    __slots__ = ("_buffer_start", "_marks", "_pushed")

    def __init__(self, position: int) -> None:
        self._buffer_start = self._pushed = position
        self._marks: deque[int] = deque()

    def on_write(
        self, start: int, end: int, sent: int, segment_bytes: int, largest_window: int, more_follows: bool
    ) -> None:
        """Bytes from ``start`` to ``end`` were written; what lies before ``sent`` has left."""
        half_window = largest_window // 2
        goal = min(_LARGEST_BUFFER_BYTES, max(half_window, 1)) // segment_bytes * segment_bytes
        goal = goal or segment_bytes
        if start <= sent or start - max(self._buffer_start, sent) >= goal:
            self._buffer_start = start
        elif self._marks and self._marks[-1] == start:
            self._marks.pop()
        position = max(self._buffer_start, sent) + goal
        while position < end:
            if position - self._pushed > half_window:
                self._mark(position)
            self._buffer_start = position
            position += goal
        if not more_follows or end - self._pushed > half_window:
            self._mark(end)

    def _mark(self, position: int) -> None:
        self._marks.append(position)
        self._pushed = position

    def next_after(self, position: int) -> int | None:
        """The first mark beyond a position that has been sent."""
        while self._marks and self._marks[0] <= position:
            self._marks.popleft()
        return self._marks[0] if self._marks else None


def on_write(connection: Connection, start: int, end: int, more_follows: bool) -> None:
    """The application has written to a connection that speaks plain TCP."""
    if connection.push_marks is None:
        connection.push_marks = PushMarks(start)
    sent, subflow = connection.send_buffer.nxt, connection.subflows[0]
    largest_window = subflow.largest_send_window
    connection.push_marks.on_write(start, end, sent, subflow.segment_bytes, largest_window, more_follows)
