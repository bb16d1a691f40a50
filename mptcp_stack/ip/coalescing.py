"""Joins segments that a device hands over one after the other into a super-segment, as Linux's GRO does.

All that stands above then works once for up to 64 KB. Joined is only what belongs to one flow, continues the
segment before, differs from the first in nothing that is not a length or a number, and has good checksums.
Everything else goes up as it came, and is judged there: nothing is dropped or counted here.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from mptcp_stack.ip.interface import Interface, LinkType
from mptcp_stack.wire import ethernet
from mptcp_stack.wire.checksum import ones_complement_sum
from mptcp_stack.wire.frame import Buffer, ChecksumState, Frame
from mptcp_stack.wire.ip_packet import IPV4_HEADER_LENGTH, IPV6_HEADER_LENGTH, PROTOCOL_TCP
from mptcp_stack.wire.tcp_segment import ACK, PSH

_LONGEST_PACKET_BYTES = 65535
_LONGEST_TCP_HEADER_BYTES = 60
_SHORTEST_TCP_HEADER_BYTES = 20
_UINT16 = Struct("!H")


class _Layout:
    """Where the fields lie in a frame, for one kind of link and one version of IP.

    Headers are compared as numbers, little-endian so that those of any length begin with the same bits.
    """

    __slots__ = (
        "checksum_at",
        "fields",
        "fixed_bits",
        "is_ipv6",
        "kind",
        "kind_bits",
        "length_at",
        "link_bytes",
        "transport",
    )

    def __init__(self, link_bytes: int, *, is_ipv6: bool) -> None:
        self.link_bytes = link_bytes
        self.is_ipv6 = is_ipv6
        self.transport = transport = link_bytes + (IPV6_HEADER_LENGTH if is_ipv6 else IPV4_HEADER_LENGTH)
        self.length_at = link_bytes + (4 if is_ipv6 else 2)
        self.checksum_at = link_bytes + 10
        """Of the header of IPv4."""
        between = transport + 4 - (self.length_at + 2)
        self.fields = Struct(f"!{self.length_at}xH{between}xI4xBB")
        """The packet's length, the sequence number, the data offset and the flags."""
        differ = [self.length_at, transport + 4, transport + 6, transport + 16]
        if not is_ipv6:
            differ += [link_bytes + 4, self.checksum_at]
        fixed = bytearray(b"\xff" * (transport + _LONGEST_TCP_HEADER_BYTES))
        for start in differ:
            _UINT16.pack_into(fixed, start, 0)
        fixed[transport + 13] = ~PSH & 0xFF
        self.fixed_bits = int.from_bytes(fixed, "little")
        """What must be the same in all segments."""
        self.kind_bits, self.kind = self._kind()
        """Which bits tell a segment that others may join, and how they stand."""

    def _kind(self) -> tuple[int, int]:
        """Whole, without options or extension headers of IP, and with no flag of TCP but ACK."""
        start, is_ipv6 = self.link_bytes, self.is_ipv6
        wanted = [(self.transport + 13, 0xFF, ACK)]
        if is_ipv6:
            wanted += [(start, 0xF0, 0x60), (start + 6, 0xFF, PROTOCOL_TCP)]
        else:
            wanted += [(start, 0xFF, 0x45), (start + 9, 0xFF, PROTOCOL_TCP)]
            # More fragments, and the offset of one.
            wanted += [(start + 6, 0x3F, 0), (start + 7, 0xFF, 0)]
        if start:
            ether_type = ethernet.ETHERTYPE_IPV6 if is_ipv6 else ethernet.ETHERTYPE_IPV4
            wanted += [(start - 2, 0xFF, ether_type >> 8), (start - 1, 0xFF, ether_type & 0xFF)]
        bits = sum(mask << 8 * at for at, mask, _ in wanted)
        return bits, sum(value << 8 * at for at, _, value in wanted)

    def packet_end(self, length_field: int) -> int:
        """Where the packet ends within its frame."""
        return length_field + (self.transport if self.is_ipv6 else self.link_bytes)


_LAYOUTS = {
    link_type: (_Layout(link_bytes, is_ipv6=False), _Layout(link_bytes, is_ipv6=True))
    for link_type, link_bytes in ((LinkType.ETHERNET, ethernet.HEADER_LENGTH), (LinkType.RAW_IP, 0))
}


