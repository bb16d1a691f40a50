"""A middlebox that repeats, keeps back and changes the packets it forwards."""

from __future__ import annotations

import random
from collections import deque

from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.wire.checksum import checksum_of, pseudo_header_sum
from mptcp_stack.wire.ip_packet import PROTOCOL_TCP, IpPacket, parse_ipv4, parse_ipv6

_ETHERNET_BYTES = 14
_REMEMBERED = 50


class Tamperer:
    """One direction. ``mutates``: it also changes and cuts TCP segments, with good checksums."""

    def __init__(self, rng: random.Random, *, mutates: bool) -> None:
        self._rng = rng
        self._mutates = mutates
        self._kept_back: list[bytes] = []
        self._seen: deque[bytes] = deque(maxlen=_REMEMBERED)

    def rewrite(self, packet: bytes, index: int) -> list[bytes]:
        """The packets that go on in place of this one."""
        ip_packet = tcp_packet_in(packet)
        if ip_packet is None:
            return [packet]
        rng = self._rng
        self._seen.append(packet)
        choice = rng.random()
        if choice < 0.05:
            self._kept_back.append(packet)
            return []
        result = [packet]
        if choice < 0.15:
            result = [packet] * rng.choice([2, 3])
        elif choice < 0.20:
            result.append(rng.choice(self._seen))
        elif choice < 0.30 and self._mutates:
            result = [self._mutated(packet, ip_packet)]
        elif choice < 0.35 and self._mutates:
            result.append(self._mutated(packet, ip_packet))
        if self._kept_back and rng.random() < 0.5:
            result += self._kept_back
            self._kept_back = []
        return result

    def _mutated(self, packet: bytes, ip_packet: IpPacket) -> bytes:
        rng = self._rng
        segment = bytearray(ip_packet.payload)
        header_length = min((segment[12] >> 4) * 4, len(segment))
        match rng.randrange(4):
            case 0:
                # Sequence and acknowledgement numbers, flags, window.
                segment[rng.choice([7, 11, 13, 14, 15])] = rng.randrange(256)
            case 1 if header_length > 20:
                segment[rng.randrange(20, header_length)] = rng.randrange(256)
            case 2 if len(segment) > header_length:
                segment[rng.randrange(header_length, len(segment))] ^= 1
            case _:
                if len(segment) > header_length:
                    del segment[rng.randrange(header_length, len(segment)) :]
        return with_segment(packet, ip_packet, segment)


def tcp_packet_in(packet: bytes) -> IpPacket | None:
    """The IP packet in an Ethernet frame, if it carries TCP."""
    parse = {b"\x08\x00": parse_ipv4, b"\x86\xdd": parse_ipv6}.get(packet[12:14])
    if parse is None:
        return None
    try:
        ip_packet = parse(memoryview(packet)[_ETHERNET_BYTES:])
    except MalformedPacketError:
        return None
    return ip_packet if ip_packet.protocol == PROTOCOL_TCP else None


def with_segment(packet: bytes, ip_packet: IpPacket, segment: bytearray) -> bytes:
    """The packet with another TCP segment, not longer than the old one; its checksums are made right."""
    segment[16:18] = b"\0\0"
    total = pseudo_header_sum(ip_packet.source, ip_packet.destination, PROTOCOL_TCP, len(segment))
    segment[16:18] = checksum_of((segment,), total).to_bytes(2, "big")
    head = bytearray(packet[: _ETHERNET_BYTES + ip_packet.payload_offset])
    ip_header = memoryview(head)[_ETHERNET_BYTES:]
    if len(ip_packet.source) == 4:
        ip_header[2:4] = (len(ip_header) + len(segment)).to_bytes(2, "big")
        ip_header[10:12] = b"\0\0"
        ip_header[10:12] = checksum_of((bytes(ip_header),)).to_bytes(2, "big")
    else:
        ip_header[4:6] = (len(ip_header) - 40 + len(segment)).to_bytes(2, "big")
    return bytes(head) + bytes(segment)
