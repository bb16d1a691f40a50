"""IP packets → packets of a script with every field: for traces, and for what came in a failure's message."""

from __future__ import annotations

import copy

from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.wire.ip_packet import parse_quoted_packet
from mptcp_stack.wire.tcp_segment import ACK
from testbed.packetdrill.bindings import Bindings, Subflow
from testbed.packetdrill.constants import ICMPV4_TYPES, ICMPV6_TYPES, icmp_names
from testbed.packetdrill.option_description import describe_option
from testbed.packetdrill.packet_context import UINT32_MASK, PacketContext
from testbed.packetdrill.packet_matching import ECN_OF_BITS
from testbed.packetdrill.printer import print_packet
from testbed.packetdrill.subflow_lookup import known_subflow
from testbed.packetdrill.syntax import (
    AddressReference,
    Direction,
    IcmpPart,
    IpPart,
    Packet,
    SequenceRange,
    TcpPart,
)
from testbed.packetdrill.wire_packet import WireIcmp, WirePacket, WireTcp, read_wire_packet


def describe(data: bytes, direction: Direction, bindings: Bindings) -> Packet:
    """The packet of a script that says all of an IP packet, in what ``bindings`` know; changes nothing.

    Addresses are written once there are several subflows. Raises MalformedPacketError for what is neither
    TCP nor ICMP.
    """
    wire = read_wire_packet(data)
    ip = _describe_ip(wire)
    if isinstance(wire.content, WireIcmp):
        return Packet(direction, _describe_icmp(wire, wire.content, direction, bindings), ip)
    subflow = known_subflow(wire, wire.content, direction, bindings)
    content = _describe_tcp(wire.content, subflow, direction, bindings)
    if subflow is bindings.default_subflow or (bindings.default_subflow is None and not subflow.is_join):
        return Packet(direction, content, ip)
    source, destination = subflow.sender(direction), subflow.receiver(direction)
    return Packet(
        direction,
        content,
        ip,
        _describe_address(source.address, source.port, bindings),
        _describe_address(destination.address, destination.port, bindings),
    )


def describe_as_text(data: bytes, direction: Direction, bindings: Bindings) -> str:
    """As `describe`, printed; a packet that the language cannot say as a comment in it."""
    try:
        return print_packet(describe(data, direction, bindings))
    except MalformedPacketError as error:
        return f"// {direction.value} {len(data)} bytes: {error}"


def _describe_ip(wire: WirePacket) -> IpPart:
    """Only what is out of the ordinary: a line with everything would hide what matters."""
    return IpPart(
        traffic_class=wire.traffic_class if wire.traffic_class & 0xFC else None,
        ecn=ECN_OF_BITS[wire.traffic_class & 3] if wire.traffic_class & 3 else None,
    )


def _describe_address(address: bytes, port: int, bindings: Bindings) -> AddressReference:
    name = bindings.address_name(address)
    if name is not None:
        return AddressReference(name, None, port)
    for prefix, pool in (("saddr", bindings.local_addresses), ("caddr", bindings.remote_addresses)):
        if address in pool:
            return AddressReference(f"{prefix}{pool.index(address)}", address, port)
    return AddressReference(f"addr_{address.hex()}", address, port)


def _describe_tcp(tcp: WireTcp, subflow: Subflow, direction: Direction, bindings: Bindings) -> TcpPart:
    sender, receiver = subflow.sender(direction), subflow.receiver(direction)
    start = (tcp.sequence - sender.base) & UINT32_MASK
    acknowledgement = (tcp.acknowledgement - receiver.base) & UINT32_MASK if tcp.flags & ACK else None
    # The packet's own key counts for the rest of it, as in a comparison; but nobody else is to learn it here.
    context = PacketContext(bindings, copy.deepcopy(subflow), direction, start, tcp.payload)
    context.observe_handshake(tcp)
    options = tuple(describe_option(context, option) for option in tcp.options)
    return TcpPart(
        tcp.flags,
        SequenceRange(start, len(tcp.payload)),
        acknowledgement,
        tcp.window,
        tcp.urgent_pointer or None,
        options,
    )


def _describe_icmp(wire: WirePacket, icmp: WireIcmp, direction: Direction, bindings: Bindings) -> IcmpPart:
    types = ICMPV6_TYPES if wire.is_ipv6 else ICMPV4_TYPES
    type_name = next(
        (name for name, number in types.items() if number == icmp.icmp_type), str(icmp.icmp_type)
    )
    _, codes = icmp_names(wire.is_ipv6, type_name)
    code_name = next((name for name, number in codes.items() if number == icmp.code), None)
    if code_name is None and icmp.code:
        code_name = str(icmp.code)
    number = int.from_bytes(icmp.rest[:4], "big")
    return IcmpPart(
        wire.is_ipv6, type_name, code_name, number or None, _describe_quoted(icmp, direction, bindings)
    )


def _describe_quoted(icmp: WireIcmp, direction: Direction, bindings: Bindings) -> SequenceRange | None:
    """The range of the packet that is quoted, which went the other way."""
    subflow = bindings.default_subflow
    quoted = icmp.rest[4:]
    try:
        packet = parse_quoted_packet(memoryview(quoted))
    except MalformedPacketError:
        return None
    if subflow is None or len(packet.payload) < 8:
        return None
    sent = int.from_bytes(packet.payload[4:8], "big")
    start = (sent - subflow.receiver(direction).base) & UINT32_MASK
    # The length that the quoted IP header gives, less the headers: 20 bytes of TCP at least.
    offset = 4 if quoted[0] >> 4 == 6 else 2
    total = int.from_bytes(quoted[offset : offset + 2], "big") + (40 if offset == 4 else 0)
    return SequenceRange(start, max(0, total - packet.payload_offset - 20))
