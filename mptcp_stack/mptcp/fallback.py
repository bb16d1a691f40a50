"""When a connection may go on as plain TCP, and what that changes (RFC 8684 §3.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.mptcp.states import CAN_WRITE, Mode

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.mptcp.subflow import MptcpSubflow


def is_permitted(connection: Connection) -> bool:
    """Only while one subflow carried everything, each byte once (RFC 8684 §3.7)."""
    return not connection.had_join and not connection.data_retransmissions


def is_possible(connection: Connection) -> bool:
    """Also nothing may wait for data that is missing."""
    return is_permitted(connection) and not connection.receive_buffer.has_gap


def on_missing_data_ack(connection: Connection) -> bool:
    """Called when data waits for its DATA_ACK, but for no acknowledgement of TCP. True: it fell back.

    If what came last had no options at all, the path removes them now, or the peer has fallen back because
    it does (RFC 8684 §3.7): the same data once more would be more data to it.
    """
    # Joins that are still in their handshake do not count: they end with the fallback.
    carriers = [subflow for subflow in connection.subflows if subflow.can_tell]
    if not is_possible(connection) or len(carriers) != 1 or carriers[0].hears_options:
        return False
    fall_back(connection, "MPTcpExtDssFallback")
    return True


def fall_back(connection: Connection, counter: str | None) -> None:
    """The connection goes on as plain TCP."""
    if connection.mode is Mode.PLAIN_TCP:
        return
    if counter is not None:
        connection.environment.counters.increment(counter)
    connection.mode = Mode.PLAIN_TCP
    connection.receive_buffer.is_fed_by_tcp = True
    connection.data_fin_is_due = False
    connection.data_fin_timer.cancel()
    connection.data_retransmission_timer.cancel()
    connection.path_manager.on_connection_closed(connection)
    _drop_joins(connection)
    connection.send_buffer.forget_reinjections()
    for subflow in list(connection.subflows):
        subflow.pending_signals.clear()
        _deliver_held(connection, subflow)
        # What the subflow's peer has acknowledged before counts now: no DATA_ACK will come any more.
        connection.on_subflow_acknowledged(subflow, connection.environment.timers.clock_us)
        subflow.update_segment_bytes()
        if connection.state not in CAN_WRITE:
            # DATA_FIN means nothing any more: the FIN has to say it.
            subflow.close()
    connection.request_output()


def keep_data_window(subflow: MptcpSubflow) -> None:
    """The peer's windows count from DATA_ACK until it falls back as well (RFC 8684 §3.3.4).

    While a mapping is half there, TCP would take them for more than the peer means to hold.
    """
    told_edge = subflow.data_iss + subflow.connection.send_buffer.window_edge + subflow.probe_bytes
    subflow.snd_wnd = min(subflow.snd_wnd, max(0, told_edge - subflow.snd_una))


def _deliver_held(connection: Connection, subflow: MptcpSubflow) -> None:
    """Nobody sends again what TCP has acknowledged, though it still waited for the rest of its mapping."""
    entry = subflow.mappings.half_received
    if entry is not None:
        position = min(entry.mapping.data_start, connection.receive_buffer.next_position)
        for piece in entry.take_held():
            connection.deliver(position, piece)
            position += len(piece)
        connection.notify()


def _drop_joins(connection: Connection) -> None:
    """Joins that are still in their handshake: a stream in plain TCP has one subflow."""
    for subflow in [joining for joining in connection.subflows if joining.is_join]:
        connection.subflows.remove(subflow)
        subflow.reset(connection.environment.timers.clock_us, None)
    connection.release_unopened()
