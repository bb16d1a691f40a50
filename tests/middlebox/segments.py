"""Segments and frames for the tests of boxes."""

from __future__ import annotations

from mptcp_stack.wire.ip_packet import PROTOCOL_TCP, emit_ipv4_header, emit_ipv6_header
from testbed.middlebox.chain import Middlebox
from testbed.middlebox.segment import ACK, Segment, parse_segment
from testbed.middlebox.settings import BoxSettings

ADDRESSES = {
    4: (b"\x0a\0\0\x01", b"\x0a\0\0\x02"),
    6: (b"\xfd" + bytes(14) + b"\x01", b"\xfd" + bytes(14) + b"\x02"),
}
ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
CAPABLE_SYN = bytes.fromhex("1e040101")
CAPABLE_ACK = bytes.fromhex("1e140101") + bytes(16)
DSS_ACK = bytes.fromhex("1e082001") + bytes(4)
JOIN_SYN = bytes.fromhex("1e0c1001") + bytes(8)


def segment(
    sequence: int,
    flags: int = ACK,
    payload: bytes = b"",
    options: bytes = b"",
    *,
    acknowledgment: int = 0,
    is_answer: bool = False,
    family: int = 4,
    port: int = 4000,
) -> Segment:
    source, destination = reversed(ADDRESSES[family]) if is_answer else ADDRESSES[family]
    ports = (80, port) if is_answer else (port, 80)
    if family == 4:
        header = emit_ipv4_header(source, destination, PROTOCOL_TCP, 20, identification=7)
    else:
        header = emit_ipv6_header(source, destination, PROTOCOL_TCP, 20)
    built = Segment(
        headers=bytes(12) + ETHERTYPES[family] + header,
        network_offset=14,
        source=source,
        destination=destination,
        source_port=ports[0],
        destination_port=ports[1],
        sequence=sequence,
        acknowledgment=acknowledgment,
        flags=flags,
        window=1000,
        urgent=0,
        options=options,
        payload=payload,
    )
    return whole(built.to_bytes())


class Path:
    """A link with boxes, on which segments are put."""

    def __init__(self, *boxes: BoxSettings, seed: int = 1) -> None:
        self.middlebox = Middlebox(boxes, seed)

    def forward(self, sent: Segment) -> list[Segment]:
        return [whole(frame) for frame in self.middlebox.forward(sent.to_bytes())]

    def backward(self, sent: Segment) -> list[Segment]:
        return [whole(frame) for frame in self.middlebox.backward(sent.to_bytes())]


def whole(frame: bytes) -> Segment:
    """A segment that came out, whose checksums are right."""
    parsed = parse_segment(frame)
    assert parsed is not None
    return parsed
