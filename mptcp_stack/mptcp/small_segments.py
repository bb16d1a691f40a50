"""How much of what waits is worth a segment now (RFC 9293 §3.7.4 and §3.8.6.2.1).

A segment that is not full waits for company: with Nagle's rule while another small one is on its way (in
Minshall's form, which Linux has: full segments on their way do not count), with TCP_CORK always. What the
window cuts short waits until it takes a full segment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.mptcp.subflow import MptcpSubflow


def sendable_length(connection: Connection, subflow: MptcpSubflow, limit: int) -> int:
    """Of at most ``limit`` bytes that windows and device take; 0: nothing yet."""
    waiting = connection.send_buffer.unsent.length
    segment_bytes = subflow.segment_bytes
    if limit < waiting:
        return limit // segment_bytes * segment_bytes
    partial = waiting % segment_bytes
    if partial and not connection.write_closed and _must_wait(connection, subflow):
        return waiting - partial
    return waiting


def _must_wait(connection: Connection, subflow: MptcpSubflow) -> bool:
    options = subflow.socket_options
    if subflow.urgent is not None and subflow.urgent.is_sending(subflow):
        return False
    if options.cork or connection.more_follows:
        return True
    return (
        not options.no_delay
        and subflow.snd_una < subflow.last_small_end
        and len(subflow.retransmission_queue) > 0
    )