class _Run:
    """A segment, and those that have joined it."""

    __slots__ = (
        "_first",
        "_header",
        "_header_bytes",
        "_is_pushed",
        "_layout",
        "_length",
        "_next_sequence",
        "_pieces",
        "_segment_bytes",
    )

    def __init__(self, frame: Frame, layout: _Layout, header_bytes: int, end: int, sequence: int) -> None:
        self._first = frame
        self._layout = layout
        self._header_bytes = header_bytes
        self._header = int.from_bytes(frame.head[:header_bytes], "little")
        self._segment_bytes = self._length = end - header_bytes
        self._next_sequence = (sequence + self._length) & 0xFFFFFFFF
        self._is_pushed = False
        self._pieces: list[Buffer] = []
        """The payload of the first goes with its header."""

    def takes(self, frame: Frame) -> bool:
        """Whether the frame has joined the others."""
        head, layout, header_bytes = frame.head, self._layout, self._header_bytes
        header = int.from_bytes(head[:header_bytes], "little")
        if (header ^ self._header) & layout.fixed_bits:
            return False
        length_field, sequence, _, flags = layout.fields.unpack_from(head)
        end = layout.packet_end(length_field)
        length = end - header_bytes
        if (
            sequence != self._next_sequence
            or not 0 < length <= self._segment_bytes
            or end > len(head)
            or self._is_pushed
            or self._length % self._segment_bytes
            or header_bytes - layout.link_bytes + self._length + length > _LONGEST_PACKET_BYTES
            or frame.gso_size
        ):
            return False
        if not self._pieces and not self._is_intact(self._first, header_bytes + self._segment_bytes):
            return False
        if not self._is_intact(frame, end):
            return False
        self._pieces.append(head[header_bytes:end])
        self._length += length
        self._next_sequence = (sequence + length) & 0xFFFFFFFF
        self._is_pushed = flags & PSH != 0
        return True

    def _is_intact(self, frame: Frame, end: int) -> bool:
        """Whether its checksums are good, those that the device has not verified."""
        head, layout = frame.head, self._layout
        transport = layout.transport
        if not layout.is_ipv6 and ones_complement_sum(head[layout.link_bytes : transport]) != 0xFFFF:
            return False
        if frame.checksum is not ChecksumState.UNVERIFIED:
            return True
        # Both addresses stand before the TCP header: with it and the payload they are one sum.
        addresses_at = transport - (32 if layout.is_ipv6 else 8)
        total = ones_complement_sum(head[addresses_at:end]) + PROTOCOL_TCP + end - transport
        return total % 0xFFFF == 0

    def frame(self) -> Frame:
        """The super-segment, or the frame as it came if it is alone."""
        first, layout, header_bytes = self._first, self._layout, self._header_bytes
        if not self._pieces:
            return first
        head = bytearray(first.head[: header_bytes + self._segment_bytes])
        if self._is_pushed:
            head[layout.transport + 13] |= PSH
        length_field = header_bytes + self._length - layout.packet_end(0)
        _UINT16.pack_into(head, layout.length_at, length_field)
        if not layout.is_ipv6:
            _UINT16.pack_into(head, layout.checksum_at, 0)
            header_sum = ones_complement_sum(head[layout.link_bytes : layout.transport])
            _UINT16.pack_into(head, layout.checksum_at, header_sum ^ 0xFFFF)
        whole = b"".join((head, *self._pieces))
        checksum = ChecksumState.VERIFIED
        return Frame(whole, (), self._segment_bytes, checksum, layout.transport, is_ipv6=layout.is_ipv6)


def coalesce(frames: Sequence[Frame], interface: Interface) -> Sequence[Frame]:
    """What a device handed over at once, in order, joined where that can be done."""
    if len(frames) < 2:
        return frames
    layouts = _LAYOUTS[interface.link_type]
    result: list[Frame] = []
    run: _Run | None = None
    for frame in frames:
        if run is not None:
            if run.takes(frame):
                continue
            result.append(run.frame())
        run = _begin(frame, layouts)
        if run is None:
            result.append(frame)
    if run is not None:
        result.append(run.frame())
    return result


def _begin(frame: Frame, layouts: Sequence[_Layout]) -> _Run | None:
    """A run of one, if the frame is a segment with data that others may join."""
    if frame.gso_size:
        return None
    head = frame.head
    for layout in layouts:
        transport = layout.transport
        if int.from_bytes(head[: transport + 14], "little") & layout.kind_bits == layout.kind:
            length_field, sequence, offset, _ = layout.fields.unpack_from(head)
            header_bytes = transport + (offset >> 4 << 2)
            end = layout.packet_end(length_field)
            if transport + _SHORTEST_TCP_HEADER_BYTES <= header_bytes < end <= len(head):
                return _Run(frame, layout, header_bytes, end, sequence)
            return None
    return None
