"""ICMP that this host sends: echo requests, answers to those of others, errors about what it could not take.

RFC 1122 §3.2.2, RFC 4443 §2.4 and §4.2.
"""

from __future__ import annotations

from mptcp_stack.counters import Counters
from mptcp_stack.ip.host_configuration import MAXIMUM_CACHED, HostConfiguration
from mptcp_stack.ip.output import PacketOutput
from mptcp_stack.ip.rate_limit import TokenBucket
from mptcp_stack.wire import icmp
from mptcp_stack.wire.addresses import is_multicast, is_unspecified
from mptcp_stack.wire.frame import Buffer
from mptcp_stack.wire.ip_packet import PROTOCOL_ICMP, PROTOCOL_ICMPV6, IpPacket

ERRORS_PER_SECOND = 1000
ERROR_BURST = 50
"""To all hosts together: Linux's icmp_msgs_per_sec and icmp_msgs_burst."""
ERRORS_PER_SECOND_TO_ONE_HOST = 1
ERROR_BURST_TO_ONE_HOST = 6
"""Linux's icmp_ratelimit."""
V4_QUOTED_BYTES = 548
"""RFC 1812 §4.3.2.3: as much as fits without exceeding 576 bytes."""
V6_QUOTED_BYTES = 1232
"""RFC 4443 §2.4 (c): as much as fits the smallest MTU."""

ErrorMessage = icmp.IcmpDestinationUnreachable | icmp.IcmpTimeExceeded | icmp.IcmpParameterProblem
_COUNTED_AS = {
    icmp.IcmpEcho: ("IcmpOutEchoReps", "Icmp6OutEchoReplies"),
    icmp.IcmpDestinationUnreachable: ("IcmpOutDestUnreachs", "Icmp6OutDestUnreachs"),
    icmp.IcmpTimeExceeded: ("IcmpOutTimeExcds", "Icmp6OutTimeExcds"),
    icmp.IcmpParameterProblem: ("IcmpOutParmProbs", "Icmp6OutParmProblems"),
}
_ECHO_REQUESTS_COUNTED_AS = ("IcmpOutEchos", "Icmp6OutEchos")
_V4_ERROR_TYPES = frozenset({3, 4, 5, 11, 12})
_V6_REDIRECT = 137
_V4_SERVICE_BITS = 0x1E
_V4_CONTROL_PRECEDENCE = 0xC0
"""Errors keep the offender's type of service, with the precedence of network control (RFC 1812 §4.3.2.5)."""


class IcmpOutput:
    """Sends errors at a bounded rate in all and to each host, and echo replies as often as it is asked."""

    def __init__(self, configuration: HostConfiguration, output: PacketOutput, counters: Counters) -> None:
        self._configuration = configuration
        self._output = output
        self._counters = counters
        self._bucket = TokenBucket(ERRORS_PER_SECOND, ERROR_BURST)
        self._host_buckets: dict[bytes, TokenBucket] = {}

    def send_error(
        self, message: ErrorMessage, offender: IpPacket, now_us: int, *, content: Buffer | None = None
    ) -> bool:
        """Tells the sender of ``offender``; ``message.quoted`` is all of that packet and is cut here.

        False where no error may be sent or the rate does not allow it. ``content`` is what follows the
        offender's IP header, if that is not its ``payload``.
        """
        is_ipv6 = len(offender.source) == 16
        if not self._may_report(offender, offender.payload if content is None else content):
            return False
        if not self._take_token(offender.source, is_ipv6, now_us):
            return False
        message.quoted = message.quoted[: V6_QUOTED_BYTES if is_ipv6 else V4_QUOTED_BYTES]
        traffic_class = 0 if is_ipv6 else offender.traffic_class & _V4_SERVICE_BITS | _V4_CONTROL_PRECEDENCE
        return self._send(message, offender.destination, offender.source, traffic_class, now_us)

    def send_echo_reply(
        self, request: icmp.IcmpEcho, source: bytes, destination: bytes, traffic_class: int, now_us: int
    ) -> bool:
        """Repeats the request's data (RFC 792) and class. False where there is no way to ``destination``."""
        reply = icmp.IcmpEcho(True, request.identifier, request.sequence, request.data)
        return self._send(reply, source, destination, traffic_class, now_us)

    def send_echo_request(
        self, request: icmp.IcmpEcho, source: bytes, destination: bytes, now_us: int
    ) -> bool:
        """False where there is no way to ``destination``."""
        return self._send(request, source, destination, 0, now_us)

    def _send(
        self,
        message: ErrorMessage | icmp.IcmpEcho,
        source: bytes,
        destination: bytes,
        traffic_class: int,
        now_us: int,
    ) -> bool:
        is_ipv6 = len(source) == 16
        if is_ipv6:
            protocol, encoded = PROTOCOL_ICMPV6, icmp.emit_icmpv6(message, source, destination)
        else:
            protocol, encoded = PROTOCOL_ICMP, icmp.emit_icmpv4(message)
        self._counters.increment("Icmp6OutMsgs" if is_ipv6 else "IcmpOutMsgs")
        is_request = isinstance(message, icmp.IcmpEcho) and not message.is_reply
        names = _ECHO_REQUESTS_COUNTED_AS if is_request else _COUNTED_AS[type(message)]
        self._counters.increment(names[is_ipv6])
        return self._output.send(
            source,
            destination,
            protocol,
            bytearray(encoded),
            (),
            checksum_offset=None,
            gso_size=0,
            traffic_class=traffic_class,
            now_us=now_us,
        )

    def _may_report(self, offender: IpPacket, content: Buffer) -> bool:
        """Only about a packet from one host to one host, and never about an error (RFC 1122 §3.2.2)."""
        source, destination = offender.source, offender.destination
        if is_multicast(destination) or not self._configuration.is_local(destination):
            return False
        if is_multicast(source) or is_unspecified(source) or self._configuration.is_broadcast(source):
            return False
        if offender.fragment is not None and offender.fragment.offset:
            return len(source) == 16
        if offender.protocol == PROTOCOL_ICMP and len(source) == 4:
            return len(content) > 0 and content[0] not in _V4_ERROR_TYPES
        if offender.protocol == PROTOCOL_ICMPV6 and len(source) == 16:
            return len(content) > 0 and content[0] >= 128 and content[0] != _V6_REDIRECT
        return True

    def _take_token(self, host: bytes, is_ipv6: bool, now_us: int) -> bool:
        bucket = self._host_buckets.get(host)
        if bucket is None:
            if len(self._host_buckets) >= MAXIMUM_CACHED:
                # Who can send from so many addresses is still held by the rate for all.
                self._host_buckets.clear()
            bucket = TokenBucket(ERRORS_PER_SECOND_TO_ONE_HOST, ERROR_BURST_TO_ONE_HOST)
            self._host_buckets[host] = bucket
        if not bucket.take(now_us):
            self._counters.increment("Icmp6OutRateLimitHost" if is_ipv6 else "IcmpOutRateLimitHost")
            return False
        if not self._bucket.take(now_us):
            self._counters.increment("StackDropRateLimited" if is_ipv6 else "IcmpOutRateLimitGlobal")
            return False
        return True
