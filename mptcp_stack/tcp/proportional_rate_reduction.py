"""How much is sent while the window is reduced: Proportional Rate Reduction (RFC 6937, RFC 9937).

The congestion controller says where the window shall go; this spreads the way there over the round trip, by
what is delivered. Below the target it is the conservative bound, and slow start only while the cumulative
acknowledgement moves and no further loss shows (RFC 9937 §6.2).
"""

from __future__ import annotations


class ProportionalRateReduction:
    """One reduction, from ``prior_window`` to the slow-start threshold."""

    __slots__ = ("_delivered", "_prior_window", "sent_bytes")

    def __init__(self, prior_window: int) -> None:
        self._prior_window = max(1, prior_window)
        self._delivered = 0
        self.sent_bytes = 0

    def window(
        self,
        *,
        threshold: int,
        in_flight: int,
        delivered: int,
        segment_bytes: int,
        is_good_progress: bool,
    ) -> int:
        """The congestion window after so many more bytes were delivered; in steps of whole segments."""
        self._delivered += delivered
        room = threshold - in_flight
        if room < 0:
            share = -(-threshold * self._delivered // self._prior_window)
            allowed = -(-share // segment_bytes) * segment_bytes - self.sent_bytes
        else:
            allowed = max(self._delivered - self.sent_bytes, delivered)
            if is_good_progress:
                allowed += segment_bytes
            allowed = min(room, allowed)
        if not self.sent_bytes:
            # The first retransmission goes out whatever is in flight (RFC 9937 §6.1).
            allowed = max(allowed, segment_bytes)
        return in_flight + max(0, allowed)
