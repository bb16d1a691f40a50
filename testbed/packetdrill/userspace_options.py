"""Socket options and TCP_INFO on the bundled stack; what it lacks is ENOPROTOOPT, as the kernel says it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from errno import EDOM, ENOPROTOOPT

from mptcp_stack.sockets.common_options import (
    INTEGER,
    RECEIVE_BUFFER,
    SEND_BUFFER,
    TCP_FASTOPEN_KEY,
    TCP_MAXSEG,
    WINDOW_CLAMP,
    get_common,
    refuse_for_mptcp,
    set_common,
)
from mptcp_stack.sockets.options import get_option, set_option, take_soft_error
from mptcp_stack.sockets.tcp_info import CLOSED, LISTENING, tcp_info
from mptcp_stack.stack import Stack
from mptcp_stack.tcp.fast_open import KEY_BYTES
from testbed.packetdrill.stack_under_test import Value
from testbed.packetdrill.userspace_attempts import Handler, Try, finished, number_argument
from testbed.packetdrill.userspace_descriptors import DescriptorTable, StreamSocket

TCP_IS_MPTCP = 43
IPPROTO_MPTCP = 262
INTEGER_BYTES = 4
LINGER_BYTES = 8
TIME_BYTES = 16
CONTROL_NAME_BYTES = 16
SECOND_US = 1_000_000

Name = tuple[int, int]
"""Level and option."""

_SOCKET = int(socket.SOL_SOCKET)
_TCP = int(socket.IPPROTO_TCP)
_KEPT: frozenset[Name] = frozenset(
    (level, int(option))
    for level, option in (
        (_SOCKET, socket.SO_REUSEADDR),
        (_SOCKET, socket.SO_REUSEPORT),
    )
)
"""Without effect on the wire here."""
_CONGESTION: Name = (_TCP, int(socket.TCP_CONGESTION))
_TIMEOUTS: dict[Name, str] = {
    (_SOCKET, int(socket.SO_RCVTIMEO)): "receive_timeout_us",
    (_SOCKET, int(socket.SO_SNDTIMEO)): "send_timeout_us",
}
_QUICK_ACK: Name = (_TCP, int(socket.TCP_QUICKACK))
_OF_THE_CONNECTION: frozenset[Name] = frozenset({TCP_MAXSEG, SEND_BUFFER, RECEIVE_BUFFER, WINDOW_CLAMP})


class SocketOptions:
    def __init__(self, stack: Stack, table: DescriptorTable) -> None:
        self._stack = stack
        self._table = table
        self.handlers: dict[str, Handler] = {
            "getsockopt": self._getsockopt,
            "setsockopt": self._setsockopt,
        }
        self._readers: dict[Name, Callable[[StreamSocket], int]] = {
            (_SOCKET, int(socket.SO_ERROR)): _take_error,
            (_SOCKET, int(socket.SO_TYPE)): lambda _endpoint: int(socket.SOCK_STREAM),
            (_SOCKET, int(socket.SO_DOMAIN)): lambda endpoint: endpoint.domain,
            (_SOCKET, int(socket.SO_PROTOCOL)): lambda endpoint: (
                IPPROTO_MPTCP if endpoint.protocol == "mptcp" else _TCP
            ),
            (_SOCKET, int(socket.SO_ACCEPTCONN)): lambda endpoint: int(endpoint.listener is not None),
            (_TCP, TCP_IS_MPTCP): _is_mptcp,
        }

    def _getsockopt(self, arguments: list[Value]) -> Try:
        endpoint = self._table.socket(number_argument(arguments[0], "descriptor"))
        name = number_argument(arguments[1], "level"), number_argument(arguments[2], "option")
        if name == (_SOCKET, int(socket.SO_LINGER)):
            is_on, seconds = endpoint.linger
            return finished(0, {3: {"onoff": is_on, "linger": seconds}, 4: [LINGER_BYTES]})
        if name in _TIMEOUTS:
            seconds, microseconds = divmod(getattr(endpoint, _TIMEOUTS[name]), SECOND_US)
            return finished(0, {3: {"tv_sec": seconds, "tv_usec": microseconds}, 4: [TIME_BYTES]})
        if name == (_TCP, int(socket.TCP_INFO)):
            info: dict[str, Value] = dict(tcp_info_of(endpoint))
            return finished(0, {3: info})
        if name == TCP_FASTOPEN_KEY:
            keys = get_common(endpoint.socket_options, self._stack.settings, *name, 2 * KEY_BYTES)
            return finished(0, {3: keys, 4: [len(keys)]})
        if name == _CONGESTION:
            control = endpoint.socket_options.congestion_control
            text = (control or self._stack.settings.tcp_congestion_control).encode()
            return finished(0, {3: text.ljust(CONTROL_NAME_BYTES, b"\0"), 4: [CONTROL_NAME_BYTES]})
        return finished(0, {3: [self._read(endpoint, name)], 4: [INTEGER_BYTES]})

    def _read(self, endpoint: StreamSocket, name: Name) -> int:
        reader = self._readers.get(name)
        if reader is not None:
            return reader(endpoint)
        if name in _KEPT:
            return endpoint.options.get(name, 0)
        if name == _QUICK_ACK and endpoint.connection is not None:
            return int(endpoint.connection.acknowledges_quickly)
        if name in _OF_THE_CONNECTION and endpoint.connection is not None:
            data = get_option(endpoint.connection, *name)
        else:
            data = get_common(endpoint.socket_options, self._stack.settings, *name, INTEGER_BYTES)
        value: int = INTEGER.unpack(data)[0]
        return value

    def _setsockopt(self, arguments: list[Value]) -> Try:
        endpoint = self._table.socket(number_argument(arguments[0], "descriptor"))
        name = number_argument(arguments[1], "level"), number_argument(arguments[2], "option")
        value = arguments[3]
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if name == (_SOCKET, int(socket.SO_LINGER)):
            self._set_linger(endpoint, value)
        elif name in _TIMEOUTS:
            setattr(endpoint, _TIMEOUTS[name], _timeout_us(value))
        elif name in _KEPT:
            endpoint.options[name] = int(bool(number_argument(value, "value")))
        elif name == _QUICK_ACK and endpoint.connection is not None:
            endpoint.connection.acknowledge_quickly(bool(number_argument(value, "value")))
        elif endpoint.connection is not None:
            set_option(endpoint.connection, *name, _plain_bytes(value))
            endpoint.socket_options = endpoint.connection.socket_options
        else:
            if endpoint.protocol == "mptcp":
                refuse_for_mptcp(*name)
            data = _plain_bytes(value)
            endpoint.set_socket_options(
                set_common(endpoint.socket_options, self._stack.settings, *name, data)
            )
        return finished(0)

    def _set_linger(self, endpoint: StreamSocket, value: Value) -> None:
        if not isinstance(value, dict):
            raise ValueError("SO_LINGER: expected {onoff=…, linger=…}")
        is_on = number_argument(value.get("onoff", value.get("l_onoff")), "onoff")
        seconds = number_argument(value.get("linger", value.get("l_linger")), "linger")
        endpoint.linger = (int(bool(is_on)), max(0, seconds))


def _take_error(endpoint: StreamSocket) -> int:
    error = endpoint.take_error()
    if error is None and endpoint.connection is not None:
        return take_soft_error(endpoint.connection)
    return error or 0


def _plain_bytes(value: Value) -> bytes:
    """A number or a text. Structures are of options that are not here."""
    if isinstance(value, dict):
        raise OSError(ENOPROTOOPT, "the bundled stack has no such option")
    return value if isinstance(value, bytes) else INTEGER.pack(number_argument(value, "value"))


def _timeout_us(value: Value) -> int:
    if not isinstance(value, dict):
        raise ValueError("a time-out: expected {tv_sec=…, tv_usec=…}")
    seconds = number_argument(value.get("tv_sec"), "tv_sec", 0)
    microseconds = number_argument(value.get("tv_usec"), "tv_usec", 0)
    if not 0 <= microseconds < SECOND_US:
        raise OSError(EDOM, "tv_usec")
    # As sock_set_timeout() has it: before now is at once, which here is the next instant.
    return 1 if seconds < 0 else seconds * SECOND_US + microseconds


def _is_mptcp(endpoint: StreamSocket) -> int:
    if endpoint.connection is None:
        return int(endpoint.protocol == "mptcp")
    return int(endpoint.connection.is_mptcp)


def tcp_info_of(endpoint: StreamSocket) -> dict[str, int]:
    """The fields of TCP_INFO that this stack knows, by name; of MPTCP sockets, those of the first subflow."""
    connection = endpoint.connection
    if connection is None or not connection.subflows:
        return {"tcpi_state": LISTENING if endpoint.listener is not None else CLOSED}
    return tcp_info(connection.subflows[0], connection.send_buffer.unsent.length)
