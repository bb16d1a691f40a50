"""Round-trip time and retransmission timeout (RFC 6298), in integer microseconds."""

from __future__ import annotations

CLOCK_GRANULARITY_US = 1_000
INITIAL_RTO_US = 1_000_000
"""RFC 6298 §2.1."""
FALLBACK_RTO_US = 3_000_000
"""RFC 6298 §5.7: for data after a handshake that gave no sample since it had to be repeated."""


class RoundTripEstimator:
    """SRTT, RTTVAR and the RTO of one path, with exponential back-off."""

    __slots__ = (
        "_backoff",
        "_initial_rto_us",
        "_maximum_rto_us",
        "_minimum_rto_us",
        "latest_us",
        "rttvar_us",
        "srtt_us",
    )

    def __init__(self, minimum_rto_us: int, maximum_rto_us: int) -> None:
        self._minimum_rto_us = minimum_rto_us
        self._maximum_rto_us = maximum_rto_us
        self._backoff = 0
        self._initial_rto_us = INITIAL_RTO_US
        self.srtt_us: int | None = None
        self.rttvar_us = self.latest_us = 0

    def on_sample(self, round_trip_us: int) -> None:
        """RFC 6298 §2.2 and §2.3. A new sample also ends the back-off (§5.7 note)."""
        self.latest_us = round_trip_us = max(1, round_trip_us)
        if self.srtt_us is None:
            self.srtt_us = round_trip_us
            self.rttvar_us = round_trip_us // 2
        else:
            self.rttvar_us += (abs(self.srtt_us - round_trip_us) - self.rttvar_us) // 4
            self.srtt_us += (round_trip_us - self.srtt_us) // 8
            self.srtt_us = max(1, self.srtt_us)
        self._backoff = 0

    @property
    def rto_us(self) -> int:
        if self.srtt_us is None:
            base_us = self._initial_rto_us
        else:
            # As in Linux the minimum bounds the variance term, not the sum: srtt + max(4·rttvar, 200 ms).
            base_us = self.srtt_us + max(CLOCK_GRANULARITY_US, 4 * self.rttvar_us, self._minimum_rto_us)
        return min(base_us << self._backoff, self._maximum_rto_us)

    def on_repeated_handshake(self) -> None:
        """The SYN had to be sent again, and is acknowledged now."""
        self._initial_rto_us = FALLBACK_RTO_US
        self._backoff = 0

    def back_off(self) -> None:
        """RFC 6298 §5.5."""
        if self.rto_us < self._maximum_rto_us:
            self._backoff += 1
