"""Controllers without their stack at a drop-tail queue: fast enough for long runs, where only windows matter.

Every packet has one event: it was acknowledged, or it is known to be lost. Sources are endless, so nothing is
sent twice; a loss counts once per window of data. Acknowledgements are late by a random time, which keeps
the flows from falling into step: in a model without it a drop-tail queue always hits the same ones (the phase
effects of Floyd and Jacobson, "On Traffic Phase Effects in Packet-Switched Gateways", 1992).
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from typing import NamedTuple

from tests.tcp.congestion_path import SEGMENT, FixedPath, FixedRoundTrip

DEFAULT_JITTER_US = 10_000
_SMOOTHING = 8


class Queue:
    """A link of ``rate_packets_s``, and room for ``limit_packets`` before it."""

    def __init__(self, rate_packets_s: int, limit_packets: int) -> None:
        self.service_us = 1_000_000 // rate_packets_s
        self.limit_packets = limit_packets
        self._departures_us: deque[int] = deque()

    def pass_through(self, now_us: int) -> int | None:
        """When a packet that arrives now has left; None when it is dropped."""
        departures = self._departures_us
        while departures and departures[0] <= now_us:
            departures.popleft()
        if len(departures) >= self.limit_packets:
            return None
        departures.append((departures[-1] if departures else now_us) + self.service_us)
        return departures[-1]


class QueuedPath(FixedPath):
    """Always sends what its window allows, through ``queue``; ``delay_us`` is the round trip without it."""

    def __init__(self, controller_name: str, queue: Queue, delay_us: int) -> None:
        super().__init__(controller_name, FixedRoundTrip(delay_us, delay_us))
        self.queue, self.delay_us = queue, delay_us
        self.packets_in_flight = 0
        self.recovery_point = 0
        self.delivered_packets = 0


class _Event(NamedTuple):
    """The sender learns what became of a packet; ``order`` decides between events at one instant."""

    at_us: int
    order: int
    sent_us: int
    path: QueuedPath
    is_lost: bool


class Bottlenecks:
    """Connections over queues, in virtual time."""

    def __init__(self, seed: int, jitter_us: int = DEFAULT_JITTER_US) -> None:
        self.now_us = 0
        self._jitter_us = jitter_us
        self._random = random.Random(seed)
        self._events: list[_Event] = []
        self._order = 0
        self._paths: list[QueuedPath] = []

    def connect(self, controller_name: str, *ways: tuple[Queue, int]) -> list[QueuedPath]:
        """A connection with a subflow for each of ``ways``: a queue, and a round-trip time without it."""
        members = [QueuedPath(controller_name, queue, delay_us) for queue, delay_us in ways]
        for path in members:
            path.siblings = [other for other in members if other is not path]
        self._paths += members
        return members

    def measure(self, settle_s: float, duration_s: float) -> None:
        """After it ``delivered_packets`` counts those of ``duration_s``."""
        self._run(settle_s)
        for path in self._paths:
            path.delivered_packets = 0
        self._run(duration_s)

    def _run(self, duration_s: float) -> None:
        end_us = self.now_us + int(duration_s * 1e6)
        for path in self._paths:
            self._send(path)
        while self._events[0].at_us <= end_us:
            event = heapq.heappop(self._events)
            self.now_us = event.at_us
            _on_event(event)
            self._send(event.path)
        self.now_us = end_us

    def _send(self, path: QueuedPath) -> None:
        queue = path.queue
        while (path.packets_in_flight + 1) * SEGMENT <= path.congestion.congestion_window:
            path.packets_in_flight += 1
            path.snd_nxt += SEGMENT
            path.congestion.on_sent(path.packets_in_flight * SEGMENT, self.now_us)
            left_us = queue.pass_through(self.now_us)
            is_lost = left_us is None
            if left_us is None:
                # Those behind which it would have queued tell of it.
                left_us = self.now_us + queue.limit_packets * queue.service_us
            known_us = left_us + path.delay_us + self._random.randrange(self._jitter_us + 1)
            self._order += 1
            heapq.heappush(self._events, _Event(known_us, self._order, self.now_us, path, is_lost))


def _on_event(event: _Event) -> None:
    path = event.path
    path.now_us = event.at_us
    path.packets_in_flight -= 1
    path.snd_una += SEGMENT
    is_in_recovery = path.snd_una <= path.recovery_point
    if event.is_lost:
        if not is_in_recovery:
            path.congestion.on_loss()
            path.recovery_point = path.snd_nxt
        return
    path.delivered_packets += 1
    sample_us = event.at_us - event.sent_us
    smoothed_us = path.round_trip.srtt_us or sample_us
    path.round_trip.latest_us = sample_us
    path.round_trip.srtt_us = smoothed_us + (sample_us - smoothed_us) // _SMOOTHING
    if not is_in_recovery:
        path.congestion.on_acknowledged(SEGMENT, path.now_us)
