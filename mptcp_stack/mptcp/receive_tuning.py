"""How large a connection's receive buffer has to be: dynamic right-sizing, as mptcp_rcv_space_adjust does it.

What the application took in one round trip is what the sender could send in one; with twice that there is
room for the next, and for a sender that doubles its rate more. The buffer never shrinks, and never grows
once SO_RCVBUF has set it, or with ``tcp_moderate_rcvbuf`` at 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.settings import StackSettings

_FIRST_SEGMENTS = 10
"""What a sender may send at once (RFC 6928)."""


class ReceiveTuning:
    """Made when the first data is read."""

    __slots__ = ("_copied_bytes", "_per_round_trip", "_since_us")

    def __init__(self, expected_bytes: int, now_us: int) -> None:
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
        buffer.limit = max(buffer.limit, min(window, largest))


def window_of(buffer_bytes: int) -> int:
    """What is offered of a buffer: the rest is for what packets take beside their payload (Linux's ratio)."""
    return buffer_bytes >> 1


def is_tuned(connection: Connection) -> bool:
    settings: StackSettings = connection.environment.settings
    is_fixed = settings.receive_buffer_bytes or connection.socket_options.receive_buffer_bytes
    return settings.tcp_moderate_rcvbuf and not is_fixed


def on_read(connection: Connection, length: int) -> None:
    now_us = connection.environment.timers.clock_us
    tuning = connection.receive_buffer.tuning
    if tuning is None:
        segment_bytes = max((subflow.base_mss for subflow in connection.subflows), default=1)
        expected = min(connection.receive_buffer.limit, _FIRST_SEGMENTS * segment_bytes)
        tuning = connection.receive_buffer.tuning = ReceiveTuning(expected, connection.last_data_received_us)
    tuning.on_read(connection, length, now_us)


def _longest_round_trip_us(connection: Connection) -> int:
    return max(
        (
            subflow.receive_round_trip.smoothed_us
            for subflow in connection.subflows
            if subflow.receive_round_trip is not None
        ),
        default=0,
    )


def on_options(connection: Connection) -> None:
    """SO_RCVBUF fixes the size. What was offered already stays good (RFC 9293 §3.8.6)."""
    fixed_bytes = connection.socket_options.receive_buffer_bytes
    if fixed_bytes:
        # A SYN may have offered this before anything else was sent.
        connection.receive_buffer.window()
        connection.receive_buffer.limit = window_of(fixed_bytes)
