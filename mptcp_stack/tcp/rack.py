"""Which segments are lost, told by time (RACK, RFC 8985 §6), with Linux's choices where the RFC leaves one.

A segment is lost when one that was sent after it has been delivered and a reordering window has passed. As
long as the path has shown no reordering, three segments delivered out of order make the window zero.
"""

from __future__ import annotations

from mptcp_stack.tcp.retransmission_queue import Acknowledged, RetransmissionQueue

DUPLICATE_THRESHOLD = 3
"""RFC 5681 §3.2; Linux's tcp_reordering."""
MAXIMUM_REORDERING = 300
"""Linux's tcp_max_reordering."""
MAXIMUM_STEPS = 255
PERSISTENCE_RECOVERIES = 16
"""RFC 8985 §6.2, step 4: so many recoveries without D-SACK bring the window back to where it began."""


class Rack:
    """What one sender knows of its path: the latest delivered segment, and how much segments overtake."""

    __slots__ = (
        "_duplicate_is_pending",
        "_persistence",
        "_round_end",
        "_steps",
        "has_advanced",
        "latest_end",
        "latest_sent_us",
        "reordering",
        "reordering_events",
        "round_trip_us",
    )

    def __init__(self) -> None:
        self.latest_sent_us = -1
        self.latest_end = 0
        self.round_trip_us = 0
        self.has_advanced = False
        self.reordering_events = 0
        self.reordering = DUPLICATE_THRESHOLD
        """By how many segments one has been overtaken at most, from three on."""
        self._steps = 1
        self._persistence = 0
        self._round_end = 0
        self._duplicate_is_pending = False

    def on_delivered(self, result: Acknowledged, now_us: int) -> None:
        """Step 2: the delivered segment that was sent last."""
        if result.latest_sent_us is None:
            return
        self.has_advanced = True
        self.round_trip_us = now_us - result.latest_sent_us
        if (result.latest_sent_us, result.latest_sent_end) > (self.latest_sent_us, self.latest_end):
            self.latest_sent_us, self.latest_end = result.latest_sent_us, result.latest_sent_end

    @property
    def is_tolerant(self) -> bool:
        """More reordering than usual was seen."""
        return self.reordering > DUPLICATE_THRESHOLD

    def on_reordering(self, distance_bytes: int, segment_bytes: int) -> None:
        """Step 3: something arrived that had been overtaken by so much."""
        self.reordering_events += 1
        segments = -(-distance_bytes // segment_bytes)
        if segments > self.reordering:
            self.reordering = min(segments, MAXIMUM_REORDERING)

    def on_duplicate_delivered(self) -> None:
        """D-SACK: the window was too short, if the path reorders at all."""
        if self.reordering_events:
            self._duplicate_is_pending = True

    def update_steps(self, una: int, nxt: int) -> None:
        """Step 4: one more quarter of the round trip, once for each round trip that has duplicates."""
        if self._duplicate_is_pending:
            self._duplicate_is_pending = False
            if una >= self._round_end:
                self._round_end = nxt
                self._steps = min(self._steps + 1, MAXIMUM_STEPS)
                self._persistence = PERSISTENCE_RECOVERIES
        elif not self._persistence:
            self._steps = 1

    def on_recovery_end(self) -> None:
        """A recovery that was needed."""
        if self._persistence:
            self._persistence -= 1

    def on_undone_by_duplicates(self) -> None:
        self._persistence = min(self._persistence + 1, PERSISTENCE_RECOVERIES)

    def window_us(
        self, minimum_us: int | None, srtt_us: int | None, sacked_segments: int, is_recovering: bool
    ) -> int:
        """Step 4: how long a segment may be late."""
        if not self.reordering_events and (is_recovering or sacked_segments >= self.reordering):
            return 0
        if minimum_us is None or srtt_us is None:
            return 0
        return min((minimum_us >> 2) * self._steps, srtt_us)

    def detect(self, queue: RetransmissionQueue, window_us: int, now_us: int) -> tuple[int, int, int]:
        """Step 5: marks what is lost. Bytes newly lost, bytes lost again, how long others may be late."""
        lost = lost_again = wait_us = 0
        deadline_us = now_us - self.round_trip_us - window_us
        chunk = queue.oldest
        while chunk is not None:
            if (chunk.sent_us, chunk.end) >= (self.latest_sent_us, self.latest_end):
                break
            later = chunk.later
            if chunk.sent_us > deadline_us:
                wait_us = chunk.sent_us - deadline_us
            else:
                if chunk.is_lost:
                    lost_again += chunk.length
                else:
                    lost += chunk.length
                queue.mark_lost(chunk)
            chunk = later
        return lost, lost_again, wait_us

    def spared_after_us(self, now_us: int) -> int:
        """What was sent after this may still be acknowledged when the retransmission timer fires (§6.3)."""
        return now_us - self.round_trip_us
