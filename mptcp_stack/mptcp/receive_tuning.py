"""How large a connection's receive buffer has to be: dynamic right-sizing, as mptcp_rcv_space_adjust does it.

What the application took in one round trip is what the sender could send in one; with twice that there is
room for the next, and for a sender that doubles its rate more. The buffer never shrinks, and never grows
once SO_RCVBUF has set it, or with ``tcp_moderate_rcvbuf`` at 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.tcp import output
from mptcp_stack.tcp.buffers import shared
from mptcp_stack.tcp.receive_window import window_of

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.mptcp.subflow import MptcpSubflow
    from mptcp_stack.settings import StackSettings

_FIRST_SEGMENTS = 10
"""What a sender may send at once (RFC 6928)."""
_TINY_BYTES = 128


class ReceiveTuning:
    """Made when the first data is read, or the application wants more to be offered.

    What is offered rises to ``offered_target`` with the data that comes (tcp_grow_window), so that who sends
    in tiny packets, which take more memory than they bring data, does not get all of a large window.
    """

    __slots__ = ("_copied_bytes", "_per_round_trip", "_segment_bytes", "_since_us", "offered_target")

    def __init__(self, expected_bytes: int, segment_bytes: int, now_us: int) -> None:
        self._segment_bytes = segment_bytes
        self.offered_target = 0
        self._per_round_trip = max(1, expected_bytes)
        self._copied_bytes = 0
        self._since_us = now_us

    def on_read(self, connection: Connection, length: int, now_us: int) -> None:
        """The application took so many bytes."""
        self._copied_bytes += length
        round_trip_us = _longest_round_trip_us(connection)
        if not round_trip_us or now_us - self._since_us < round_trip_us:
            return
        if self._copied_bytes > self._per_round_trip:
            self._grow(connection)
        self._copied_bytes = 0
        self._since_us = now_us

    def risen(self, offered_bytes: int, length: int) -> int:
        """What is offered at most after a packet with so much data."""
        if length < _TINY_BYTES:
            return offered_bytes
        return min(self.offered_target, offered_bytes + 2 * max(length, self._segment_bytes))

    def _grow(self, connection: Connection) -> None:
        before, now = self._per_round_trip, self._copied_bytes
        self._per_round_trip = now
        if not is_tuned(connection):
            return
        # One round trip late, and the sender may be doubling its rate.
        window = 2 * now + 2 * (2 * now * (now - before) // before)
        buffer = connection.receive_buffer
        window += buffer.bytes_beyond_gaps
        largest = window_of(connection.environment.settings.tcp_rmem[2])
        if min(window, largest) > buffer.limit:
            buffer.limit = min(window, largest)
            self.offered_target = min(buffer.limit, connection.socket_options.window_clamp or buffer.limit)


def is_tuned(connection: Connection) -> bool:
    settings: StackSettings = connection.environment.settings
    is_fixed = settings.receive_buffer_bytes or connection.socket_options.receive_buffer_bytes
    return settings.tcp_moderate_rcvbuf and not is_fixed


def on_read(connection: Connection, length: int) -> None:
    tuning = connection.receive_buffer.tuning or _begin(connection)
    tuning.on_read(connection, length, connection.environment.timers.clock_us)


def _begin(connection: Connection) -> ReceiveTuning:
    buffer = connection.receive_buffer
    segment_bytes = max((subflow.base_mss for subflow in connection.subflows), default=1)
    expected = min(buffer.limit, _FIRST_SEGMENTS * segment_bytes)
    buffer.tuning = ReceiveTuning(expected, segment_bytes, connection.last_data_received_us)
    return buffer.tuning


def _longest_round_trip_us(connection: Connection) -> int:
    return max(
        (
            subflow.receive_round_trip.smoothed_us
            for subflow in connection.subflows
            if subflow.receive_round_trip is not None
        ),
        default=0,
    )


def on_established(connection: Connection, subflow: MptcpSubflow) -> None:
    """What the first buffer offers goes on until it grows, but for the room that is kept back."""
    if subflow.is_join:
        return
    if connection.environment.settings.receive_buffer_bytes:
        return
    buffer = connection.receive_buffer
    first_offer = output.first_offer(subflow)
    offered = min(_first_clamp(buffer.limit, output.local_mss(subflow)), first_offer)
    buffer.begin(first_offer, shared(_whole_units(offered, subflow.rcv_wnd_scale)))


def on_options(connection: Connection) -> None:
    """SO_RCVBUF fixes the size. What was offered already stays good (RFC 9293 §3.8.6).

    As in Linux a larger one is offered as data comes, a smaller one at once.
    """
    options, buffer = connection.socket_options, connection.receive_buffer
    # A SYN may have offered this before anything else was sent.
    told = buffer.window()
    if options.receive_buffer_bytes:
        buffer.limit = window_of(options.receive_buffer_bytes)
    if not options.receive_buffer_bytes and not options.window_clamp:
        return
    offered = min(buffer.limit, options.window_clamp or buffer.limit)
    buffer.offered_limit = min(max(buffer.offered_limit, told), offered)
    if buffer.tuning is None and offered > buffer.offered_limit:
        _begin(connection)
    if buffer.tuning is not None:
        buffer.tuning.offered_target = offered


def window_clamp(connection: Connection) -> int:
    """The largest window that may be offered now, as TCP_WINDOW_CLAMP tells it."""
    buffer = connection.receive_buffer
    if connection.socket_options.window_clamp or not connection.subflows:
        return connection.socket_options.window_clamp
    if buffer.tuning is not None and buffer.tuning.offered_target:
        return buffer.tuning.offered_target
    return _first_clamp(buffer.limit, output.local_mss(connection.subflows[0]))


def _first_clamp(limit: int, segment_bytes: int) -> int:
    """Room for one segment is kept back, as long as there are two."""
    return min(limit, max(2 * segment_bytes, limit - segment_bytes))


def _whole_units(window: int, scale: int) -> int:
    """Rounded up to what the window field can tell, as Linux does."""
    return -(-window >> scale) << scale
