"""Packets of a script ↔ the IP packets that the stack sent."""

from __future__ import annotations

from collections.abc import Sequence

from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.wire.ip_packet import parse_quoted_packet
from mptcp_stack.wire.tcp_segment import SYN
from testbed.packetdrill import md5_signature
from testbed.packetdrill.bindings import Bindings
from testbed.packetdrill.constants import icmp_type_and_code
from testbed.packetdrill.errors import PacketError
from testbed.packetdrill.option_building import build_option
from testbed.packetdrill.option_description import describe_option
from testbed.packetdrill.option_matching import (
    NOTHING,
    Comparison,
    Mismatch,
    hexadecimal,
    match_option,
)
from testbed.packetdrill.option_order import partners_of
from testbed.packetdrill.packet_context import UINT32_MASK, PacketContext
from testbed.packetdrill.printer import print_flags, print_options
from testbed.packetdrill.subflow_lookup import subflow_of_incoming, subflow_of_outgoing
from testbed.packetdrill.syntax import (
    AnyOptions,
    Direction,
    Ecn,
    IcmpPart,
    Packet,
    ScriptOption,
    TcpPart,
)
from testbed.packetdrill.wire_packet import WireIcmp, WirePacket, WireTcp, read_wire_packet

_ECN_VALUES = {
    Ecn.NOT_ECT: (0,),
    Ecn.ECT1: (1,),
    Ecn.ECT0: (2,),
    Ecn.CE: (3,),
    Ecn.ECT0_OR_ECT1: (1, 2),
}
ECN_OF_BITS = (Ecn.NOT_ECT, Ecn.ECT1, Ecn.ECT0, Ecn.CE)


def match(
    packet: Packet, data: bytes, bindings: Bindings, *, verify_checksum: bool = False
) -> list[Mismatch]:
    """Everything in which the IP packet ``data`` is not what the script wants; empty if it is.

    Binds free variables, sequence bases and subflows, whether or not it agrees: to try something out, use a
    copy of the bindings. ``verify_checksum`` holds the TCP checksum to be complete, which it is not on a
    device that offloads it. Raises PacketError where the script uses a key that has no value yet.
    """
    try:
        wire = read_wire_packet(data)
    except MalformedPacketError as error:
        return [Mismatch("packet", "a TCP or ICMP packet", str(error))]
    if isinstance(packet.content, TcpPart) and isinstance(wire.content, WireTcp):
        return _match_tcp_packet(packet, packet.content, wire, wire.content, bindings, verify_checksum)
    if isinstance(packet.content, IcmpPart) and isinstance(wire.content, WireIcmp):
        return _match_icmp(packet, packet.content, wire, wire.content, bindings)
    kinds = ("TCP", "ICMP") if isinstance(packet.content, TcpPart) else ("ICMP", "TCP")
    return [Mismatch("protocol", *kinds)]


def _match_tcp_packet(
    packet: Packet,
    expected: TcpPart,
    wire: WirePacket,
    tcp: WireTcp,
    bindings: Bindings,
    verify_checksum: bool,
) -> list[Mismatch]:
    mismatches: list[Mismatch] = []
    # A subflow has to be found before there is a context to compare in.
    subflow = subflow_of_outgoing(packet, wire, tcp, bindings, mismatches)
    if tcp.flags & SYN:
        subflow.take_base((tcp.sequence - expected.sequence.start) & UINT32_MASK)
    context = PacketContext(bindings, subflow, Direction.OUT, expected.sequence.start, tcp.payload)
    comparison = Comparison(context, mismatches)
    context.observe_handshake(tcp)
    _match_ip(comparison, packet, wire)
    _match_header(comparison, expected, tcp)
    if expected.options is not None:
        _match_options(comparison, expected.options, tcp)
    if md5_signature.is_demanded(expected):
        _match_signature(comparison, wire, tcp)
    if verify_checksum:
        comparison.check("checksum", "a right one", "a right one" if tcp.checksum_is_good else "a wrong one")
    context.observe(tcp)
    return mismatches


def _match_ip(comparison: Comparison, packet: Packet, wire: WirePacket) -> None:
    ip = packet.ip
    bits = wire.traffic_class & 3
    if ip.ecn is not None and bits not in _ECN_VALUES[ip.ecn]:
        comparison.check("ecn", ip.ecn.value, ECN_OF_BITS[bits].value)
    if ip.traffic_class is not None:
        # Next to a word for ECN the number is that of the other six bits.
        mask = 0xFF if ip.ecn is None else 0xFC
        comparison.check("tos", ip.traffic_class & mask, wire.traffic_class & mask, hexadecimal)
    comparison.check("ttl", ip.hop_limit, wire.hop_limit)
    comparison.check("flowlabel", ip.flow_label, wire.flow_label, hexadecimal)


