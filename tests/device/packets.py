"""Builds whole TCP frames for the device tests, independently of the stack's own codecs."""

from __future__ import annotations

import ipaddress
import struct

from mptcp_stack.device.interface import LinkLayer
from mptcp_stack.wire.frame import ChecksumState, Frame

FIN, SYN, RST, PSH, ACK, CWR = 1, 2, 4, 8, 16, 128


def word_sum(data: bytes) -> int:
    """The folded sum of 16-bit words, the slow and obvious way."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def tcp_frame(
    source: str,
    destination: str,
    payload: bytes = b"",
    *,
    ports: tuple[int, int] = (1000, 2000),
    sequence: int = 0,
    acknowledgement: int = 0,
    flags: int = ACK,
    options: bytes = b"",
    window: int = 65535,
    gso_size: int = 0,
    identification: int = 0,
    traffic_class: int = 0,
    macs: tuple[bytes, bytes] | None = None,
) -> Frame:
    """A TCP frame with a PARTIAL checksum and its payload apart; Ethernet given ``macs`` (to, from)."""
    packed = ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed
    tcp_length = 20 + len(options) + len(payload)
    pseudo = word_sum(packed[0] + packed[1] + struct.pack("!II", tcp_length, 6))
    offset_and_flags = ((20 + len(options)) // 4) << 12 | flags
    tcp = struct.pack("!HHIIHHHH", *ports, sequence, acknowledgement, offset_and_flags, window, pseudo, 0)
    is_ipv6 = len(packed[0]) == 16
    if is_ipv6:
        ip = struct.pack("!IHBB", 6 << 28 | traffic_class << 20, tcp_length, 6, 64) + packed[0] + packed[1]
    else:
        ip = struct.pack("!BBHHHBBH", 0x45, traffic_class, 20 + tcp_length, identification, 0x4000, 64, 6, 0)
        ip += packed[0] + packed[1]
        ip = ip[:10] + struct.pack("!H", 0xFFFF ^ word_sum(ip)) + ip[12:]
    link = b"" if macs is None else macs[0] + macs[1] + (b"\x86\xdd" if is_ipv6 else b"\x08\x00")
    return Frame(
        link + ip + tcp + options,
        (payload,) if payload else (),
        gso_size=gso_size,
        checksum=ChecksumState.PARTIAL,
        transport_offset=len(link + ip),
        is_ipv6=is_ipv6,
    )


class ParsedTcp:
    """The fields of a TCP frame that tests look at."""

    def __init__(self, frame: Frame, link_layer: LinkLayer) -> None:
        packet = frame.to_bytes()[link_layer.header_length :]
        self.version = packet[0] >> 4
        header_length = (packet[0] & 15) * 4 if self.version == 4 else 40
        self.is_tcp = packet[9 if self.version == 4 else 6] == 6
        total = (
            struct.unpack_from("!H", packet, 2)[0]
            if self.version == 4
            else 40 + struct.unpack_from("!H", packet, 4)[0]
        )
        self.tcp = packet[header_length:total]
        if self.is_tcp:
            self.ports: tuple[int, int] = struct.unpack_from("!HH", self.tcp)
            self.sequence: int = struct.unpack_from("!I", self.tcp, 4)[0]
            self.acknowledgement: int = struct.unpack_from("!I", self.tcp, 8)[0]
            self.flags = self.tcp[13]
            self.payload = self.tcp[(self.tcp[12] >> 4) * 4 :]
        addresses = packet[12:20] if self.version == 4 else packet[8:40]
        half = len(addresses) // 2
        self.pseudo = addresses[:half] + addresses[half:] + struct.pack("!II", len(self.tcp), 6)

    @property
    def checksum_is_good(self) -> bool:
        """Whether the complete checksum in the packet is right."""
        return word_sum(self.pseudo + self.tcp) == 0xFFFF
