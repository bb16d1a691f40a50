"""One queue of timers for a whole stack: it arms the driver's timer and decides what fires."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush


class Timer:
    """Fires ``callback(now_us)`` once, when its deadline has come. Setting it again moves the deadline."""

    __slots__ = ("_callback", "_queue", "_queued_us", "deadline_us")

    def __init__(self, queue: TimerQueue, callback: Callable[[int], None]) -> None:
        self._queue = queue
        self._callback = callback
        self.deadline_us: int | None = None
        self._queued_us: int | None = None

    @property
    def is_set(self) -> bool:
        return self.deadline_us is not None

    def set(self, deadline_us: int) -> None:
        self.deadline_us = deadline_us
        if self._queued_us is None or deadline_us < self._queued_us:
            self._queued_us = deadline_us
            self._queue.push(deadline_us, self)

    def set_if_earlier(self, deadline_us: int) -> None:
        if self.deadline_us is None or deadline_us < self.deadline_us:
            self.set(deadline_us)

    def cancel(self) -> None:
        self.deadline_us = None

    def on_reached(self, queued_us: int, now_us: int) -> None:
        """Called by the queue when an entry of this timer comes up: fire, or queue again if it was moved."""
        if self._queued_us != queued_us:
            return
        self._queued_us = None
        if self.deadline_us is None:
            return
        if self.deadline_us > now_us:
            self._queued_us = self.deadline_us
            self._queue.push(self.deadline_us, self)
            return
        self.deadline_us = None
        self._callback(now_us)


class TimerQueue:
    """A heap of deadlines. Moving a timer later costs nothing: its entry is looked at when it comes up.

    ``clock_us`` is the time that was last handed in; actions that need a time between calls use it.
    """

    __slots__ = ("_count", "_heap", "clock_us")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timer]] = []
        self._count = 0
        self.clock_us = 0

    def timer(self, callback: Callable[[int], None]) -> Timer:
        return Timer(self, callback)

    def push(self, deadline_us: int, timer: Timer) -> None:
        self._count += 1
        heappush(self._heap, (deadline_us, self._count, timer))

    def next_deadline_us(self) -> int | None:
        """When to call :meth:`fire` next; None when no timer is set."""
        while self._heap:
            queued_us, _, timer = self._heap[0]
            if timer.deadline_us is not None and timer.deadline_us <= queued_us:
                return queued_us
            heappop(self._heap)
            timer.on_reached(queued_us, queued_us - 1)
        return None

    def fire(self, now_us: int) -> None:
        """Fires every timer whose deadline is not after ``now_us``, in order of time."""
        while self._heap and self._heap[0][0] <= now_us:
            queued_us, _, timer = heappop(self._heap)
            timer.on_reached(queued_us, now_us)
