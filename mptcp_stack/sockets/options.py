"""``getsockopt`` and ``setsockopt`` of a connection: names, sizes, layouts and errors of the kernel.

What an application sets below the level of MPTCP holds for all subflows of the connection, those that come
later included. Values go in and out as the bytes that C programs would pass.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from errno import EINVAL
from typing import TYPE_CHECKING

from mptcp_stack.mptcp import receive_tuning
from mptcp_stack.sockets import mptcp_options, subflow_options
from mptcp_stack.sockets.common_options import (
    BEFORE_CONNECTING,
    CONTROL_NAME_BYTES,
    INTEGER,
    IPPROTO_TCP,
    RECEIVE_BUFFER,
    SEND_BUFFER,
    SOL_SOCKET,
    TCP_CONGESTION,
    TCP_MAXSEG,
    TCP_QUICKACK,
    WINDOW_CLAMP,
    Name,
    get_common,
    integer,
    refuse_for_mptcp,
    set_common,
)
from mptcp_stack.sockets.tcp_info import pack_tcp_info, tcp_info

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection

TCP_IS_MPTCP = 43
IPPROTO_MPTCP = 262


def get_option(
    connection: Connection, level: int, option: int, length: int = 512, request: bytes = b""
) -> bytes:
    """At most ``length`` bytes; ``request`` is what the buffer holds on the way in, for options that read it.

    Raises OSError: ENOPROTOOPT for an option that does not exist, EINVAL for a request that makes no sense,
    EOPNOTSUPP for MPTCP's options on a connection that has fallen back.
    """
    if length < 0:
        raise OSError(EINVAL, f"a buffer has at least 0 bytes, got {length}")
    if level == mptcp_options.SOL_MPTCP:
        return mptcp_options.get(connection, option, length, request)
    if level == IPPROTO_TCP and option in subflow_options.READABLE:
        return _cut(subflow_options.get(connection, option, request), length)
    reader = _READERS.get((level, option))
    if reader is not None:
        return _cut(reader(connection), length)
    return get_common(connection.socket_options, connection.environment.settings, level, option, length)


def set_option(connection: Connection, level: int, option: int, value: bytes) -> bytes:
    """Empty but for options that answer in the same buffer: MPTCP_OPEN_SUB_TUPLE. Raises OSError."""
    if level == IPPROTO_TCP and option in subflow_options.WRITABLE:
        return subflow_options.set_on(connection, option, value)
    if (level, option) in BEFORE_CONNECTING:
        raise OSError(EINVAL, "the socket is connected")
    if (level, option) == WINDOW_CLAMP and not any(value[: INTEGER.size]):
        raise OSError(EINVAL, "a connection cannot be freed from its bound")
    if _speaks_mptcp(connection):
        refuse_for_mptcp(level, option)
    if (level, option) == TCP_QUICKACK:
        connection.acknowledge_quickly(bool(integer(value)))
        return b""
    settings = connection.environment.settings
    connection.set_socket_options(set_common(connection.socket_options, settings, level, option, value))
    return b""


def take_soft_error(connection: Connection) -> int:
    """What ICMP has told of a connection that goes on, once, for SO_ERROR; 0 is nothing.

    MPTCP's sockets keep it to themselves, as it is of one subflow only.
    """
    if connection.local_key.value or not connection.subflows:
        return 0
    error, connection.subflows[0].soft_error = connection.subflows[0].soft_error, None
    return error or 0


def _cut(value: bytes, length: int) -> bytes:
    """The kernel writes what there is room for, and says nothing of the rest."""
    return value[:length]


def _read_tcp_info(connection: Connection) -> bytes:
    """Of the first subflow; all zero when there is none left."""
    if not connection.subflows:
        return pack_tcp_info({})
    return pack_tcp_info(tcp_info(connection.subflows[0], connection.send_buffer.unsent.length))


def _read_domain(connection: Connection) -> bytes:
    return INTEGER.pack(socket.AF_INET6 if connection.is_ipv6_socket else socket.AF_INET)


def _speaks_mptcp(connection: Connection) -> bool:
    """A connection keeps its name after a fallback; one accepted as TCP never had another."""
    return connection.is_mptcp or (connection.is_client and len(connection.local_key.value) > 0)


def _read_protocol(connection: Connection) -> bytes:
    return INTEGER.pack(IPPROTO_MPTCP if _speaks_mptcp(connection) else IPPROTO_TCP)


def _read_segment_size(connection: Connection) -> bytes:
    """Of the first subflow: without what timestamps take, with what MPTCP's options take."""
    if not connection.subflows:
        return get_common(
            connection.socket_options, connection.environment.settings, *TCP_MAXSEG, INTEGER.size
        )
    subflow = connection.subflows[0]
    return INTEGER.pack(subflow.segment_bytes + subflow.data_option_bytes())


def _read_congestion_control(connection: Connection) -> bytes:
    name = connection.socket_options.congestion_control
    name = name or connection.environment.settings.tcp_congestion_control
    return name.encode().ljust(CONTROL_NAME_BYTES, b"\0")


_READERS: dict[Name, Callable[[Connection], bytes]] = {
    (SOL_SOCKET, int(socket.SO_TYPE)): lambda _connection: INTEGER.pack(socket.SOCK_STREAM),
    (SOL_SOCKET, int(socket.SO_DOMAIN)): _read_domain,
    (SOL_SOCKET, int(socket.SO_PROTOCOL)): _read_protocol,
    (SOL_SOCKET, int(socket.SO_ACCEPTCONN)): lambda _connection: INTEGER.pack(0),
    (IPPROTO_TCP, int(socket.TCP_INFO)): _read_tcp_info,
    RECEIVE_BUFFER: lambda connection: INTEGER.pack(2 * connection.receive_buffer.limit),
    SEND_BUFFER: lambda connection: INTEGER.pack(connection.send_buffer.limit),
    WINDOW_CLAMP: lambda connection: INTEGER.pack(receive_tuning.window_clamp(connection)),
    TCP_CONGESTION: _read_congestion_control,
    TCP_MAXSEG: _read_segment_size,
    TCP_QUICKACK: lambda connection: INTEGER.pack(connection.acknowledges_quickly),
    (IPPROTO_TCP, TCP_IS_MPTCP): lambda connection: INTEGER.pack(connection.is_mptcp),
}
