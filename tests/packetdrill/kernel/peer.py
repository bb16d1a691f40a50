"""The other end of the device: builds segments with the project's codecs and reads what the kernel sends."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.checksum import checksum_of, pseudo_header_sum
from mptcp_stack.wire.ip_packet import (
    PROTOCOL_TCP,
    emit_ipv4_header,
    emit_ipv6_header,
    parse_ipv4,
    parse_ipv6,
)
from mptcp_stack.wire.tcp_options import NO_OPTIONS, TcpOptions
from mptcp_stack.wire.tcp_segment import ACK, CHECKSUM_OFFSET, SYN, TcpSegment, emit_tcp_header, parse_tcp
from testbed.packetdrill.kernel_stack import KernelStack
from testbed.packetdrill.stack_under_test import Addresses, CallResult, IpVersion, Value

IPPROTO_MPTCP = 262
SECOND_US = 1_000_000
PATIENCE_US = 3 * SECOND_US
"""For things that happen at once on an idle machine."""

PORT = 8080


def addresses(version: IpVersion) -> Addresses:
    if version is IpVersion.IPV6:
        return Addresses((parse_address("fd3d:a0b:17d6::1"),), (parse_address("fd3d:fa7b:d17d::1"),))
    return Addresses((parse_address("192.168.0.1"),), (parse_address("192.0.2.1"),))


@dataclass(slots=True)
class Peer:
    """One TCP connection as the script's side has it."""

    stack: KernelStack
    local: bytes
    """The kernel's address."""
    remote: bytes
    local_port: int = PORT
    remote_port: int = 40_000
    next_sequence: int = 1_000
    acknowledgement: int = 0

    @classmethod
    def of(cls, stack: KernelStack, version: IpVersion) -> Peer:
        pair = addresses(version)
        return cls(stack, pair.local[0], pair.remote[0])

    def send(self, flags: int, options: TcpOptions = NO_OPTIONS, data: bytes = b"") -> None:
        segment = TcpSegment(
            self.remote_port,
            self.local_port,
            self.next_sequence,
            self.acknowledgement if flags & ACK else 0,
            flags,
            65_535,
            options,
            data,
        )
        self.stack.inject(packet_of(self.remote, self.local, segment))
        self.next_sequence += len(data) + bool(flags & SYN) + (flags & 1)

    def receive(self, until_us: int | None = None) -> TcpSegment:
        """The next segment; follows its sequence numbers."""
        deadline_us = self.stack.now_us() + PATIENCE_US if until_us is None else until_us
        sent = self.stack.next_packet(deadline_us)
        assert sent is not None, "the kernel sent nothing"
        parsed = (parse_ipv4 if len(self.local) == 4 else parse_ipv6)(memoryview(sent.packet))
        assert (parsed.source, parsed.destination) == (self.local, self.remote)
        segment = parse_tcp(parsed.payload)
        self.local_port = segment.source_port
        self.remote_port = segment.destination_port
        length = len(segment.payload) + bool(segment.flags & SYN) + (segment.flags & 1)
        self.acknowledgement = segment.sequence + length & 0xFFFFFFFF
        return segment


def packet_of(source: bytes, destination: bytes, segment: TcpSegment) -> bytes:
    header = emit_tcp_header(segment)
    length = len(header) + len(segment.payload)
    initial = pseudo_header_sum(source, destination, PROTOCOL_TCP, length)
    checksum = checksum_of((header, segment.payload), initial)
    header[CHECKSUM_OFFSET : CHECKSUM_OFFSET + 2] = checksum.to_bytes(2, "big")
    if len(source) == 4:
        ip_header = emit_ipv4_header(source, destination, PROTOCOL_TCP, length, identification=1)
    else:
        ip_header = emit_ipv6_header(source, destination, PROTOCOL_TCP, length)
    return ip_header + bytes(header) + bytes(segment.payload)


def call(stack: KernelStack, name: str, *arguments: Value) -> CallResult:
    """A call that must not block."""
    result = stack.start_call(name, list(arguments)).result()
    assert result is not None, f"{name} blocks"
    return result


def succeed(stack: KernelStack, name: str, *arguments: Value) -> int:
    result = call(stack, name, *arguments)
    assert result.errno_name is None, f"{name}: {result.errno_name}"
    return result.value


def listen(stack: KernelStack, protocol: int = socket.IPPROTO_TCP) -> int:
    """A listener where ``...`` puts it; its descriptor."""
    descriptor = succeed(stack, "socket", None, socket.SOCK_STREAM, protocol)
    succeed(stack, "bind", descriptor, None, None)
    succeed(stack, "listen", descriptor, 1)
    return descriptor
