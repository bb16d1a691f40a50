"""Leaves out acknowledgements that the one behind them says as well, when a device hands over both at once.

So does Linux with what waits for a busy socket (tcp_add_backlog, counted as TCPBacklogCoalesce). Left out is
only a segment without data whose options are timestamps and, perhaps, a DSS with nothing but a data ACK,
where the next frame is one of the same flow with the same timestamps that acknowledges more and goes back in
nothing. What tells of losses (the same number again, SACK, another option) always stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from mptcp_stack.ip.interface import Interface, LinkType
from mptcp_stack.wire import ethernet
from mptcp_stack.wire.frame import ChecksumState, Frame
from mptcp_stack.wire.ip_packet import IPV4_HEADER_LENGTH, IPV6_HEADER_LENGTH, PROTOCOL_TCP
from mptcp_stack.wire.tcp_segment import ACK

_TCP_HEADER_LENGTH = 20
_TIMESTAMPS = bytes([1, 1, 8, 10])
"""Padding, kind and length, as everybody sends them (RFC 7323 appendix A)."""
_TIMESTAMPS_LENGTH = 12
_DATA_ACKS = (b"", bytes([30, 8, 0x20, 1]), bytes([30, 12, 0x20, 3]))
"""None, of 4 bytes, of 8 (RFC 8684 §3.3)."""
_DATA_ACK_FORMATS = {0: "", 8: "4xI", 12: "4xQ"}
_HALF_OF_SEQUENCE_SPACE = 1 << 31


class _Kind:
    """Such segments of one link type, IP version and length: how they are told, and where their numbers are.

    Frames are compared as little-endian numbers.
    """

    __slots__ = ("fixed_bits", "kind_bits", "kind_value", "length", "numbers")

    def __init__(self, link_bytes: int, data_ack: bytes, *, is_ipv6: bool) -> None:
        transport = link_bytes + (IPV6_HEADER_LENGTH if is_ipv6 else IPV4_HEADER_LENGTH)
        options = transport + _TCP_HEADER_LENGTH
        data_ack_at = options + _TIMESTAMPS_LENGTH
        data_ack_length = data_ack[1] if data_ack else 0
        self.length = data_ack_at + data_ack_length
        self.numbers = Struct(
            f"!{transport + 8}xI{data_ack_at - transport - 12}x{_DATA_ACK_FORMATS[data_ack_length]}"
        )
        """What is acknowledged, and what at data level."""
        tcp_length = self.length - transport
        wanted = {transport + 12: tcp_length << 2, transport + 13: ACK}
        wanted |= dict(enumerate(_TIMESTAMPS, options)) | dict(enumerate(data_ack, data_ack_at))
        if is_ipv6:
            wanted |= {link_bytes + 4: 0, link_bytes + 5: tcp_length, link_bytes + 6: PROTOCOL_TCP}
        else:
            wanted |= {link_bytes: 0x45, link_bytes + 2: 0, link_bytes + 3: self.length - link_bytes}
            # Not to be fragmented, and no fragment.
            wanted |= {link_bytes + 6: 0x40, link_bytes + 7: 0, link_bytes + 9: PROTOCOL_TCP}
        if link_bytes:
            ether_type = ethernet.ETHERTYPE_IPV6 if is_ipv6 else ethernet.ETHERTYPE_IPV4
            wanted |= dict(enumerate(ether_type.to_bytes(2, "big"), link_bytes - 2))
        self.kind_bits = sum(0xFF << 8 * at for at in wanted)
        self.kind_value = sum(value << 8 * at for at, value in wanted.items())
        # Acknowledgement, window and checksum, data ACK; of IPv4 identification and checksum.
        changing = [(transport + 8, 4), (transport + 14, 4), (data_ack_at + 4, max(0, data_ack_length - 4))]
        if not is_ipv6:
            changing += [(link_bytes + 4, 2), (link_bytes + 10, 2)]
        fixed = bytearray(b"\xff" * self.length)
        for start, length in changing:
            fixed[start : start + length] = bytes(length)
        self.fixed_bits = int.from_bytes(fixed, "little")

    def is_one(self, frame: Frame) -> bool:
        """Whether the frame, which is of this length, is such a segment without a checksum to be verified."""
        return (
            frame.checksum is not ChecksumState.UNVERIFIED
            and not frame.payload
            and int.from_bytes(frame.head, "little") & self.kind_bits == self.kind_value
        )

    def supersedes(self, later: Frame, earlier: Frame) -> bool:
        """Whether the later of two of them says all that the earlier does."""
        difference = int.from_bytes(later.head, "little") ^ int.from_bytes(earlier.head, "little")
        if difference & self.fixed_bits:
            return False
        advances: list[int] = [
            (number - before) & 0xFFFFFFFF
            for number, before in zip(
                self.numbers.unpack(later.head), self.numbers.unpack(earlier.head), strict=True
            )
        ]
        return advances[0] > 0 and all(advance < _HALF_OF_SEQUENCE_SPACE for advance in advances)


_KINDS: dict[tuple[LinkType, int], _Kind] = {}
for _link_type, _link_bytes in ((LinkType.ETHERNET, ethernet.HEADER_LENGTH), (LinkType.RAW_IP, 0)):
    for _data_ack in _DATA_ACKS:
        for _is_ipv6 in (False, True):
            _kind = _Kind(_link_bytes, _data_ack, is_ipv6=_is_ipv6)
            _KINDS[_link_type, _kind.length] = _kind


def without_superseded(frames: Sequence[Frame], interface: Interface) -> Sequence[Frame]:
    """What a device handed over at once, in order, but for acknowledgements that the next one repeats."""
    if len(frames) < 2:
        return frames
    kept: list[Frame] = []
    last: Frame | None = None
    last_kind: _Kind | None = None
    for frame in frames:
        kind = _KINDS.get((interface.link_type, len(frame.head)))
        if kind is not None and not kind.is_one(frame):
            kind = None
        if kind is not None and kind is last_kind and last is not None and kind.supersedes(frame, last):
            kept.pop()
        last, last_kind = frame, kind
        kept.append(frame)
    return kept