def _match_header(comparison: Comparison, expected: TcpPart, tcp: WireTcp) -> None:
    subflow = comparison.context.subflow
    comparison.check("flags", print_flags(expected.flags), print_flags(tcp.flags))
    start = (tcp.sequence - subflow.local.base) & UINT32_MASK
    comparison.check("sequence", expected.sequence.start & UINT32_MASK, start)
    comparison.check("length", expected.sequence.length, len(tcp.payload))
    acknowledgement = (tcp.acknowledgement - subflow.remote.base) & UINT32_MASK
    comparison.check("ack", expected.acknowledgement, acknowledgement)
    comparison.check("win", expected.window, tcp.window)
    comparison.check("urg", expected.urgent_pointer, tcp.urgent_pointer)


def _match_options(comparison: Comparison, expected: Sequence[ScriptOption], tcp: WireTcp) -> None:
    context = comparison.context
    described = [describe_option(context, option) for option in tcp.options]
    partners = partners_of(expected, described, [len(option.data) for option in tcp.options])
    if partners is None:
        comparison.check("options", _listed(expected), _listed(described))
        return
    wanted = [option for option in expected if not isinstance(option, AnyOptions)]
    for option, partner in zip(wanted, partners, strict=True):
        match_option(comparison, option, tcp.options[partner])


def _match_signature(comparison: Comparison, wire: WirePacket, tcp: WireTcp) -> None:
    key = comparison.context.bindings.signature_key
    if key is None:
        raise PacketError("md5 auto: there is no key yet, no setsockopt() with TCP_MD5SIG was before")
    right = md5_signature.digest(wire.source, wire.destination, tcp, key)
    comparison.check("md5", right, md5_signature.signature_of(tcp), hexadecimal)


def _listed(options: Sequence[ScriptOption]) -> str:
    return f"<{print_options(options)}>" if options else NOTHING


def unaligned_bytes(packet: Packet, bindings: Bindings) -> int:
    """How many bytes its options lack to a multiple of 4, as packets always have; 0 where all is well.

    Other tools refuse such a packet; here it is padded. Binds nothing. Raises PacketError as `build` does.
    """
    content = packet.content
    if not isinstance(content, TcpPart) or not content.options:
        return 0
    trial = bindings.copy()
    context = PacketContext(
        trial,
        subflow_of_incoming(packet, trial),
        Direction.IN,
        content.sequence.start,
        bytes(content.sequence.length),
    )
    return -sum(len(build_option(context, option)) for option in content.options) % 4


# --- ICMP ---


def _match_icmp(
    packet: Packet, expected: IcmpPart, wire: WirePacket, icmp: WireIcmp, bindings: Bindings
) -> list[Mismatch]:
    subflow = bindings.default_subflow
    if subflow is None:
        raise PacketError("an ICMP message before the first TCP packet: about what?")
    mismatches: list[Mismatch] = []
    comparison = Comparison(PacketContext(bindings, subflow, Direction.OUT, 0, b""), mismatches)
    _match_ip(comparison, packet, wire)
    numbers = icmp_type_and_code(
        expected.is_icmpv6, expected.type_name, expected.code_name, over_ipv6=wire.is_ipv6
    )
    if numbers is None:
        raise PacketError(f"no such message in IPv{6 if wire.is_ipv6 else 4}: {expected.type_name!r}")
    comparison.check("icmp type", numbers[0], icmp.icmp_type)
    comparison.check("icmp code", numbers[1], icmp.code)
    comparison.check("icmp mtu", expected.mtu, int.from_bytes(icmp.rest[:4], "big"))
    if expected.quoted is not None:
        _match_quoted(comparison, expected.quoted.start, icmp.rest[4:])
    return mismatches


def _match_quoted(comparison: Comparison, expected_start: int, quoted: bytes) -> None:
    try:
        payload = parse_quoted_packet(memoryview(quoted)).payload
    except MalformedPacketError as error:
        comparison.check("icmp quoted packet", "a packet", str(error))
        return
    base = comparison.context.subflow.remote.base
    start = (int.from_bytes(payload[4:8], "big") - base) & UINT32_MASK
    comparison.check("icmp quoted sequence", expected_start, start)
