"""ICMP (RFC 792, RFC 1191) and ICMPv6 (RFC 4443): echo and errors.

One set of message classes serves both; only the type numbers and the checksum differ.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mptcp_stack.errors import ConfigurationError, MalformedPacketError
from mptcp_stack.wire.checksum import checksum_of, ones_complement_sum, pseudo_header_sum
from mptcp_stack.wire.frame import Buffer
from mptcp_stack.wire.ip_packet import PROTOCOL_ICMPV6

HEADER_LENGTH = 8

# RFC 792 and RFC 1812 §5.2.7.1: codes of an IPv4 destination unreachable.
V4_NETWORK_UNREACHABLE = 0
V4_HOST_UNREACHABLE = 1
V4_PROTOCOL_UNREACHABLE = 2
V4_PORT_UNREACHABLE = 3
V4_FRAGMENTATION_NEEDED = 4
V4_NETWORK_PROHIBITED = 9
V4_HOST_PROHIBITED = 10
V4_PROHIBITED = 13

# RFC 4443 §3.1: codes of an IPv6 destination unreachable.
V6_NO_ROUTE = 0
V6_PROHIBITED = 1
V6_BEYOND_SCOPE = 2
V6_ADDRESS_UNREACHABLE = 3
V6_PORT_UNREACHABLE = 4
V6_SOURCE_POLICY = 5
V6_REJECT_ROUTE = 6

REASSEMBLY_TIME_EXCEEDED = 1
"""Code of a time exceeded, in both versions."""

# RFC 4443 §3.4, RFC 7112 §5: codes of an IPv6 parameter problem.
V6_ERRONEOUS_HEADER = 0
V6_UNKNOWN_NEXT_HEADER = 1
V6_UNKNOWN_OPTION = 2
V6_INCOMPLETE_HEADER_CHAIN = 3

_HEADER = struct.Struct("!BBHI")
_UINT16 = struct.Struct("!H")


@dataclass(slots=True)
class IcmpEcho:
    """An echo request or reply."""

    is_reply: bool
    identifier: int
    sequence: int
    data: Buffer = b""


@dataclass(slots=True)
class IcmpDestinationUnreachable:
    """``code`` is that of the IP version; ``quoted`` the start of the packet, IP header included.

    ``mtu`` (bytes) is set with `V4_FRAGMENTATION_NEEDED` only, 0 from a router older than RFC 1191.
    """

    code: int
    quoted: Buffer
    mtu: int | None = None


@dataclass(slots=True)
class IcmpPacketTooBig:
    """ICMPv6 only (RFC 4443 §3.2); ``mtu`` in bytes."""

    mtu: int
    quoted: Buffer


@dataclass(slots=True)
class IcmpTimeExceeded:
    """``code`` 0: the hop limit ran out, 1: reassembly took too long."""

    code: int
    quoted: Buffer


@dataclass(slots=True)
class IcmpParameterProblem:
    """``pointer`` is the offset in the quoted packet where the trouble lies."""

    code: int
    pointer: int
    quoted: Buffer


@dataclass(slots=True)
class IcmpUnknown:
    """Any other type; ``body`` is what follows the checksum."""

    message_type: int
    code: int
    body: Buffer


_KnownMessage = (
    IcmpEcho | IcmpDestinationUnreachable | IcmpPacketTooBig | IcmpTimeExceeded | IcmpParameterProblem
)
IcmpMessage = _KnownMessage | IcmpUnknown

_V4_ECHO_REPLY, _V4_UNREACHABLE, _V4_ECHO_REQUEST, _V4_TIME_EXCEEDED, _V4_PARAMETER_PROBLEM = 0, 3, 8, 11, 12
_V6_UNREACHABLE, _V6_TOO_BIG, _V6_TIME_EXCEEDED, _V6_PARAMETER_PROBLEM = 1, 2, 3, 4
_V6_ECHO_REQUEST, _V6_ECHO_REPLY = 128, 129

_Parser = Callable[[int, int, memoryview], IcmpMessage]
"""Takes the code, the four bytes after the checksum as a number, and all that follows them."""


def _echo_request(code: int, number: int, rest: memoryview) -> IcmpMessage:
    return IcmpEcho(False, number >> 16, number & 0xFFFF, rest)


def _echo_reply(code: int, number: int, rest: memoryview) -> IcmpMessage:
    return IcmpEcho(True, number >> 16, number & 0xFFFF, rest)


def _unreachable_v4(code: int, number: int, rest: memoryview) -> IcmpMessage:
    mtu = number & 0xFFFF if code == V4_FRAGMENTATION_NEEDED else None
    return IcmpDestinationUnreachable(code, rest, mtu)


def _unreachable_v6(code: int, number: int, rest: memoryview) -> IcmpMessage:
    return IcmpDestinationUnreachable(code, rest)


def _too_big(code: int, number: int, rest: memoryview) -> IcmpMessage:
    return IcmpPacketTooBig(number, rest)


def _time_exceeded(code: int, number: int, rest: memoryview) -> IcmpMessage:
    return IcmpTimeExceeded(code, rest)


def _parameter_problem_v4(code: int, number: int, rest: memoryview) -> IcmpMessage:
    return IcmpParameterProblem(code, number >> 24, rest)


def _parameter_problem_v6(code: int, number: int, rest: memoryview) -> IcmpMessage:
    return IcmpParameterProblem(code, number, rest)


_V4_PARSERS: Mapping[int, _Parser] = {
    _V4_ECHO_REPLY: _echo_reply,
    _V4_UNREACHABLE: _unreachable_v4,
    _V4_ECHO_REQUEST: _echo_request,
    _V4_TIME_EXCEEDED: _time_exceeded,
    _V4_PARAMETER_PROBLEM: _parameter_problem_v4,
}
_V6_PARSERS: Mapping[int, _Parser] = {
    _V6_UNREACHABLE: _unreachable_v6,
    _V6_TOO_BIG: _too_big,
    _V6_TIME_EXCEEDED: _time_exceeded,
    _V6_PARAMETER_PROBLEM: _parameter_problem_v6,
    _V6_ECHO_REQUEST: _echo_request,
    _V6_ECHO_REPLY: _echo_reply,
}


def _parse(data: memoryview, parsers: Mapping[int, _Parser]) -> IcmpMessage:
    if len(data) < HEADER_LENGTH:
        raise MalformedPacketError(f"ICMP message of {len(data)} bytes")
    message_type, code, _, number = _HEADER.unpack_from(data)
    parser = parsers.get(message_type)
    if parser is None:
        return IcmpUnknown(message_type, code, data[4:])
    return parser(code, number, data[HEADER_LENGTH:])


def parse_icmpv4(data: memoryview) -> IcmpMessage:
    """The message that an IPv4 packet carries; the checksum is not verified. Raises MalformedPacketError."""
    return _parse(data, _V4_PARSERS)


def parse_icmpv6(data: memoryview) -> IcmpMessage:
    """The message that an IPv6 packet carries; the checksum is not verified. Raises MalformedPacketError.

    The messages of neighbour discovery come out as IcmpUnknown: `neighbour_discovery` parses them.
    """
    return _parse(data, _V6_PARSERS)


def icmpv4_checksum_is_good(data: Buffer) -> bool:
    """Whether the checksum of an ICMP message is right."""
    return ones_complement_sum(data) == 0xFFFF


def icmpv6_checksum_is_good(data: Buffer, source: bytes, destination: bytes) -> bool:
    """Whether the checksum of an ICMPv6 message between these addresses is right (RFC 4443 §2.3)."""
    return checksum_of((data,), pseudo_header_sum(source, destination, PROTOCOL_ICMPV6, len(data))) == 0


def finish_icmpv6(message: bytes, source: bytes, destination: bytes) -> bytes:
    """``message`` with its checksum, which was 0, filled in."""
    initial = pseudo_header_sum(source, destination, PROTOCOL_ICMPV6, len(message))
    return message[:2] + _UINT16.pack(checksum_of((message,), initial)) + message[4:]


def emit_icmpv4(message: IcmpMessage) -> bytes:
    """The message with its checksum; raises ConfigurationError for one that IPv4 has not."""
    encoded = _emit(_v4_parts, message)
    return encoded[:2] + _UINT16.pack(checksum_of((encoded,))) + encoded[4:]


def emit_icmpv6(message: IcmpMessage, source: bytes, destination: bytes) -> bytes:
    """The message with its checksum, which covers both addresses."""
    return finish_icmpv6(_emit(_v6_parts, message), source, destination)


def _emit(parts_of: Callable[[_KnownMessage], tuple[int, int, int, Buffer]], message: IcmpMessage) -> bytes:
    try:
        if isinstance(message, IcmpUnknown):
            return bytes((message.message_type, message.code, 0, 0)) + message.body
        message_type, code, number, rest = parts_of(message)
        return _HEADER.pack(message_type, code, 0, number) + rest
    except (struct.error, ValueError) as error:
        raise ConfigurationError(f"ICMP message: {error}") from None


def _v4_parts(message: _KnownMessage) -> tuple[int, int, int, Buffer]:
    """Type, code, the four bytes after the checksum as a number, and the rest."""
    match message:
        case IcmpEcho(is_reply, identifier, sequence, data):
            kind = _V4_ECHO_REPLY if is_reply else _V4_ECHO_REQUEST
            return kind, 0, identifier << 16 | sequence, data
        case IcmpDestinationUnreachable(code, quoted, mtu):
            return _V4_UNREACHABLE, code, mtu or 0, quoted
        case IcmpTimeExceeded(code, quoted):
            return _V4_TIME_EXCEEDED, code, 0, quoted
        case IcmpParameterProblem(code, pointer, quoted):
            return _V4_PARAMETER_PROBLEM, code, pointer << 24, quoted
        case IcmpPacketTooBig():
            raise ConfigurationError("IPv4 has no IcmpPacketTooBig: it is a destination unreachable there")


def _v6_parts(message: _KnownMessage) -> tuple[int, int, int, Buffer]:
    """As `_v4_parts`."""
    match message:
        case IcmpEcho(is_reply, identifier, sequence, data):
            kind = _V6_ECHO_REPLY if is_reply else _V6_ECHO_REQUEST
            return kind, 0, identifier << 16 | sequence, data
        case IcmpDestinationUnreachable(code, quoted):
            return _V6_UNREACHABLE, code, 0, quoted
        case IcmpPacketTooBig(mtu, quoted):
            return _V6_TOO_BIG, 0, mtu, quoted
        case IcmpTimeExceeded(code, quoted):
            return _V6_TIME_EXCEEDED, code, 0, quoted
        case IcmpParameterProblem(code, pointer, quoted):
            return _V6_PARAMETER_PROBLEM, code, pointer, quoted
