"""How addresses are announced and subflows given up, whoever decides on it (RFC 8684 §3.4)."""

from __future__ import annotations

from dataclasses import dataclass

from mptcp_stack.mptcp import crypto
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.mptcp.states import Mode, ResetReason
from mptcp_stack.mptcp.subflow import MptcpSubflow
from mptcp_stack.tcp.states import Acknowledge, State
from mptcp_stack.tcp.timers import Timer
from mptcp_stack.wire.mptcp_options import AddAddr

ADD_ADDR_RETRANSMISSIONS = 3


@dataclass(slots=True)
class Announcement:
    """An ADD_ADDR that waits for its echo."""

    option: AddAddr
    timer: Timer
    tries: int = 0


def signed_address(connection: Connection, identifier: int, address: bytes, port: int | None) -> AddAddr:
    digest = crypto.address_hmac(
        connection.local_key.value, connection.require_remote_key().value, identifier, address, port
    )
    return AddAddr(False, identifier, address, port, digest)


def send_announcement(connection: Connection, announcement: Announcement, now_us: int) -> None:
    """Once, and sets the timer for the next time."""
    subflow = signalling_subflow(connection)
    if subflow is not None:
        subflow.signal(announcement.option, now_us)
    settings = connection.environment.settings
    if settings.add_addr_timeout_us:
        timeouts_us = (other.round_trip.rto_us for other in connection.subflows)
        wait_us = min(settings.add_addr_timeout_us, max(timeouts_us, default=settings.minimum_rto_us))
        announcement.timer.set(now_us + (wait_us << announcement.tries))


def signalling_subflow(
    connection: Connection, besides: list[MptcpSubflow] | None = None
) -> MptcpSubflow | None:
    """An established subflow to send a signal on, one of ``besides`` only when there is no other."""
    able = [subflow for subflow in connection.subflows if subflow.is_usable]
    preferred = [subflow for subflow in able if subflow not in (besides or [])]
    return next(iter(preferred or able), None)


def close_removed(connection: Connection, subflow: MptcpSubflow) -> None:
    """Its address is gone: what it carries goes to the others, and it ends with a FIN."""
    if connection.mode is Mode.MPTCP:
        connection.send_buffer.queue_again(subflow)
    now_us = subflow.environment.timers.clock_us
    if subflow.state in (State.SYN_SENT, State.SYN_RECEIVED):
        subflow.reset_with_reason(ResetReason.UNSPECIFIED, None, now_us)
    else:
        # What was received is acknowledged before the FIN, as Linux has it.
        subflow.acknowledge = Acknowledge.NOW
        subflow.flush_acknowledgement(now_us)
        subflow.close()
    connection.request_output()


def close_subflows_to(connection: Connection, address_id: int) -> None:
    """The peer has withdrawn the address."""
    for subflow in list(connection.subflows):
        if subflow.remote_id == address_id and subflow.was_established:
            close_removed(connection, subflow)
