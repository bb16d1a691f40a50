"""How large a connection's send buffer has to be, by Linux (tcp_sndbuf_expand, mptcp_propagate_sndbuf).

A subflow's share has room for twice its congestion window, each segment counted with what a packet takes
beside its payload. It grows while writers wait for room, never shrinks, and is bounded by ``tcp_wmem``. An
MPTCP connection has what its subflows have, and the least buffer besides. SO_SNDBUF fixes the size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.mptcp.send_buffer import PIECE_BYTES
from mptcp_stack.tcp.buffers import shared

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.mptcp.subflow import MptcpSubflow
    from mptcp_stack.settings import StackSettings
    from mptcp_stack.tcp.socket_options import SocketOptions

_LEAST_SEGMENTS = 10
"""What may always be sent at once (RFC 6928)."""
_HEADERS_BYTES, _RECORD_BYTES = 512, 256
"""What a packet takes beside its payload: in its buffer, whose size is a power of two, and for its record."""
_WINDOWS = 2
"""As much again as is on the way: that is repeated, and the writer may be late."""


def first_limit(settings: StackSettings) -> int:
    """The buffer of a connection that is not established yet."""
    return settings.send_buffer_bytes or settings.tcp_wmem[1]


def most_bytes(settings: StackSettings, subflows: int) -> int:
    """What a connection with so many subflows may ever hold when no application fixes its buffer."""
    limit = settings.send_buffer_bytes or settings.tcp_wmem[0] + subflows * settings.tcp_wmem[2]
    return limit + PIECE_BYTES - 1


def is_tuned(settings: StackSettings, options: SocketOptions) -> bool:
    return not settings.send_buffer_bytes and not options.send_buffer_bytes


def on_established(connection: Connection, subflow: MptcpSubflow) -> None:
    """The peer's segment size is known now."""
    _expand(subflow, subflow.environment.settings)
    follow_subflows(connection)


def on_options(connection: Connection) -> None:
    """SO_SNDBUF fixes the size, on an open connection too; what is in the buffer stays there."""
    fixed_bytes = connection.socket_options.send_buffer_bytes
    if fixed_bytes:
        connection.send_buffer.limit = fixed_bytes


def follow_subflows(connection: Connection) -> None:
    """The connection's buffer has what those of its subflows have."""
    settings = connection.environment.settings
    established = [subflow for subflow in connection.subflows if subflow.was_established]
    if not established or not is_tuned(settings, connection.socket_options):
        return
    is_mptcp_socket = connection.is_mptcp or (connection.is_client and bool(connection.local_key.value))
    limit = settings.tcp_wmem[0] if is_mptcp_socket else 0
    for subflow in established:
        limit += subflow.send_buffer_bytes
    buffer = connection.send_buffer
    is_more, buffer.limit = limit > buffer.limit, shared(limit)
    if is_more and buffer.is_short and buffer.is_writable:
        connection.notify()


def on_acknowledged(connection: Connection, subflow: MptcpSubflow) -> None:
    """Writers wait for room, and the congestion window of this subflow may have grown.

    Linux does this only when the window is not filled, which its small queues see to nearly always.
    """
    buffer, settings = connection.send_buffer, connection.environment.settings
    if is_tuned(settings, connection.socket_options):
        _expand(subflow, settings)
        follow_subflows(connection)
    buffer.is_short = not buffer.is_writable


def _expand(subflow: MptcpSubflow, settings: StackSettings) -> None:
    largest = settings.tcp_wmem[2]
    if subflow.send_buffer_bytes >= largest:
        return
    packet_bytes = (1 << (subflow.peer_mss + _HEADERS_BYTES - 1).bit_length()) + _RECORD_BYTES
    segments = max(_LEAST_SEGMENTS, subflow.congestion.congestion_window // subflow.segment_bytes)
    wanted = min(_WINDOWS * segments * packet_bytes, largest)
    if wanted > subflow.send_buffer_bytes:
        subflow.send_buffer_bytes = shared(wanted)
