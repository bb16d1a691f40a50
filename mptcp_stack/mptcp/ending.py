"""How a connection ends other than in order: by its application, by its peer, by time (RFC 8684 §3.5)."""

from __future__ import annotations

from errno import ECONNRESET, ENOTCONN
from typing import TYPE_CHECKING

from mptcp_stack.mptcp.states import DataEvent, DataState, Mode, ResetReason
from mptcp_stack.tcp.states import State
from mptcp_stack.wire.mptcp_options import MpFastclose, MpTcpRst

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection


_ALL_IS_SENT = (State.CLOSING, State.LAST_ACK)
"""Both FINs are out: as in Linux, a peer that has all is not reset by TCP, but by MPTCP."""
_HAS_ENDED = (State.CLOSING, State.LAST_ACK, State.TIME_WAIT)


def abort(connection: Connection, error: int, now_us: int) -> None:
    """The application gave up: tells the peer on every subflow."""
    if (
        connection.mode is Mode.MPTCP
        and connection.remote_key is not None
        and connection.state is not DataState.CONNECTING
    ):
        connection.environment.counters.increment("MPTcpExtMPFastcloseTx", bool(connection.subflows))
    for subflow in list(connection.subflows):
        connection.subflows.remove(subflow)
        if connection.mode is Mode.PLAIN_TCP and subflow.state in _ALL_IS_SENT:
            subflow.finish(None, now_us)
        elif connection.mode is Mode.MPTCP and connection.remote_key is not None and subflow.was_established:
            connection.environment.counters.increment("MPTcpExtMPRstTx")
            options = (
                MpFastclose(connection.remote_key.value),
                MpTcpRst(reason=ResetReason.UNSPECIFIED, transient=False),
            )
            subflow.reset(now_us, error, options)
        else:
            subflow.reset(now_us, error)
    end(connection, None, now_us)


def disconnect(connection: Connection) -> int:
    """connect(2) with AF_UNSPEC. At once and not with the next output, for the ports may be wanted again.

    Returns what the socket tells by SO_ERROR: TCP's that its peer was reset, MPTCP's nothing, as in Linux.
    """
    is_plain_socket = not connection.local_key.value
    was_cut = any(subflow.state not in _HAS_ENDED for subflow in connection.subflows)
    if not connection.app_closed:
        connection.host.path_events.on_connection_closed(connection)
    connection.app_closed = connection.write_closed = True
    connection.abort_wanted = False
    if connection.subflows or connection.state is not DataState.CLOSED:
        abort(connection, ECONNRESET, connection.environment.timers.clock_us)
    connection.receive_buffer.clear()
    connection.error = ENOTCONN
    return ECONNRESET if is_plain_socket and was_cut else 0


def abort_for_peer(connection: Connection, error: int, now_us: int, reason: int) -> None:
    """The peer closed at once: every subflow is reset (RFC 8684 §3.5)."""
    for subflow in list(connection.subflows):
        connection.subflows.remove(subflow)
        subflow.reset_with_reason(reason, error, now_us)
    end(connection, error, now_us)


def end(connection: Connection, error: int | None, now_us: int) -> None:
    if error is not None and connection.error is None and not connection.app_closed:
        connection.error = error
    if connection.state is not DataState.CLOSED:
        connection.change_state(DataEvent.ABORTED)
    for timer in (connection.data_fin_timer, connection.data_retransmission_timer, connection.close_timer):
        timer.cancel()
    connection.data_fin_is_due = False
    connection.release_unopened()
    connection.send_buffer.clear()
    if connection.app_closed:
        connection.receive_buffer.clear()
    connection.path_manager.on_connection_closed(connection)
    connection.host.forget(connection)
    connection.notify()


def end_alone(connection: Connection, now_us: int) -> None:
    """No subflow is left and none will come. As in Linux that is no error: reading finds no connection."""
    has_all = connection.receive_buffer.fin_was_taken
    end(connection, None if has_all else ENOTCONN, now_us)


def on_close_timer(connection: Connection, now_us: int) -> None:
    """close_timeout: nobody came back, or the peer never finished."""
    if connection.state is not DataState.CLOSED or connection.subflows:
        end_was_taken = connection.receive_buffer.fin_was_taken
        abort(connection, ECONNRESET, now_us)
        if connection.error is None and not connection.app_closed and not end_was_taken:
            connection.error = ENOTCONN
            connection.notify()
