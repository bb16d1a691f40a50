"""What a congestion controller is asked and told. Windows are in bytes."""

from __future__ import annotations

from typing import Protocol


class CongestionController(Protocol):
    """One subflow's congestion window."""

    congestion_window: int
    slow_start_threshold: int

    def on_acknowledged(self, acknowledged_bytes: int, bytes_in_flight_before: int) -> None:
        """New data was delivered, outside of loss recovery."""

    def on_loss(self, outstanding_bytes: int) -> None:
        """Loss was found by duplicate or selective acknowledgements: once per window of data.

        ``outstanding_bytes`` were sent and are not cumulatively acknowledged: RFC 5681's FlightSize.
        """

    def on_recovery_end(self) -> None:
        """Everything that was outstanding when the loss was found has been acknowledged."""

    def on_timeout(self, outstanding_bytes: int, is_first: bool) -> None:
        """The retransmission timer fired; ``is_first`` when not for the same data again."""
