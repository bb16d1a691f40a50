"""What a connection sends and when: new data, data again, DATA_FIN (RFC 8684 §3.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.mptcp import opportunism
from mptcp_stack.mptcp.reinjection import count_again
from mptcp_stack.mptcp.runs import largest_run, send_run, update_data_timeout
from mptcp_stack.mptcp.small_segments import sendable_length
from mptcp_stack.mptcp.states import CAN_WRITE, DataEvent, DataState, Mode
from mptcp_stack.tcp.states import Acknowledge, State

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.mptcp.send_buffer import Outstanding
    from mptcp_stack.mptcp.subflow import MptcpSubflow

DATA_FIN_FIRST_WAIT_US = 200_000
DATA_FIN_LONGEST_WAIT_US = 120_000_000
DATA_FINS_BEFORE_FIN = 3


def run(connection: Connection, now_us: int) -> None:
    """All that may leave now: signals, retransmissions, data, the end, acknowledgements, new subflows."""
    for subflow in list(connection.subflows):
        if subflow.pending_signals:
            subflow.flush_acknowledgement(now_us)
    for subflow in list(connection.subflows):
        subflow.flush(now_us)
    if connection.state is not DataState.CONNECTING:
        _send_again(connection, now_us)
        _send_new(connection, now_us)
        connection.more_follows = False
        _send_end(connection, now_us)
    for subflow in list(connection.subflows):
        subflow.flush_acknowledgement(now_us)
    while connection.to_open:
        connection.to_open.pop(0).open_actively(now_us)


def _send_again(connection: Connection, now_us: int) -> None:
    """Runs whose subflow failed them, on whichever subflow has room (RFC 8684 §3.3.6)."""
    buffer = connection.send_buffer
    while (pending := buffer.next_reinjection()) is not None:
        subflow = connection.scheduler.choose(connection.subflows, for_reinjection=True)
        if subflow is None:
            break
        length = min(pending.end - pending.start, subflow.sendable_bytes(), largest_run(connection, subflow))
        start, payload = buffer.take_reinjection(length, subflow)
        count_again(connection, length)
        is_last = buffer.next_reinjection() is None and not buffer.unsent.length
        send_run(connection, subflow, start, payload, is_last, now_us)


def _send_new(connection: Connection, now_us: int) -> None:
    buffer = connection.send_buffer
    if buffer.unsent.length:
        update_data_timeout(connection, now_us)
        for resting in connection.subflows:
            resting.begin_transmission(now_us)
        if buffer.window_edge > buffer.nxt:
            _send_owed_window_probes(connection, now_us)
    while buffer.unsent.length:
        subflow = connection.scheduler.choose(connection.subflows, for_reinjection=False)
        room = 0 if subflow is None else _room(connection, subflow)
        length = 0
        if subflow is not None and room > 0:
            length = sendable_length(connection, subflow, min(room, largest_run(connection, subflow)))
            if subflow.mtu_probing is not None:
                length = subflow.mtu_probing.length_to_send(
                    subflow, buffer.unsent.length, room, length, now_us
                )
        if subflow is None or not length:
            if subflow is not None and opportunism.unblock(connection, subflow, now_us):
                _send_again(connection, now_us)
            _want_probe(connection, now_us)
            break
        _send_length(connection, subflow, length, now_us)


def _send_length(connection: Connection, subflow: MptcpSubflow, length: int, now_us: int) -> None:
    """New data; the last of it takes the FIN of plain TCP with it (RFC 9293 §3.10.4)."""
    buffer = connection.send_buffer
    marks = connection.push_marks
    mark = marks.next_after(buffer.nxt) if marks is not None else buffer.written
    if mark is not None and (subflow.mtu_probing is None or not subflow.mtu_probing.is_begun(subflow)):
        length = min(length, mark - buffer.nxt)
    is_end = (
        connection.write_closed
        and connection.mode is Mode.PLAIN_TCP
        and length == buffer.unsent.length
        and subflow.state is not State.SYN_RECEIVED
        and subflow.window_edge() - subflow.snd_nxt > length
    )
    outstanding = buffer.take(length, subflow)
    if is_end:
        connection.last_data_sent_us = now_us
        connection.change_state(DataEvent.FIN_SENT)
        subflow.send_data(outstanding.payload, length, None, True, now_us, is_end=True)
        return
    push = mark == buffer.nxt and not (marks is None and connection.more_follows)
    send_run(connection, subflow, outstanding.start, outstanding.payload, push, now_us)
    if connection.scheduler.sends_copies and connection.mode is Mode.MPTCP:
        _send_copies(connection, outstanding, push, now_us)


def _send_copies(connection: Connection, run: Outstanding, push: bool, now_us: int) -> None:
    """The run on every other subflow that takes all of it now; each repeats its own copy when it is lost."""
    length = run.end - run.start
    for other in list(connection.subflows):
        if other is run.carrier or not other.is_usable or other.is_stale or other.counts_as_backup:
            continue
        if other.failure is None and length <= min(other.sendable_bytes(), largest_run(connection, other)):
            send_run(connection, other, run.start, run.payload, push, now_us)


def send_waiting(connection: Connection, subflow: MptcpSubflow, now_us: int) -> bool:
    """It has waited long enough: what the window takes goes out, a small segment as well."""
    waiting = connection.send_buffer.unsent.length
    if not waiting:
        subflow.flush(now_us)
        return len(subflow.retransmission_queue) > 0
    length = min(waiting, subflow.segment_bytes, _room(connection, subflow))
    if length <= 0 or not subflow.is_usable:
        return False
    outstanding = connection.send_buffer.take(length, subflow)
    send_run(connection, subflow, outstanding.start, outstanding.payload, True, now_us)
    connection.request_output()
    return True


def has_unsent_data(connection: Connection) -> bool:
    """New data that the peer's data-level window takes."""
    buffer = connection.send_buffer
    if not buffer.unsent.length or connection.state is DataState.CONNECTING:
        return False
    return connection.mode is Mode.PLAIN_TCP or buffer.nxt < buffer.window_edge


