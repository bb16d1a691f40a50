"""A box that drops ICMP errors, as many firewalls do (RFC 2923 §2.1): what makes an MTU a black hole."""

from __future__ import annotations

from typing import Final

from mptcp_stack.wire import ethernet
from mptcp_stack.wire.ethernet import HEADER_LENGTH
from mptcp_stack.wire.ip_packet import PROTOCOL_ICMP, PROTOCOL_ICMPV6
from testbed.middlebox.segment import Segment

_V4_ERRORS: Final = frozenset((3, 4, 5, 11, 12))
_V6_ERRORS: Final = frozenset((1, 2, 3, 4))
"""Not neighbour discovery, without which nothing would arrive (RFC 4890 §4.3)."""
_V6_HEADER_BYTES: Final = 40


class IcmpErrorBox:
    """See :class:`testbed.middlebox.settings.DropIcmpErrors`. Segments of TCP are none of its business."""

    def pass_with(self, segment: Segment) -> list[Segment]:
        return [segment]

    def pass_against(self, segment: Segment) -> list[Segment]:
        return [segment]

    def pass_frame_with(self, frame: bytes) -> list[bytes]:
        """What holds no segment of TCP, in its direction."""
        return [] if _is_icmp_error(frame) else [frame]

    def pass_frame_against(self, frame: bytes) -> list[bytes]:
        return [frame]


def _is_icmp_error(frame: bytes) -> bool:
    packet = frame[HEADER_LENGTH:]
    match int.from_bytes(frame[12:14], "big"):
        case _ if not packet:
            return False
        case ethernet.ETHERTYPE_IPV4:
            header_bytes = (packet[0] & 0x0F) * 4
            is_icmp = len(packet) > header_bytes and packet[9] == PROTOCOL_ICMP
            return is_icmp and packet[header_bytes] in _V4_ERRORS
        case ethernet.ETHERTYPE_IPV6:
            is_icmp = len(packet) > _V6_HEADER_BYTES and packet[6] == PROTOCOL_ICMPV6
            return is_icmp and packet[_V6_HEADER_BYTES] in _V6_ERRORS
        case _:
            return False
