"""When an acknowledgement leaves: at once, with the next data, or after a while (RFC 9293 §3.8.6.3).

The RFC asks for one at least every second full segment and within half a second. What Linux makes of it: the
first sixteen are sent at once, since a sender in slow start lives on them ("quick" mode). A connection that
answers soon after it is asked is *interactive*: its acknowledgements wait for the answer to carry them. How
long they wait follows the time between arrivals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.tcp.states import Acknowledge
from mptcp_stack.wire.tcp_segment import FIN, PSH, SYN, URG

if TYPE_CHECKING:
    from mptcp_stack.tcp.subflow import Subflow

LONGEST_DELAY_US = 200_000
LONGEST_DELAY_OF_BULK_US = 500_000
MAXIMUM_QUICK = 16
_LEAST_QUICK = 2
_DEFAULT_SEGMENT_BYTES = 536
_SMALLEST_FULL_SEGMENT_BYTES = 88
_SEGMENTS_THAT_MAY_BE_SMALL = FIN | SYN | PSH | URG


class AcknowledgementTiming:
    """What is known of the peer's way of sending."""

    __slots__ = (
        "_shortest_us",
        "delay_us",
        "is_interactive",
        "is_scheduled",
        "last_data_us",
        "last_small_bytes",
        "pushes",
        "quick_count",
        "segment_bytes",
    )

    def __init__(self, shortest_us: int) -> None:
        self._shortest_us = shortest_us
        self.delay_us = 0
        """0 until the first data came."""
        self.quick_count = 0
        """So many acknowledgements are still to be sent without delay."""
        self.is_interactive = False
        self.is_scheduled = False
        """Something came that has to be acknowledged."""
        self.last_data_us = 0
        self.segment_bytes = _DEFAULT_SEGMENT_BYTES
        """What the peer seems to take for a full segment."""
        self.last_small_bytes = 0
        self.pushes = 0
        """The ends of the peer's writes since the last acknowledgement; no more than two are counted."""

    def start(self, largest_segment_bytes: int, receive_window: int) -> None:
        """The handshake is over."""
        limit = min(largest_segment_bytes, receive_window // 2, _DEFAULT_SEGMENT_BYTES)
        self.segment_bytes = max(limit, _SMALLEST_FULL_SEGMENT_BYTES)

    def on_data(self, subflow: Subflow, length: int, flags: int, now_us: int) -> None:
        """In-order data came."""
        self.is_scheduled = True
        self._measure(length, flags, subflow.base_mss)
        shortest_us = self._shortest_us
        if not self.delay_us:
            self._be_quick(subflow)
            self.delay_us = shortest_us
        else:
            gap_us = now_us - self.last_data_us
            if gap_us <= shortest_us // 2:
                self.delay_us = self.delay_us // 2 + shortest_us // 2
            elif gap_us < self.delay_us:
                self.delay_us = min(self.delay_us // 2 + gap_us, subflow.round_trip.rto_us)
            elif gap_us > subflow.round_trip.rto_us:
                # The sender begins a slow start again, and needs acknowledgements for it.
                self._be_quick(subflow)
        self.last_data_us = now_us

    def _measure(self, length: int, flags: int, largest_segment_bytes: int) -> None:
        before, self.last_small_bytes = self.last_small_bytes, 0
        if length >= self.segment_bytes:
            self.segment_bytes = min(length, largest_segment_bytes)
            if flags & PSH:
                self.pushes = max(self.pushes, 1)
            return
        if length >= _DEFAULT_SEGMENT_BYTES or (
            length >= _SMALLEST_FULL_SEGMENT_BYTES and not flags & _SEGMENTS_THAT_MAY_BE_SMALL
        ):
            self.last_small_bytes = length
            if length == before:
                # The same size twice, and not at the end of a write: the path's segments are smaller now.
                self.segment_bytes = length
                return
        self.pushes = 2 if self.pushes else 1

    def _be_quick(self, subflow: Subflow, limit: int = MAXIMUM_QUICK) -> None:
        window = subflow.rcv_right_edge - subflow.rcv_nxt
        count = window // (2 * self.segment_bytes) or _LEAST_QUICK
        self.quick_count = max(self.quick_count, min(count, limit))

    def enter_quick_mode(self, subflow: Subflow, limit: int = MAXIMUM_QUICK) -> None:
        """The peer sends what we have, or says otherwise that it needs acknowledgements soon."""
        self._be_quick(subflow, limit)
        self.is_scheduled = True
        self.is_interactive = False
        self.delay_us = self._shortest_us

    @property
    def is_quick(self) -> bool:
        return self.quick_count > 0 and not self.is_interactive

    def schedule(self, subflow: Subflow, now_us: int) -> None:
        """Has what arrived acknowledged, now or later."""
        self.is_scheduled = True
        if subflow.acknowledge is Acknowledge.NOW:
            return
        if subflow.rcv_nxt - subflow.last_acknowledged > self.segment_bytes or self.is_quick:
            subflow.want_acknowledgement(Acknowledge.NOW, now_us)
            return
        delay_us = self._bounded_delay_us(subflow)
        timer = subflow.delayed_ack_timer
        if subflow.acknowledge is Acknowledge.DELAYED and timer.deadline_us is not None:
            if timer.deadline_us <= now_us + delay_us // 4:
                subflow.want_acknowledgement(Acknowledge.NOW, now_us)
                return
            delay_us = min(delay_us, timer.deadline_us - now_us)
        subflow.acknowledge = Acknowledge.DELAYED
        timer.set(now_us + delay_us)

    def _bounded_delay_us(self, subflow: Subflow) -> int:
        if self.delay_us <= self._shortest_us:
            return self.delay_us
        limit_us = LONGEST_DELAY_US if self.is_interactive or self.pushes else LONGEST_DELAY_OF_BULK_US
        smoothed_us = subflow.round_trip.srtt_us
        if smoothed_us is not None:
            limit_us = min(limit_us, max(smoothed_us, self._shortest_us))
        return min(self.delay_us, limit_us, LONGEST_DELAY_US)

    def on_timer(self, subflow: Subflow) -> None:
        """Nothing came that could carry the acknowledgement: waiting was a mistake, or not long enough."""
        if self.is_interactive:
            self.is_interactive = False
            self.delay_us = self._shortest_us
        else:
            self.delay_us = min(2 * self.delay_us, subflow.round_trip.rto_us)

    def on_read(self, subflow: Subflow, is_emptied: bool, now_us: int) -> bool:
        """The application has taken data, all of it if ``is_emptied``: who waits for that may go on.

        True when an acknowledgement leaves.
        """
        if not self.is_scheduled or subflow.acknowledge is not Acknowledge.DELAYED:
            return False
        is_end_of_write = self.pushes == 2 or (self.pushes and not self.is_interactive)
        if subflow.rcv_nxt - subflow.last_acknowledged > self.segment_bytes or (
            is_emptied and is_end_of_write
        ):
            subflow.want_acknowledgement(Acknowledge.NOW, now_us)
            return True
        return False

    def on_room(self, subflow: Subflow, limit: int, now_us: int) -> None:
        """Reading has made room; the peer is told when that doubles its window (RFC 9293 §3.8.6.2.2)."""
        if subflow.rcv_nxt == subflow.data_irs + 1:
            # Nothing came but what the SYN brought, for which no window was told.
            return
        told = max(0, subflow.rcv_told_edge - subflow.rcv_nxt)
        # Without window scaling there may be more room than the field can tell.
        tellable = min(subflow.receive_window(), 0xFFFF << subflow.rcv_wnd_scale)
        if 2 * told <= limit and tellable >= max(2 * told, min(limit // 2, self.segment_bytes), 1):
            subflow.want_acknowledgement(Acknowledge.NOW, now_us)

    def on_data_sent(self, now_us: int) -> None:
        """An answer that came soon: the next acknowledgements may wait for theirs."""
        if self.delay_us and now_us - self.last_data_us < self.delay_us:
            self.is_interactive = True

    def on_acknowledgement_sent(self) -> None:
        if self.quick_count and self.is_scheduled:
            self.quick_count -= 1
            if not self.quick_count:
                self.delay_us = self._shortest_us
        self.is_scheduled = False
        self.pushes = 0

    def set_quick(self, subflow: Subflow, is_wanted: bool, is_emptied: bool, now_us: int) -> None:
        """TCP_QUICKACK: what is owed for data that was read goes out now.

        The mode lasts until the traffic says otherwise.
        """
        self.is_interactive = not is_wanted
        if is_wanted and self.is_scheduled:
            self.pushes = max(self.pushes, 1)
            self.on_read(subflow, is_emptied, now_us)
