"""Data that goes out once more, on another subflow (RFC 8684 §3.3.6): when, how much, on which.

The RFC leaves that open; the rules are Linux's. What a subflow lost it repeats itself. Only when DATA_ACK has
stood still for a while the oldest data is sent again, by a subflow that has nothing of its own on the way, so
that a path which is merely slow costs no other one its bandwidth. All that a subflow carries goes to
the others when it is gone or has been silent for so long that it is stale. (Linux then repeats what others
carry as well.)

More eagerness does harm: what a subflow still repeats after its copy came in by another may find the peer's
application gone and the subflow reset (RFC 8684 §3.3.3 allows that).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.mptcp import fallback
from mptcp_stack.mptcp.runs import arm_data_retransmission, largest_run, send_run
from mptcp_stack.mptcp.states import Mode
from mptcp_stack.tcp.buffers import parts_length, slice_parts
from mptcp_stack.tcp.states import State

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.mptcp.subflow import MptcpSubflow

BYTES_AT_ONCE = 32768
"""Linux sends one fragment of its buffer again, which has this size at most."""


def on_data_acknowledged(connection: Connection, now_us: int) -> None:
    """DATA_ACK moved."""
    connection.data_retransmission_timer.cancel()
    if connection.send_buffer.has_outstanding or _is_held_up(connection):
        arm_data_retransmission(connection, now_us)


def _is_held_up(connection: Connection) -> bool:
    """Data waits for subflows that still wait for acknowledgements of their own, perhaps for ever.

    Linux gives a subflow more than its congestion window takes, so there that data counts as outstanding.
    """
    return bool(connection.send_buffer.unsent.length) and any(
        subflow.is_usable and len(subflow.retransmission_queue) for subflow in connection.subflows
    )


def on_timer(connection: Connection, now_us: int) -> None:
    """No DATA_ACK for long: the peer lacks the oldest data, whatever the subflows say."""
    if connection.mode is not Mode.MPTCP:
        return
    if not connection.send_buffer.has_outstanding:
        if _is_held_up(connection):
            # Only to find out who is silent: once they are stale, others may carry what waits.
            _carrier(connection)
            arm_data_retransmission(connection, now_us)
        return
    subflow = _carrier(connection)
    if subflow is not None and fallback.on_missing_data_ack(connection):
        return
    if subflow is not None:
        _send_oldest(connection, subflow, now_us)
    arm_data_retransmission(connection, now_us)


def _carrier(connection: Connection) -> MptcpSubflow | None:
    """One with nothing outstanding; a backup only when those that are busy get no answer.

    All are looked at: who is silent is to be found even while there is one to carry the data.
    """
    idle: MptcpSubflow | None = None
    backup: MptcpSubflow | None = None
    some_get_answers = False
    for subflow in connection.subflows:
        if not subflow.is_usable or subflow.is_stale:
            continue
        if len(subflow.retransmission_queue):
            _note_silence(connection, subflow)
            some_get_answers = some_get_answers or subflow.stale_count <= 1
        elif subflow.counts_as_backup:
            backup = backup or subflow
        else:
            idle = idle or subflow
    return idle or (None if some_get_answers else backup)


def _note_silence(connection: Connection, subflow: MptcpSubflow) -> None:
    """One more period in which it had data on the way; any segment that comes in ends the count.

    After more of them than ``stale_loss_cnt`` it is stale, if there is another that does better.
    """
    subflow.stale_count = min(subflow.stale_count + 1, 255)
    limit = connection.environment.settings.stale_loss_cnt
    if not limit or subflow.stale_count <= limit:
        return
    if any(
        other is not subflow
        and other.is_usable
        and not other.is_stale
        and other.stale_count < max(limit - 1, 1)
        for other in connection.subflows
    ):
        subflow.is_stale = True
        connection.environment.counters.increment("MPTcpExtSubflowStale")
        connection.send_buffer.queue_again(subflow)
        connection.request_output()


def _send_oldest(connection: Connection, subflow: MptcpSubflow, now_us: int) -> None:
    left = min(BYTES_AT_ONCE, subflow.sendable_bytes())
    oldest = connection.send_buffer.oldest_runs(left)
    for index, (position, payload) in enumerate(oldest):
        length, sent = parts_length(payload), 0
        while sent < length and subflow.state is not State.CLOSED:
            stop = min(length, sent + largest_run(connection, subflow))
            is_last = stop == length and index == len(oldest) - 1
            count_again(connection, stop - sent)
            send_run(connection, subflow, position + sent, slice_parts(payload, sent, stop), is_last, now_us)
            sent = stop


def count_again(connection: Connection, length: int) -> None:
    """So many bytes leave once more."""
    connection.environment.counters.increment("MPTcpExtMPTCPRetrans")
    connection.data_retransmissions += 1
    connection.retransmitted_bytes += length


def on_subflow_gone(connection: Connection, subflow: MptcpSubflow) -> None:
    """What it has not delivered goes to the others."""
    if connection.mode is Mode.MPTCP:
        connection.send_buffer.queue_again(subflow)
        connection.request_output()
