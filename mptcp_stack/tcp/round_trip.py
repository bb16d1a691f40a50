"""Round-trip time and retransmission timeout (RFC 6298), in integer microseconds, with Linux's refinements.

The variance term has the minimum RTO as its floor, grows at once, and shrinks once a round trip only; a round
trip that got shorter counts less than one that got longer.
"""

from __future__ import annotations

CLOCK_GRANULARITY_US = 1_000
INITIAL_RTO_US = 1_000_000
"""RFC 6298 §2.1."""
FALLBACK_RTO_US = 3_000_000
"""RFC 6298 §5.7: for data after a handshake that gave no sample since it had to be repeated."""
MINIMUM_LIFETIME_US = 300_000_000
"""Linux's tcp_min_rtt_wlen: a shortest round trip older than this gives way to the next sample."""


class RoundTripEstimator:
    """SRTT, RTTVAR and the RTO of one path, with exponential back-off."""

    __slots__ = (
        "_backoff",
        "_initial_rto_us",
        "_largest_deviation_us",
        "_maximum_rto_us",
        "_minimum_since_us",
        "_round_end",
        "_scaled_deviation_us",
        "_scaled_srtt_us",
        "_variance_term_us",
        "latest_us",
        "minimum_rto_us",
        "minimum_us",
        "rto_us",
    )

    def __init__(self, minimum_rto_us: int, maximum_rto_us: int) -> None:
        self.minimum_rto_us = minimum_rto_us
        self._maximum_rto_us = maximum_rto_us
        self._backoff = 0
        self._initial_rto_us = INITIAL_RTO_US
        self.rto_us = min(INITIAL_RTO_US, maximum_rto_us)
        """With back-off."""
        self._scaled_srtt_us = 0
        self._scaled_deviation_us = 0
        self._variance_term_us = self._largest_deviation_us = 0
        self._round_end = 0
        self.minimum_us: int | None = None
        """The shortest round trip of the last minutes."""
        self._minimum_since_us = 0
        self.latest_us = 0

    @property
    def srtt_us(self) -> int | None:
        return self._scaled_srtt_us >> 3 if self._scaled_srtt_us else None

    @property
    def rttvar_us(self) -> int:
        return self._scaled_deviation_us >> 2

    def on_sample(self, round_trip_us: int, una: int = 1, nxt: int = 0) -> None:
        """RFC 6298 §2.2 and §2.3. A new sample also ends the back-off (§5.7 note).

        ``una`` and ``nxt`` tell when a round trip is over; without them each sample is one.
        """
        self.latest_us = round_trip_us = max(1, round_trip_us)
        self._backoff = 0
        if not self._scaled_srtt_us:
            self._scaled_srtt_us = round_trip_us << 3
            self._scaled_deviation_us = round_trip_us << 1
            self._variance_term_us = max(self._scaled_deviation_us, self.minimum_rto_us)
            self._largest_deviation_us = self._variance_term_us
            self._round_end = nxt
            self._update_rto()
            return
        error_us = round_trip_us - (self._scaled_srtt_us >> 3)
        self._scaled_srtt_us = max(8, self._scaled_srtt_us + error_us)
        change_us = abs(error_us) - (self._scaled_deviation_us >> 2)
        if error_us < 0 and change_us > 0:
            change_us >>= 3
        self._scaled_deviation_us += change_us
        self._largest_deviation_us = max(self._largest_deviation_us, self._scaled_deviation_us)
        self._variance_term_us = max(self._variance_term_us, self._largest_deviation_us)
        if una > self._round_end:
            self._variance_term_us -= (self._variance_term_us - self._largest_deviation_us) >> 2
            self._round_end = nxt
            self._largest_deviation_us = self.minimum_rto_us
        self._update_rto()

    def note_minimum(self, round_trip_us: int, now_us: int) -> None:
        """Any trustworthy sample, for the shortest round trip that RACK measures reordering by."""
        if (
            self.minimum_us is None
            or round_trip_us <= self.minimum_us
            or now_us - self._minimum_since_us > MINIMUM_LIFETIME_US
        ):
            self.minimum_us = max(1, round_trip_us)
            self._minimum_since_us = now_us

    @property
    def base_rto_us(self) -> int:
        """Without back-off."""
        if not self._scaled_srtt_us:
            return min(self._initial_rto_us, self._maximum_rto_us)
        # As in Linux the minimum bounds the variance term, not the sum: srtt + max(4·rttvar, 200 ms).
        variance_us = max(CLOCK_GRANULARITY_US, self._variance_term_us)
        return min((self._scaled_srtt_us >> 3) + variance_us, self._maximum_rto_us)

    def _update_rto(self) -> None:
        self.rto_us = min(self.base_rto_us << self._backoff, self._maximum_rto_us)

    def on_repeated_handshake(self) -> None:
        """The SYN had to be sent again, and is acknowledged now."""
        self._initial_rto_us = FALLBACK_RTO_US
        self._backoff = 0
        self._update_rto()

    def back_off(self) -> None:
        """RFC 6298 §5.5."""
        if self.rto_us < self._maximum_rto_us:
            self._backoff += 1
            self._update_rto()
