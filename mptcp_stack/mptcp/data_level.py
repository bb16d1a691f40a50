"""What the peer says of the data level: DATA_ACK with its window, DATA_FIN, and what each brings about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.mptcp import reinjection
from mptcp_stack.mptcp.states import DataEvent, DataState, Mode
from mptcp_stack.tcp.states import Acknowledge

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.mptcp.subflow import MptcpSubflow

_AWAITS_FIN_ACKNOWLEDGEMENT = (DataState.FIN_WAIT_1, DataState.CLOSING, DataState.LAST_ACK)
_TAKES_FIN = (DataState.ESTABLISHED, DataState.FIN_WAIT_1, DataState.FIN_WAIT_2)


def on_data_ack(connection: Connection, position: int, window: int, now_us: int) -> None:
    """DATA_ACK with the window that came beside it (RFC 8684 §3.3.4)."""
    send = connection.send_buffer
    fin_is_acknowledged = connection.data_fin_is_due and position == send.nxt + 1
    if fin_is_acknowledged:
        position -= 1
    connection.last_ack_received_us = now_us
    before = send.una
    if not send.on_data_ack(position):
        return
    send.window_edge = max(send.window_edge, position + window)
    if fin_is_acknowledged:
        connection.data_fin_is_due = False
        connection.data_fin_timer.cancel()
        connection.change_state(DataEvent.FIN_ACKNOWLEDGED)
        _maybe_close_subflows(connection)
    if send.una > before or fin_is_acknowledged:
        reinjection.on_data_acknowledged(connection, now_us)
        connection.restart_close_timer(now_us)
        connection.notify()
    connection.request_output()


def on_plain_acknowledged(connection: Connection, subflow: MptcpSubflow, now_us: int) -> None:
    """Without DATA_ACK the subflow's acknowledgements count: probes aside, both sequences are one."""
    acknowledged = subflow.snd_una - subflow.data_iss - subflow.probe_bytes
    fin_position = subflow.fin_position
    is_fin_acknowledged = fin_position is not None and subflow.snd_una > fin_position
    connection.send_buffer.on_data_ack(acknowledged - is_fin_acknowledged)
    connection.restart_close_timer(now_us)
    if is_fin_acknowledged and connection.state in _AWAITS_FIN_ACKNOWLEDGEMENT:
        connection.change_state(DataEvent.FIN_ACKNOWLEDGED)
    connection.notify()


def on_data_fin(connection: Connection, subflow: MptcpSubflow, position: int, now_us: int) -> None:
    """DATA_FIN at the given position (RFC 8684 §3.3.3)."""
    receive = connection.receive_buffer
    if position > receive.right_edge:
        connection.environment.counters.increment("MPTcpExtNoDSSInWindow")
        return
    if position < receive.next_position:
        # It came before: our acknowledgement was lost.
        subflow.want_acknowledgement(Acknowledge.NOW, now_us)
    if receive.fin_position is None and position >= receive.next_position:
        receive.fin_position = position
    take_fin(connection, now_us)


def take_fin(connection: Connection, now_us: int) -> None:
    """The peer's end of data, when all before it is there."""
    if connection.receive_buffer.take_fin() and connection.state in _TAKES_FIN:
        connection.change_state(DataEvent.FIN_RECEIVED)
        for subflow in connection.subflows:
            if subflow.can_tell and connection.mode is Mode.MPTCP:
                subflow.want_acknowledgement(Acknowledge.NOW, now_us)
        _maybe_close_subflows(connection)
        connection.notify()


def _maybe_close_subflows(connection: Connection) -> None:
    """With DATA_FIN exchanged and acknowledged both ways the subflows may end (RFC 8684 §3.3.3)."""
    if connection.state is DataState.CLOSED and connection.mode is Mode.MPTCP:
        connection.path_manager.on_connection_closed(connection)
        connection.release_unopened()
        for subflow in list(connection.subflows):
            subflow.close()
