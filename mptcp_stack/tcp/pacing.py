"""Data at a steady rate (SO_MAX_PACING_RATE), as Linux paces without the help of a queueing discipline.

Bursts of a few segments leave so far apart that the rate is kept. It is that of the congestion window,
twice as much in slow start and 1.2 times afterwards, so that what opens the window leaves in a round trip; or
less, when the application has said so. What has no data is not paced, nor is what a timer sends again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.tcp.socket_options import UNLIMITED_RATE

if TYPE_CHECKING:
    from mptcp_stack.tcp.subflow import Subflow

_UNPACED_SEGMENTS = 10
"""A connection begins with as many at once as the initial window has."""
_BURST_SHIFT = 10
"""A burst is what the rate gives in 1/1024 of a second."""
_LARGEST_BURST_BYTES = 65536
_SHORT_ROUND_TRIP_SHIFT = 9
"""Linux's default tcp_tso_rtt_log: 512 µs."""
_SECOND_NS = 1_000_000_000


def rate(subflow: Subflow) -> int:
    """Bytes per second that leave at most; ``UNLIMITED_RATE`` while nothing is known of the path."""
    limit = subflow.socket_options.maximum_pacing_rate
    round_trip_us = subflow.round_trip.srtt_us
    if not round_trip_us:
        return limit
    settings, congestion = subflow.environment.settings, subflow.congestion
    window = congestion.congestion_window
    percent = (
        settings.tcp_pacing_ss_ratio
        if window < congestion.slow_start_threshold // 2
        else settings.tcp_pacing_ca_ratio
    )
    carried_bytes = max(window, subflow.snd_nxt - subflow.snd_una)
    return min(limit, carried_bytes * percent * 10_000 // round_trip_us)


def short_burst(subflow: Subflow) -> int:
    """What a short round trip lets leave at once: half as much for each 512 µs more (tcp_tso_autosize)."""
    shortest_us = subflow.round_trip.minimum_us
    if shortest_us is None:
        return 0
    return _LARGEST_BURST_BYTES >> min(shortest_us >> _SHORT_ROUND_TRIP_SHIFT, 32)


class Pacing:
    """Made for the subflows whose application asks for it."""

    __slots__ = ("_burst_bytes", "_burst_us", "_earlier_ns", "_next_ns", "_subflow", "_timer")

    def __init__(self, subflow: Subflow) -> None:
        self._subflow = subflow
        self._timer = subflow.environment.timers.timer(self._on_timer)
        self._next_ns = self._earlier_ns = 0
        """When the next burst may leave, and when the one that is leaving was allowed to."""
        self._burst_us = 0
        self._burst_bytes = 0

    def stop(self) -> None:
        self._timer.cancel()

    @property
    def is_waiting(self) -> bool:
        return self._timer.is_set

    def room(self) -> int:
        """Bytes that may leave now, in whole segments. When there are none it is asked again in time."""
        subflow = self._subflow
        now_us = subflow.environment.timers.clock_us
        if self._next_ns <= now_us * 1000:
            return self._burst_limit()
        if self._burst_us == now_us:
            left = self._burst_limit() - self._burst_bytes
            if left >= subflow.segment_bytes:
                return left // subflow.segment_bytes * subflow.segment_bytes
        if not self._timer.is_set:
            self._timer.set(-(-self._next_ns // 1000))
        return 0

    def wait_us(self, now_us: int) -> int:
        """How long nothing new may leave."""
        return max(0, -(-self._next_ns // 1000) - now_us)

    def on_sent(self, length: int, now_us: int) -> None:
        """Data left, new or again; only new data has asked."""
        subflow, now_ns = self._subflow, now_us * 1000
        if self._burst_us != now_us or self._burst_bytes + length > self._burst_limit():
            self._burst_us, self._burst_bytes = now_us, 0
            self._earlier_ns = self._next_ns
        self._burst_bytes += length
        self._next_ns = max(self._earlier_ns, now_ns)
        allowed = rate(subflow)
        if not 0 < allowed < UNLIMITED_RATE or self._is_at_the_start():
            return
        duration_ns = self._burst_bytes * _SECOND_NS // allowed
        # Who was late makes up for it, by half a burst at most.
        lateness_ns = self._next_ns - self._earlier_ns
        self._next_ns += duration_ns - min(duration_ns // 2, lateness_ns)

    def _is_at_the_start(self) -> bool:
        subflow = self._subflow
        segments = -(-(subflow.snd_nxt - subflow.snd_iss - 1) // subflow.segment_bytes)
        return segments + subflow.segments_sent_again < _UNPACED_SEGMENTS

    def _burst_limit(self) -> int:
        subflow = self._subflow
        burst_bytes = (rate(subflow) >> _BURST_SHIFT) + short_burst(subflow)
        segments = min(burst_bytes, _LARGEST_BURST_BYTES) // subflow.segment_bytes
        return max(segments, subflow.environment.settings.tcp_min_tso_segs, 1) * subflow.segment_bytes

    def _on_timer(self, _now_us: int) -> None:
        self._subflow.request_output()


def follow_options(subflow: Subflow) -> None:
    """After the connection opened, and whenever its options change. As in Linux nothing ends it."""
    if subflow.socket_options.is_paced and subflow.pacing is None:
        subflow.pacing = Pacing(subflow)
