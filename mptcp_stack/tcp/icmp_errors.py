"""What ICMP errors mean for a subflow (RFC 1122 §4.2.3.9, RFC 5461, RFC 5927)."""

from __future__ import annotations

from errno import ECONNREFUSED, EHOSTUNREACH, ENETUNREACH

from mptcp_stack.ip.layer import IcmpError, IcmpErrorKind
from mptcp_stack.tcp.environment import Environment
from mptcp_stack.tcp.path_mtu import on_packet_too_big
from mptcp_stack.tcp.states import State
from mptcp_stack.wire.sequence import unwrap

_HARD_ERRORS = {
    IcmpErrorKind.PORT_UNREACHABLE: ECONNREFUSED,
    IcmpErrorKind.PROHIBITED: EHOSTUNREACH,
    IcmpErrorKind.HOST_UNREACHABLE: EHOSTUNREACH,
    IcmpErrorKind.NETWORK_UNREACHABLE: ENETUNREACH,
}


def on_icmp_error(environment: Environment, error: IcmpError, now_us: int) -> None:
    """Ends an attempt to connect; an established connection goes on (RFC 5461 §2.2: soft errors).

    Only an error that quotes a sequence number in flight is believed (RFC 5927 §4.1).
    """
    quoted = error.transport
    if error.protocol != 6 or len(quoted) < 8:
        return
    local_port, remote_port = int.from_bytes(quoted[0:2], "big"), int.from_bytes(quoted[2:4], "big")
    subflow = environment.subflows.get((error.source, local_port, error.destination, remote_port))
    if subflow is None:
        return
    sequence = unwrap(int.from_bytes(quoted[4:8], "big"), subflow.snd_una)
    if not subflow.snd_una <= sequence < max(subflow.snd_nxt, subflow.snd_una + 1):
        environment.counters.increment("TcpExtOutOfWindowIcmps")
        return
    if error.kind is IcmpErrorKind.PACKET_TOO_BIG:
        on_packet_too_big(subflow, error.mtu or 0, now_us)
        return
    errno = _HARD_ERRORS.get(error.kind)
    if errno is not None and subflow.state in (State.SYN_SENT, State.SYN_RECEIVED):
        subflow.finish(errno, now_us)
