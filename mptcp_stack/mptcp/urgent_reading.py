"""What urgent data means to who reads the stream, as for Linux's TCP sockets (RFC 9293 §3.8.5)."""

from __future__ import annotations

from errno import EAGAIN, EINVAL
from typing import TYPE_CHECKING

from mptcp_stack.mptcp.states import Mode
from mptcp_stack.tcp.urgent import UrgentData

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection


def knows_urgency(connection: Connection) -> bool:
    """To MPTCP's sockets it means nothing, after a fallback neither."""
    is_mptcp_socket = connection.is_client and bool(connection.local_key.value)
    return connection.mode is Mode.PLAIN_TCP and not is_mptcp_socket


def urgent_data(connection: Connection) -> UrgentData | None:
    if not knows_urgency(connection):
        return None
    if connection.urgent is None:
        connection.urgent = UrgentData()
    return connection.urgent


def on_written(connection: Connection) -> None:
    """The last byte written is urgent."""
    urgent = urgent_data(connection)
    if urgent is not None and connection.subflows:
        subflow = connection.subflows[0]
        subflow.urgent = urgent
        urgent.sent_end = subflow.data_iss + subflow.probe_bytes + connection.send_buffer.written


def bytes_to_read(connection: Connection, urgent: UrgentData, max_bytes: int) -> int:
    """A read ends before the mark; one that begins there leaves out the byte, if that is read apart."""
    buffer = connection.receive_buffer
    if urgent.mark is None:
        return max_bytes
    distance = urgent.mark - buffer.read_position
    if distance > 0:
        return min(max_bytes, distance)
    if distance == 0 and not buffer.readable_bytes:
        return max_bytes
    if distance == 0:
        _leave_out(connection)
    urgent.forget_mark()
    return max_bytes


def on_mark_moved(connection: Connection) -> None:
    """Another byte is urgent now. The one before is ordinary, but where reading has come to it."""
    urgent, buffer = connection.urgent, connection.receive_buffer
    if urgent is not None and urgent.mark == buffer.read_position and buffer.readable_bytes:
        _leave_out(connection)


def _leave_out(connection: Connection) -> None:
    if not connection.socket_options.urgent_inline:
        connection.receive_buffer.read(1)


def readable_bytes(connection: Connection, urgent: UrgentData) -> int:
    """Without the urgent byte, when it is next and read apart."""
    buffer = connection.receive_buffer
    readable = buffer.readable_bytes
    is_next = urgent.mark == buffer.read_position and not connection.socket_options.urgent_inline
    return readable - 1 if readable and is_next else readable


def read_apart(connection: Connection, *, keep: bool = False) -> bytes:
    """The urgent byte (MSG_OOB). Raises OSError: EINVAL without one, EAGAIN when it is still to come."""
    urgent = connection.urgent
    is_inline = connection.socket_options.urgent_inline
    if is_inline or urgent is None or urgent.mark is None or urgent.was_read:
        raise OSError(EINVAL, "there is no urgent data")
    if urgent.byte is None:
        if connection.is_closed or connection.receive_buffer.fin_was_taken:
            return b""
        raise OSError(EAGAIN, "the urgent byte has not come yet")
    urgent.was_read = not keep
    return bytes((urgent.byte,))


def is_at_mark(connection: Connection) -> bool:
    """SIOCATMARK: the next byte is the urgent one."""
    urgent = connection.urgent
    return urgent is not None and urgent.mark == connection.receive_buffer.read_position
