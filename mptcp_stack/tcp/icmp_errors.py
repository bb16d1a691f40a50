"""What ICMP errors mean for a subflow, as for Linux (RFC 1122 §4.2.3.9, RFC 5461, RFC 5927).

They end an attempt to connect at once, and what Fast Open has believed until somebody accepts it. What is
established goes on; the error is what it ends with if it times out before anything else was heard of the
peer.
"""

from __future__ import annotations

from errno import (
    EACCES,
    ECONNREFUSED,
    EHOSTDOWN,
    EHOSTUNREACH,
    ENETUNREACH,
    ENONET,
    ENOPROTOOPT,
    EOPNOTSUPP,
    EPROTO,
)

from mptcp_stack.ip.layer import IcmpError, IcmpErrorKind
from mptcp_stack.tcp.environment import Environment
from mptcp_stack.tcp.path_mtu import on_packet_too_big
from mptcp_stack.tcp.request import Request
from mptcp_stack.tcp.states import State
from mptcp_stack.wire.sequence import unwrap

_ERRNOS = {
    IcmpErrorKind.NETWORK_UNREACHABLE: ENETUNREACH,
    IcmpErrorKind.HOST_UNREACHABLE: EHOSTUNREACH,
    IcmpErrorKind.PROTOCOL_UNREACHABLE: ENOPROTOOPT,
    IcmpErrorKind.PORT_UNREACHABLE: ECONNREFUSED,
    IcmpErrorKind.SOURCE_ROUTE_FAILED: EOPNOTSUPP,
    IcmpErrorKind.NETWORK_REFUSED: ENETUNREACH,
    IcmpErrorKind.HOST_UNKNOWN: EHOSTDOWN,
    IcmpErrorKind.HOST_ISOLATED: ENONET,
    IcmpErrorKind.HOST_REFUSED: EHOSTUNREACH,
    IcmpErrorKind.ACCESS_DENIED: EACCES,
    IcmpErrorKind.PARAMETER_PROBLEM: EPROTO,
    IcmpErrorKind.TIME_EXCEEDED: EHOSTUNREACH,
}
_END_REQUESTS = {
    4: frozenset(
        {
            IcmpErrorKind.NETWORK_UNREACHABLE,
            IcmpErrorKind.HOST_UNREACHABLE,
            IcmpErrorKind.PARAMETER_PROBLEM,
            IcmpErrorKind.TIME_EXCEEDED,
        }
    ),
    16: frozenset(
        {IcmpErrorKind.ACCESS_DENIED, IcmpErrorKind.PORT_UNREACHABLE, IcmpErrorKind.PARAMETER_PROBLEM}
    ),
}
"""What ends a handshake that the peer began, by the length of an address; Linux's choice."""


def on_icmp_error(environment: Environment, error: IcmpError, now_us: int) -> None:
    """Only an error that quotes a sequence number in flight is believed (RFC 5927 §4.1)."""
    quoted = error.transport
    if error.protocol != 6 or len(quoted) < 8:
        return
    local_port, remote_port = int.from_bytes(quoted[0:2], "big"), int.from_bytes(quoted[2:4], "big")
    four_tuple = error.source, local_port, error.destination, remote_port
    subflow = environment.subflows.get(four_tuple)
    if subflow is None:
        request = environment.requests.get(four_tuple)
        if request is not None:
            _on_error_for_request(request, int.from_bytes(quoted[4:8], "big"), error)
        return
    sequence = unwrap(int.from_bytes(quoted[4:8], "big"), subflow.snd_una)
    if not subflow.snd_una <= sequence < max(subflow.snd_nxt, subflow.snd_una + 1):
        environment.counters.increment("TcpExtOutOfWindowIcmps")
        return
    if error.kind is IcmpErrorKind.PACKET_TOO_BIG:
        on_packet_too_big(subflow, error.mtu or 0, now_us)
    elif subflow.state in (State.SYN_SENT, State.SYN_RECEIVED) and not subflow.is_accepted:
        subflow.finish(_ERRNOS[error.kind], now_us)
    else:
        subflow.soft_error = _ERRNOS[error.kind]


def _on_error_for_request(request: Request, quoted_sequence: int, error: IcmpError) -> None:
    counters = request.environment.counters
    if quoted_sequence != request.snd_iss:
        counters.increment("TcpExtOutOfWindowIcmps")
    elif error.kind in _END_REQUESTS[len(error.source)]:
        counters.increment("TcpExtListenDrops")
        request.environment.requests.forget(request)
