"""ICMP and ICMPv6 for this host: has echo requests answered, hands errors about our own packets upward.

Redirects, timestamps, multicast listener queries and the like are counted and
ignored.
"""

from __future__ import annotations

from collections.abc import Callable

from mptcp_stack.counters import Counters
from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.ip.datagrams import DroppedPacketError, IcmpError, IcmpErrorKind
from mptcp_stack.ip.host_configuration import HostConfiguration
from mptcp_stack.ip.icmp_output import IcmpOutput
from mptcp_stack.ip.interface import Interface
from mptcp_stack.ip.rate_limit import TokenBucket
from mptcp_stack.wire import icmp
from mptcp_stack.wire.addresses import is_multicast
from mptcp_stack.wire.ip_packet import IpPacket, parse_quoted_packet

ECHO_REPLIES_PER_SECOND = 1000
ECHO_BURST = 200
MINIMUM_QUOTED_TRANSPORT = 8
"""Bytes: RFC 792 promises as many, and TCP's ports and sequence number lie within."""

_V4_UNREACHABLE_KINDS = (
    IcmpErrorKind.NETWORK_UNREACHABLE,
    IcmpErrorKind.HOST_UNREACHABLE,
    IcmpErrorKind.PROTOCOL_UNREACHABLE,
    IcmpErrorKind.PORT_UNREACHABLE,
    IcmpErrorKind.PACKET_TOO_BIG,
    IcmpErrorKind.SOURCE_ROUTE_FAILED,
    IcmpErrorKind.NETWORK_REFUSED,
    IcmpErrorKind.HOST_UNKNOWN,
    IcmpErrorKind.HOST_ISOLATED,
    IcmpErrorKind.NETWORK_REFUSED,
    IcmpErrorKind.HOST_REFUSED,
    IcmpErrorKind.NETWORK_REFUSED,
    IcmpErrorKind.HOST_REFUSED,
    IcmpErrorKind.HOST_REFUSED,
    IcmpErrorKind.HOST_REFUSED,
    IcmpErrorKind.HOST_REFUSED,
)
"""By code (RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1)."""
_V6_UNREACHABLE_KINDS = (
    IcmpErrorKind.NETWORK_UNREACHABLE,
    IcmpErrorKind.ACCESS_DENIED,
    IcmpErrorKind.HOST_UNREACHABLE,
    IcmpErrorKind.HOST_UNREACHABLE,
    IcmpErrorKind.PORT_UNREACHABLE,
    IcmpErrorKind.ACCESS_DENIED,
    IcmpErrorKind.ACCESS_DENIED,
)
"""By code (RFC 4443 §3.1)."""


class IcmpInput:
    """What arrives for this host in ICMP, except neighbour discovery."""

    def __init__(self, configuration: HostConfiguration, output: IcmpOutput, counters: Counters) -> None:
        self._configuration = configuration
        self._output = output
        self._counters = counters
        self.take_echo_reply: Callable[[bytes, icmp.IcmpEcho, int], bool] = lambda _source, _reply, _now: (
            False
        )
        """Given who answers, the reply, and the time; False for one that nobody waits for."""
        self._echo_buckets: dict[int, TokenBucket] = {}

    def receive(self, packet: IpPacket, interface: Interface, now_us: int) -> IcmpError | None:
        """Handle a message whose checksum is good.

        Returns an error to hand upward, None for an echo. Raises DroppedPacketError for the rest.
        """
        is_ipv6 = len(packet.source) == 16
        try:
            message = icmp.parse_icmpv6(packet.payload) if is_ipv6 else icmp.parse_icmpv4(packet.payload)
            if isinstance(message, icmp.IcmpEcho):
                self._receive_echo(packet, message, interface, now_us)
                return None
            return self._receive_error(packet, message)
        except MalformedPacketError:
            self._counters.increment("Icmp6InErrors" if is_ipv6 else "IcmpInErrors")
            raise DroppedPacketError("StackDropMalformedIcmp") from None

    def _receive_echo(
        self, packet: IpPacket, message: icmp.IcmpEcho, interface: Interface, now_us: int
    ) -> None:
        is_ipv6 = len(packet.source) == 16
        if message.is_reply:
            if is_multicast(packet.destination) or not self.take_echo_reply(packet.source, message, now_us):
                raise DroppedPacketError("StackDropIgnoredIcmp")
            self._counters.increment("Icmp6InEchoReplies" if is_ipv6 else "IcmpInEchoReps")
            return
        self._counters.increment("Icmp6InEchos" if is_ipv6 else "IcmpInEchos")
        bucket = self._echo_buckets.get(interface.index)
        if bucket is None:
            bucket = self._echo_buckets[interface.index] = TokenBucket(ECHO_REPLIES_PER_SECOND, ECHO_BURST)
        if not bucket.take(now_us):
            raise DroppedPacketError("StackDropRateLimited")
        # RFC 4443 §4.2: what was sent to a group is answered from an address of the interface.
        source: bytes | None = packet.destination
        if is_multicast(packet.destination):
            source = interface.source_for(packet.source)
        if source is None:
            raise DroppedPacketError("StackDropNotForUs")
        self._output.send_echo_reply(message, source, packet.source, packet.traffic_class, now_us)

    def _receive_error(self, packet: IpPacket, message: icmp.IcmpMessage) -> IcmpError:
        is_ipv6 = len(packet.source) == 16
        kind = _kind_of(message, is_ipv6)
        if isinstance(message, icmp.IcmpDestinationUnreachable):
            self._counters.increment("Icmp6InDestUnreachs" if is_ipv6 else "IcmpInDestUnreachs")
        if kind is None or isinstance(message, icmp.IcmpEcho | icmp.IcmpUnknown):
            raise DroppedPacketError("StackDropIgnoredIcmp")
        quoted = parse_quoted_packet(memoryview(message.quoted))
        if len(quoted.source) != len(packet.source) or len(quoted.payload) < MINIMUM_QUOTED_TRANSPORT:
            raise MalformedPacketError("the quoted packet is of the other family or too short")
        is_later_fragment = quoted.fragment is not None and quoted.fragment.offset > 0
        if is_later_fragment or not self._configuration.is_local(quoted.source):
            # Routers may cut our packets, but only a first fragment has the header that says whose it is.
            raise DroppedPacketError("StackDropNotForUs")
        mtu: int | None = None
        if isinstance(message, icmp.IcmpPacketTooBig | icmp.IcmpDestinationUnreachable):
            mtu = message.mtu
        return IcmpError(
            quoted.source, quoted.destination, quoted.protocol, quoted.payload, kind, mtu, packet.source
        )


def _kind_of(message: icmp.IcmpMessage, is_ipv6: bool) -> IcmpErrorKind | None:
    """What an error means to a sender; None for messages that are no errors or that mean nothing to TCP."""
    match message:
        case icmp.IcmpDestinationUnreachable(code):
            kinds = _V6_UNREACHABLE_KINDS if is_ipv6 else _V4_UNREACHABLE_KINDS
            return kinds[code] if code < len(kinds) else None
        case icmp.IcmpPacketTooBig():
            return IcmpErrorKind.PACKET_TOO_BIG
        case icmp.IcmpTimeExceeded():
            return IcmpErrorKind.TIME_EXCEEDED
        case icmp.IcmpParameterProblem():
            return IcmpErrorKind.PARAMETER_PROBLEM
    return None
