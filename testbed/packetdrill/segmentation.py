"""Super-segments: a script says a range of bytes, the stack may send it in one packet or in several.

`split` cuts what came as one, `merge` joins what came as two; either way the result can be compared with
what the script says. A mapping that covers a whole super-segment goes with the data: cut and joined as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.wire.mptcp_options import Dss
from mptcp_stack.wire.tcp_segment import FIN, PSH, SYN
from testbed.packetdrill.packet_building import emit_ip, with_tcp_checksum
from testbed.packetdrill.packet_context import UINT32_MASK
from testbed.packetdrill.syntax import IpPart
from testbed.packetdrill.wire_packet import TCP_HEADER, WireOption, WirePacket, WireTcp, read_wire_packet

PROTOCOL_TCP = 6


@dataclass(frozen=True, slots=True)
class _Pieces:
    wire: WirePacket
    tcp: WireTcp


def _take_apart(data: bytes) -> _Pieces | None:
    try:
        wire = read_wire_packet(data)
    except MalformedPacketError:
        return None
    return _Pieces(wire, wire.content) if isinstance(wire.content, WireTcp) else None


def payload_length(data: bytes) -> int:
    """How many bytes of data a TCP packet carries; 0 for anything else."""
    pieces = _take_apart(data)
    return len(pieces.tcp.payload) if pieces is not None else 0


def split(data: bytes, length: int, *, narrow_mapping: bool = True) -> tuple[bytes, bytes] | None:
    """The packet as two, the first with ``length`` bytes of data; None if it has no more than that.

    FIN and PSH go with the second. ``narrow_mapping`` cuts a DSS mapping that covers exactly the data in two;
    otherwise both carry it whole, as a network card's segmentation does.
    """
    pieces = _take_apart(data)
    if pieces is None or not 0 < length < len(pieces.tcp.payload) or pieces.tcp.flags & SYN:
        # No other packet has the bytes after those of a SYN: the SYN takes a number of its own.
        return None
    tcp = pieces.tcp
    first = replace(tcp, flags=tcp.flags & ~(FIN | PSH), payload=tcp.payload[:length])
    rest = tcp.payload[length:]
    second = replace(tcp, sequence=(tcp.sequence + length) & UINT32_MASK, payload=rest)
    if narrow_mapping:
        first = _with_mapping(first, tcp, 0)
        second = _with_mapping(second, tcp, length)
    return _put_together(pieces.wire, first), _put_together(pieces.wire, second)


def _with_mapping(part: WireTcp, whole: WireTcp, offset: int) -> WireTcp:
    """``part`` with the piece of the mapping that is its own."""
    options = tuple(_narrowed(option, part, whole, offset) for option in whole.options)
    return replace(part, options=options)


def _narrowed(option: WireOption, part: WireTcp, whole: WireTcp, offset: int) -> WireOption:
    mapping = _whole_mapping(option, whole)
    if mapping is None or mapping.data_sequence is None:
        return option
    is_last = offset > 0
    bits = 64 if mapping.data_sequence_is_64bit else 32
    cut = replace(
        mapping,
        data_sequence=(mapping.data_sequence + offset) % (1 << bits),
        subflow_sequence=(mapping.subflow_sequence + offset) & UINT32_MASK,
        data_length=len(part.payload) + (mapping.data_fin and is_last),
        data_fin=mapping.data_fin and is_last,
    )
    return WireOption(option.kind, cut.to_bytes())


def _whole_mapping(option: WireOption, tcp: WireTcp) -> Dss | None:
    """The DSS in ``option`` if it maps exactly the data of ``tcp`` and no checksum binds it together."""
    dss = option.mptcp()
    if not isinstance(dss, Dss) or dss.data_sequence is None or dss.checksum is not None:
        return None
    return dss if dss.data_length == len(tcp.payload) + dss.data_fin else None


def merge(first: bytes, second: bytes) -> bytes | None:
    """Two packets as one, or None if the second does not continue the first.

    They must be of one subflow, without a gap, with equal options but for mappings that continue each other
    (or that are the same in both). The acknowledgement, the window and the flags are the second's.
    """
    before, after = _take_apart(first), _take_apart(second)
    if before is None or after is None or not _continues(before, after):
        return None
    options = _merged_options(before.tcp, after.tcp)
    if options is None:
        return None
    payload = before.tcp.payload + after.tcp.payload
    if len(payload) + len(after.tcp.option_bytes) + TCP_HEADER.size + 40 > 0xFFFF:
        return None
    merged = replace(after.tcp, sequence=before.tcp.sequence, payload=payload, options=options)
    return _put_together(after.wire, merged)


def _continues(before: _Pieces, after: _Pieces) -> bool:
    first, second = before.tcp, after.tcp
    same_way = (before.wire.source, before.wire.destination, first.source_port, first.destination_port) == (
        after.wire.source,
        after.wire.destination,
        second.source_port,
        second.destination_port,
    )
    follows = (first.sequence + len(first.payload)) & UINT32_MASK == second.sequence
    return same_way and follows and bool(first.payload and second.payload) and not first.flags & FIN


def _merged_options(first: WireTcp, second: WireTcp) -> tuple[WireOption, ...] | None:
    if len(first.options) != len(second.options):
        return None
    merged = []
    for before, after in zip(first.options, second.options, strict=True):
        option = before if before.data == after.data else _merged_mapping(before, first, after, second)
        if option is None:
            return None
        merged.append(option)
    return tuple(merged)


def _merged_mapping(
    before: WireOption, first: WireTcp, after: WireOption, second: WireTcp
) -> WireOption | None:
    earlier, later = _whole_mapping(before, first), _whole_mapping(after, second)
    if earlier is None or later is None or earlier.data_sequence is None or earlier.data_fin:
        return None
    length = earlier.data_length
    bits = 64 if earlier.data_sequence_is_64bit else 32
    continued = replace(
        later,
        data_sequence=(earlier.data_sequence + length) % (1 << bits),
        subflow_sequence=(earlier.subflow_sequence + length) & UINT32_MASK,
        data_sequence_is_64bit=earlier.data_sequence_is_64bit,
    )
    if continued != later:
        return None
    whole = replace(
        later,
        data_sequence=earlier.data_sequence,
        subflow_sequence=earlier.subflow_sequence,
        data_length=length + later.data_length,
    )
    return WireOption(before.kind, whole.to_bytes())


def _put_together(wire: WirePacket, tcp: WireTcp) -> bytes:
    encoded = b"".join(option.data for option in tcp.options)
    encoded += b"\0" * (-len(encoded) % 4)
    header = TCP_HEADER.pack(
        tcp.source_port,
        tcp.destination_port,
        tcp.sequence,
        tcp.acknowledgement,
        TCP_HEADER.size + len(encoded) << 2,
        tcp.flags,
        tcp.window,
        0,
        tcp.urgent_pointer,
    )
    segment = with_tcp_checksum(header + encoded + tcp.payload, wire.source, wire.destination)
    ip = IpPart(wire.traffic_class, None, wire.hop_limit, wire.flow_label)
    return emit_ip(ip, wire.source, wire.destination, PROTOCOL_TCP, segment)
