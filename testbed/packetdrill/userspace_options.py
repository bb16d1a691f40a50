"""Socket options and TCP_INFO on the bundled stack; what it lacks is ENOPROTOOPT, as the kernel says it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from errno import EINVAL, ENOPROTOOPT

from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.stack import Stack
from mptcp_stack.tcp.states import Recovery, State
from mptcp_stack.tcp.subflow import Subflow
from testbed.packetdrill.stack_under_test import Value
from testbed.packetdrill.userspace_attempts import Handler, Try, finished, number_argument
from testbed.packetdrill.userspace_descriptors import DescriptorTable, StreamSocket

TCP_IS_MPTCP = 43
IPPROTO_MPTCP = 262
MINIMUM_SEND_BUFFER, MINIMUM_RECEIVE_BUFFER = 4608, 2304
MAXIMUM_BUFFER = 1 << 30
INTEGER_BYTES = 4
LINGER_BYTES = 8
SHOWN_THRESHOLD_LIMIT = 0x7FFFFFFF
"""What Linux shows as tcpi_snd_ssthresh while there was no loss."""

Name = tuple[int, int]
"""Level and option."""

_SOCKET = int(socket.SOL_SOCKET)
_TCP = int(socket.IPPROTO_TCP)
_KEPT: frozenset[Name] = frozenset(
    (level, int(option))
    for level, option in (
        (_SOCKET, socket.SO_REUSEADDR),
        (_SOCKET, socket.SO_REUSEPORT),
        (_TCP, socket.TCP_NODELAY),
    )
)
"""Without effect on the wire here: the stack never delays small segments (Nagle), as with TCP_NODELAY."""
_SEND_BUFFER: Name = (_SOCKET, int(socket.SO_SNDBUF))
_RECEIVE_BUFFER: Name = (_SOCKET, int(socket.SO_RCVBUF))

_TCP_STATES: Mapping[State, int] = {
    State.ESTABLISHED: 1,
    State.SYN_SENT: 2,
    State.SYN_RECEIVED: 3,
    State.FIN_WAIT_1: 4,
    State.FIN_WAIT_2: 5,
    State.TIME_WAIT: 6,
    State.CLOSED: 7,
    State.CLOSE_WAIT: 8,
    State.LAST_ACK: 9,
    State.CLOSING: 11,
}
_LISTENING = 10
_CLOSED = 7


class SocketOptions:
    def __init__(self, stack: Stack, table: DescriptorTable) -> None:
        self._stack = stack
        self._table = table
        self.handlers: dict[str, Handler] = {
            "getsockopt": self._getsockopt,
            "setsockopt": self._setsockopt,
        }
        self._readers: dict[Name, Callable[[StreamSocket], int]] = {
            (_SOCKET, int(socket.SO_ERROR)): lambda endpoint: endpoint.take_error() or 0,
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
        if name == (_TCP, int(socket.TCP_INFO)):
            info: dict[str, Value] = dict(tcp_info_of(endpoint))
            return finished(0, {3: info})
        return finished(0, {3: [self._read(endpoint, name)], 4: [INTEGER_BYTES]})

    def _read(self, endpoint: StreamSocket, name: Name) -> int:
        reader = self._readers.get(name)
        if reader is not None:
            return reader(endpoint)
        if name == _SEND_BUFFER:
            return endpoint.options.get(name, self._stack.settings.send_buffer_bytes)
        if name == _RECEIVE_BUFFER:
            return endpoint.options.get(name, self._stack.settings.receive_buffer_bytes)
        if name in _KEPT:
            return endpoint.options.get(name, 0)
        raise OSError(ENOPROTOOPT, "the bundled stack has no such option")

    def _setsockopt(self, arguments: list[Value]) -> Try:
        endpoint = self._table.socket(number_argument(arguments[0], "descriptor"))
        name = number_argument(arguments[1], "level"), number_argument(arguments[2], "option")
        value = arguments[3]
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if name == (_SOCKET, int(socket.SO_LINGER)):
            self._set_linger(endpoint, value)
        elif name in (_SEND_BUFFER, _RECEIVE_BUFFER):
            self._set_buffer(endpoint, name, number_argument(value, "value"))
        elif name in _KEPT:
            endpoint.options[name] = int(bool(number_argument(value, "value")))
        else:
            raise OSError(ENOPROTOOPT, "the bundled stack has no such option")
        return finished(0)

    def _set_linger(self, endpoint: StreamSocket, value: Value) -> None:
        if not isinstance(value, dict):
            raise ValueError("SO_LINGER: expected {onoff=…, linger=…}")
        is_on = number_argument(value.get("onoff", value.get("l_onoff")), "onoff")
        seconds = number_argument(value.get("linger", value.get("l_linger")), "linger")
        endpoint.linger = (int(bool(is_on)), max(0, seconds))

    def _set_buffer(self, endpoint: StreamSocket, name: Name, size: int) -> None:
        """The size is doubled, as by Linux. It holds for connections that begin after it, on any socket."""
        if endpoint.connection is not None:
            raise OSError(EINVAL, "the bundled stack cannot change the buffers of a connection")
        doubled = 2 * min(max(size, 0), MAXIMUM_BUFFER)
        if name == _SEND_BUFFER:
            doubled = max(MINIMUM_SEND_BUFFER, doubled)
            settings = replace(self._stack.settings, send_buffer_bytes=doubled)
        else:
            doubled = max(MINIMUM_RECEIVE_BUFFER, doubled)
            settings = replace(self._stack.settings, receive_buffer_bytes=doubled)
        endpoint.options[name] = doubled
        self._stack.settings = self._stack.environment.settings = settings


def _is_mptcp(endpoint: StreamSocket) -> int:
    if endpoint.connection is None:
        return int(endpoint.protocol == "mptcp")
    return int(endpoint.connection.is_mptcp)


def tcp_info_of(endpoint: StreamSocket) -> dict[str, int]:
    """The fields of TCP_INFO that this stack knows, by name; of MPTCP sockets, those of the first subflow."""
    connection = endpoint.connection
    if connection is None or not connection.subflows:
        return {"tcpi_state": _LISTENING if endpoint.listener is not None else _CLOSED}
    return _subflow_info(connection, connection.subflows[0])


def _subflow_info(connection: Connection, subflow: Subflow) -> dict[str, int]:
    queue, congestion = subflow.retransmission_queue, subflow.congestion
    segment_bytes = subflow.segment_bytes
    segments = -(-(subflow.snd_nxt - subflow.snd_una) // segment_bytes)
    threshold = congestion.slow_start_threshold // segment_bytes
    options = subflow.timestamps_enabled | subflow.sack_enabled << 1 | subflow.window_scale_enabled << 2
    return {
        "tcpi_state": _TCP_STATES[subflow.state],
        "tcpi_ca_state": _congestion_state(subflow),
        "tcpi_retransmits": subflow.consecutive_timeouts,
        "tcpi_probes": subflow.unanswered_probes,
        "tcpi_backoff": subflow.consecutive_timeouts,
        "tcpi_options": options,
        "tcpi_snd_wscale": subflow.snd_wnd_scale,
        "tcpi_rcv_wscale": subflow.rcv_wnd_scale,
        "tcpi_rto": subflow.round_trip.rto_us,
        "tcpi_snd_mss": segment_bytes,
        "tcpi_unacked": segments,
        "tcpi_sacked": -(-queue.sacked_bytes // segment_bytes),
        "tcpi_lost": queue.lost_count,
        "tcpi_retrans": sum(chunk.transmissions > 1 for chunk in queue.chunks),
        "tcpi_rtt": subflow.round_trip.srtt_us or 0,
        "tcpi_rttvar": subflow.round_trip.rttvar_us,
        "tcpi_snd_ssthresh": min(threshold, SHOWN_THRESHOLD_LIMIT),
        "tcpi_snd_cwnd": congestion.congestion_window // segment_bytes,
        "tcpi_advmss": subflow.base_mss,
        "tcpi_bytes_acked": max(0, subflow.snd_una - subflow.snd_iss - 1),
        "tcpi_bytes_received": max(0, subflow.rcv_nxt - subflow.irs - 1),
        "tcpi_notsent_bytes": connection.send_buffer.unsent.length,
        "tcpi_snd_wnd": subflow.snd_wnd,
    }


def _congestion_state(subflow: Subflow) -> int:
    """TCP_CA_Open, TCP_CA_Disorder, TCP_CA_Recovery or TCP_CA_Loss."""
    if subflow.recovery is Recovery.NONE:
        return 1 if subflow.duplicate_acknowledgements else 0
    return 3 if subflow.recovery is Recovery.FAST else 4
