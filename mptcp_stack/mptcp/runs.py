"""A run of data on its way: its mapping, and the timer that asks whether it came (RFC 8684 §3.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.mptcp import mapping_faults
from mptcp_stack.mptcp.outgoing import data_checksum
from mptcp_stack.mptcp.states import Mode
from mptcp_stack.tcp.buffers import Parts, parts_length, slice_parts
from mptcp_stack.tcp.retransmission_queue import Mapping
from mptcp_stack.tcp.states import State

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.mptcp.subflow import MptcpSubflow

MAXIMUM_MAPPING_BYTES = 65535


def largest_run(connection: Connection, subflow: MptcpSubflow) -> int:
    """How many bytes one mapping may have there."""
    if connection.mode is Mode.MPTCP and connection.is_client and not subflow.is_confirmed:
        # The option that carries the keys maps this segment; a super-segment would repeat it on each part.
        return subflow.segment_bytes
    return min(subflow.maximum_burst_bytes(), MAXIMUM_MAPPING_BYTES)


def send_run(
    connection: Connection, subflow: MptcpSubflow, start: int, payload: Parts, push: bool, now_us: int
) -> None:
    """Sends the bytes from ``start`` of the data at once. The caller has asked for the room.

    What the peer has already, to probe its window, does not begin the infinite mapping that is due: as in
    Linux that is left to the data that follows.
    """
    length = parts_length(payload)
    connection.last_data_sent_us = now_us
    if connection.mode is Mode.PLAIN_TCP:
        subflow.send_data(payload, length, None, push, now_us)
        return
    mapping = Mapping(start, subflow.snd_nxt - subflow.data_iss, length)
    room_bytes = subflow.segment_bytes
    is_probe = start < connection.send_buffer.una
    if (
        subflow.failure is not None
        and not is_probe
        and mapping_faults.begins_infinite_mapping(subflow, now_us)
    ):
        _send_infinite(connection, subflow, mapping, payload, room_bytes, push, now_us)
        return
    if subflow.state is State.CLOSED:
        return
    if connection.checksum_enabled:
        mapping.checksum = data_checksum(connection.local_sequence_base, mapping, payload)
    arm_data_retransmission(connection, now_us)
    subflow.send_data(payload, length, mapping, push, now_us)


def _send_infinite(
    connection: Connection,
    subflow: MptcpSubflow,
    mapping: Mapping,
    payload: Parts,
    room_bytes: int,
    push: bool,
    now_us: int,
) -> None:
    """The mapping goes with one segment, in which it leaves ``room_bytes``; those after it need none.

    The connection is plain TCP by now, whose segments have no room for options of MPTCP: one of full size
    with this mapping would be longer than the MTU, each time it is sent.
    """
    length = parts_length(payload)
    first_bytes = min(length, room_bytes)
    # RFC 8684 §3.3.1: a length of 0 stands for everything that follows, and its checksum is 0.
    mapping.length, mapping.checksum = 0, 0 if connection.checksum_enabled else None
    arm_data_retransmission(connection, now_us)
    is_whole = first_bytes == length
    subflow.send_data(slice_parts(payload, 0, first_bytes), first_bytes, mapping, push and is_whole, now_us)
    if not is_whole:
        rest = slice_parts(payload, first_bytes, length)
        subflow.send_data(rest, length - first_bytes, None, push, now_us)


def arm_data_retransmission(connection: Connection, now_us: int) -> None:
    """From the first data that leaves, or the last that was acknowledged."""
    if not connection.data_retransmission_timer.is_set:
        timeout_us = connection.send_buffer.timeout_us or connection.environment.settings.minimum_rto_us
        connection.data_retransmission_timer.set(now_us + timeout_us)


def update_data_timeout(connection: Connection, now_us: int) -> None:
    """As long as the last of the subflows' timers has yet to run, but for those that are without an answer.

    So the subflows' own retransmissions and probes come first. As in Linux it is decided whenever there is
    new data, before a subflow gets it: with nothing on its way it is the shortest RTO.
    """
    longest_us = 0
    for subflow in connection.subflows:
        deadline_us = subflow.retransmission_timer.deadline_us
        if deadline_us is not None and deadline_us - now_us > longest_us and not subflow.stale_count:
            longest_us = deadline_us - now_us
    connection.send_buffer.timeout_us = longest_us
