"""Packets of a script → the IP packets that are handed to the stack."""

from __future__ import annotations

import struct

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.wire.checksum import checksum_of, pseudo_header_sum
from mptcp_stack.wire.icmp import finish_icmpv6
from mptcp_stack.wire.ip_packet import (
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_TCP,
    emit_ipv4_header,
    emit_ipv6_header,
)
from mptcp_stack.wire.tcp_segment import ACK, CHECKSUM_OFFSET
from testbed.packetdrill import md5_signature
from testbed.packetdrill.bindings import Bindings, Subflow
from testbed.packetdrill.constants import icmp_type_and_code
from testbed.packetdrill.errors import PacketError
from testbed.packetdrill.option_building import build_options
from testbed.packetdrill.packet_context import UINT32_MASK, PacketContext
from testbed.packetdrill.subflow_lookup import subflow_of_incoming
from testbed.packetdrill.syntax import Direction, Ecn, IcmpPart, IpPart, Packet, SequenceRange, TcpPart
from testbed.packetdrill.wire_packet import TCP_HEADER, read_tcp

DEFAULT_HOP_LIMIT = 64
_ECN_BITS = {Ecn.NOT_ECT: 0, Ecn.ECT1: 1, Ecn.ECT0: 2, Ecn.CE: 3, Ecn.ECT0_OR_ECT1: 2}


def build(packet: Packet, bindings: Bindings, payload: bytes | None = None) -> bytes:
    """The IP packet for an incoming packet of a script, with right checksums.

    ``payload`` is its data, zeros by default. What the script leaves out: the window is that of the sender's
    packet before, timestamps and data acknowledgements acknowledge what came, data sequence numbers follow
    on, HMACs and tokens are right, keys and nonces are made up. Free variables are bound. Raises PacketError.
    """
    content = packet.content
    subflow = subflow_of_incoming(packet, bindings)
    try:
        if isinstance(content, IcmpPart):
            return _build_icmp(packet.ip, content, subflow)
        data = bytes(content.sequence.length) if payload is None else payload
        if len(data) != content.sequence.length:
            raise PacketError(f"{len(data)} bytes of data for a packet of {content.sequence.length}")
        context = PacketContext(bindings, subflow, Direction.IN, content.sequence.start, data)
        segment = _build_tcp(content, context)
        context.observe(read_tcp(segment))
        return emit_ip(packet.ip, subflow.remote.address, subflow.local.address, PROTOCOL_TCP, segment)
    except (ConfigurationError, struct.error, ValueError) as error:
        raise PacketError(str(error)) from None


def _build_tcp(tcp: TcpPart, context: PacketContext) -> bytes:
    subflow = context.subflow
    acknowledgement = 0
    if tcp.acknowledgement is not None or tcp.flags & ACK:
        acknowledgement = (tcp.acknowledgement or 0) + subflow.local.base
    window = subflow.remote.window if tcp.window is None else tcp.window
    options = build_options(context, tcp.options or ())
    header = TCP_HEADER.pack(
        subflow.remote.port,
        subflow.local.port,
        (tcp.sequence.start + subflow.remote.base) & UINT32_MASK,
        acknowledgement & UINT32_MASK,
        TCP_HEADER.size + len(options) << 2,
        tcp.flags,
        window,
        0,
        tcp.urgent_pointer or 0,
    )
    source, destination = subflow.remote.address, subflow.local.address
    segment = header + options + context.payload
    signed = md5_signature.sign(tcp, segment, source, destination, context.bindings.signature_key)
    return with_tcp_checksum(signed, source, destination)


def with_tcp_checksum(segment: bytes, source: bytes, destination: bytes) -> bytes:
    """``segment``, whose checksum field is 0, with the right one."""
    initial = pseudo_header_sum(source, destination, PROTOCOL_TCP, len(segment))
    checksum = checksum_of((segment,), initial).to_bytes(2, "big")
    return segment[:CHECKSUM_OFFSET] + checksum + segment[CHECKSUM_OFFSET + 2 :]


def emit_ip(ip: IpPart, source: bytes, destination: bytes, protocol: int, payload: bytes) -> bytes:
    """The IP packet around ``payload``; what ``ip`` leaves out takes usual values."""
    traffic_class = ip.traffic_class or 0
    if ip.ecn is not None:
        traffic_class = traffic_class & 0xFC | _ECN_BITS[ip.ecn]
    hop_limit = DEFAULT_HOP_LIMIT if ip.hop_limit is None else ip.hop_limit
    if len(source) == 4:
        header = emit_ipv4_header(
            source,
            destination,
            protocol,
            len(payload),
            identification=0,
            hop_limit=hop_limit,
            traffic_class=traffic_class,
        )
    else:
        header = emit_ipv6_header(
            source,
            destination,
            protocol,
            len(payload),
            hop_limit=hop_limit,
            traffic_class=traffic_class,
            flow_label=ip.flow_label or 0,
        )
    return header + payload


# --- ICMP ---


def _build_icmp(ip: IpPart, icmp: IcmpPart, subflow: Subflow) -> bytes:
    """An error about a packet that the stack sent, from the script's address."""
    is_ipv6 = len(subflow.local.address) == 16
    numbers = icmp_type_and_code(icmp.is_icmpv6, icmp.type_name, icmp.code_name, over_ipv6=is_ipv6)
    if numbers is None:
        wanted = f"{icmp.type_name} {icmp.code_name or ''}".strip()
        raise PacketError(f"{'ICMPv6' if is_ipv6 else 'ICMP'} has no message {wanted!r}")
    header = struct.pack("!BBHI", *numbers, 0, icmp.mtu or 0)
    message = header + _quoted_packet(icmp.quoted or SequenceRange(0, 0), subflow)
    source, destination = subflow.remote.address, subflow.local.address
    if is_ipv6:
        finished = finish_icmpv6(message, source, destination)
        return emit_ip(ip, source, destination, PROTOCOL_ICMPV6, finished)
    finished = message[:2] + checksum_of((message,)).to_bytes(2, "big") + message[4:]
    return emit_ip(ip, source, destination, PROTOCOL_ICMP, finished)


def _quoted_packet(quoted: SequenceRange, subflow: Subflow) -> bytes:
    """The headers of the packet that the error is about, as the stack sent it."""
    local, remote = subflow.local, subflow.remote
    header = TCP_HEADER.pack(
        local.port,
        remote.port,
        (quoted.start + local.base) & UINT32_MASK,
        0,
        TCP_HEADER.size << 2,
        ACK,
        0,
        0,
        0,
    )
    # The length in the IP header is that of the whole packet, of which only the beginning is quoted.
    packet = emit_ip(IpPart(), local.address, remote.address, PROTOCOL_TCP, header + bytes(quoted.length))
    return packet[: len(packet) - quoted.length]
