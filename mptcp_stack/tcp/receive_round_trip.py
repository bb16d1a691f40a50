"""How long a round trip takes, seen by the end that receives: what the receive buffer's size is tuned by.

With timestamps each full segment tells, since it echoes ours; without, the time until a whole window has
arrived is taken, of which only the shortest counts. Both as Linux does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.tcp.output import SEQUENCE_MASK, timestamp_now

if TYPE_CHECKING:
    from mptcp_stack.tcp.subflow import Subflow
    from mptcp_stack.wire.tcp_segment import TcpSegment

_LONGEST_US = 120_000_000


class ReceiveRoundTrip:
    """Made with the first data: most connections of a server wait for long."""

    __slots__ = ("_edge", "_last_echo", "_scaled_us", "_since_us")

    def __init__(self) -> None:
        self._scaled_us = 0
        self._last_echo = 0
        self._edge: int | None = None
        self._since_us = 0

    @property
    def smoothed_us(self) -> int:
        """0: not known yet."""
        return self._scaled_us >> 3

    def on_data(self, subflow: Subflow, segment: TcpSegment, now_us: int) -> None:
        """In-order data has arrived."""
        if not subflow.timestamps_enabled:
            self._measure_window(subflow, now_us)
            return
        echo = segment.options.timestamp_echo
        if echo == self._last_echo or len(segment.payload) < subflow.acknowledging.segment_bytes:
            return
        self._last_echo = echo
        elapsed_us = ((timestamp_now(subflow, now_us) - echo) & SEQUENCE_MASK) * 1000
        if elapsed_us < _LONGEST_US:
            self._take(max(elapsed_us, 1000), is_of_window=False)

    def _measure_window(self, subflow: Subflow, now_us: int) -> None:
        if self._edge is not None:
            if subflow.rcv_nxt < self._edge:
                return
            self._take(max(now_us - self._since_us, 1), is_of_window=True)
        self._edge = max(subflow.rcv_right_edge, subflow.rcv_nxt + 1)
        self._since_us = now_us

    def _take(self, sample_us: int, *, is_of_window: bool) -> None:
        if not self._scaled_us or sample_us << 3 < self._scaled_us:
            self._scaled_us = sample_us << 3
        elif not is_of_window:
            self._scaled_us += sample_us - (self._scaled_us >> 3)