def send_one_segment(connection: Connection, subflow: MptcpSubflow, now_us: int) -> bool:
    """A segment of new data on this subflow, as far as the peer's window takes it (RFC 8985 §7.3)."""
    buffer = connection.send_buffer
    room = subflow.window_edge() - subflow.snd_nxt
    if connection.mode is not Mode.PLAIN_TCP:
        room = min(room, buffer.window_edge - buffer.nxt)
    length = min(room, buffer.unsent.length, subflow.segment_bytes)
    if length <= 0:
        return False
    _send_length(connection, subflow, length, now_us)
    return True


def _want_probe(connection: Connection, now_us: int) -> None:
    """When nothing is in flight, nothing will tell that the window has opened."""
    usable = [subflow for subflow in connection.subflows if subflow.is_usable]
    # What is in flight on a path that is silent tells nothing.
    usable = [subflow for subflow in usable if not subflow.is_stale] or usable
    if usable and not any(len(subflow.retransmission_queue) for subflow in usable):
        usable[0].want_window_probe(now_us)
        buffer = connection.send_buffer
        is_closed = connection.mode is Mode.MPTCP and buffer.window_edge <= buffer.nxt == buffer.una
        if is_closed and not usable[0].owes_window_probe:
            usable[0].owes_window_probe = True
            connection.environment.counters.increment("MPTcpExtWinProbe")


def _send_owed_window_probes(connection: Connection, now_us: int) -> None:
    """Linux hands a subflow a byte that the peer has, for a window that is closed at data level as well.

    The subflow's own probes go before it (RFC 9293 §3.8.6.1); it leaves ahead of what the window then takes.
    """
    for subflow in list(connection.subflows):
        if subflow.owes_window_probe:
            subflow.owes_window_probe = False
            if connection.mode is Mode.MPTCP and subflow.is_usable and subflow.sendable_bytes():
                subflow.probe_bytes += 1
                send_run(connection, subflow, connection.send_buffer.una - 1, (b"\0",), True, now_us)


def _room(connection: Connection, subflow: MptcpSubflow) -> int:
    """What both the subflow and the data-level window take (RFC 8684 §3.3.4)."""
    room = subflow.sendable_bytes()
    if connection.mode is Mode.PLAIN_TCP:
        return room
    buffer = connection.send_buffer
    data_room = buffer.window_edge - buffer.nxt
    if room > 0 and subflow.snd_wnd < data_room:
        subflow.snd_wnd = data_room
        connection.environment.counters.increment("MPTcpExtSndWndShared")
    return min(room, data_room)


def _send_end(connection: Connection, now_us: int) -> None:
    """FIN, or DATA_FIN on every subflow, when everything written has been sent once."""
    if not connection.write_closed or connection.send_buffer.unsent.length:
        return
    if connection.state not in CAN_WRITE:
        return
    connection.change_state(DataEvent.FIN_SENT)
    if connection.mode is Mode.PLAIN_TCP:
        for subflow in connection.subflows:
            subflow.close()
            subflow.flush(now_us)
        return
    connection.data_fin_is_due = True
    connection.data_fin_tries = 0
    _send_data_fin(connection, now_us)


def _send_data_fin(connection: Connection, now_us: int) -> None:
    for subflow in connection.subflows:
        if subflow.can_tell:
            if not subflow.is_confirmed:
                # The third packet, if it is still to come, has to carry the keys.
                if subflow.acknowledge is not Acknowledge.NOTHING:
                    subflow.acknowledge = Acknowledge.NOW
                subflow.flush_acknowledgement(now_us)
            subflow.data_fin_wanted = True
            subflow.want_acknowledgement(Acknowledge.NOW, now_us)
    wait_us = min(DATA_FIN_FIRST_WAIT_US << connection.data_fin_tries, DATA_FIN_LONGEST_WAIT_US)
    connection.data_fin_timer.set(now_us + wait_us)


def _end_without_confirmation(connection: Connection) -> None:
    """Who missed the third packet goes on as TCP, where DATA_FIN means nothing, and never answers it.

    Without data there is nothing else to learn that from. A FIN that carries the DATA_FIN ends both kinds.
    """
    if connection.data_fin_tries < DATA_FINS_BEFORE_FIN:
        return
    for subflow in connection.subflows:
        if subflow.snd_nxt == subflow.snd_iss + 1:
            subflow.data_fin_wanted = subflow.ended_early = True
            subflow.close()


def on_data_fin_timer(connection: Connection, now_us: int) -> None:
    """DATA_FIN is repeated until it is acknowledged at data level."""
    if connection.data_fin_is_due:
        connection.data_fin_tries = min(connection.data_fin_tries + 1, 16)
        if connection.is_client and not connection.confirmed_once:
            _end_without_confirmation(connection)
        _send_data_fin(connection, now_us)
        connection.request_output()
