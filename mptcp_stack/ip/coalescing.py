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
from mptcp_stack.wire.checksum import ones_complement_sum, pseudo_header_sum
from mptcp_stack.wire.frame import Buffer, ChecksumState, Frame
from mptcp_stack.wire.ip_packet import IPV4_HEADER_LENGTH, IPV6_HEADER_LENGTH, PROTOCOL_TCP
from mptcp_stack.wire.tcp_segment import ACK, PSH

_LONGEST_PACKET_BYTES = 65535
_LONGEST_TCP_HEADER_BYTES = 60
_SHORTEST_TCP_HEADER_BYTES = 20
_UINT16 = Struct("!H")


class _Layout:
    """Where the fields lie in a frame, for one kind of link and one version of IP."""

    __slots__ = ("checksum_at", "fields", "fixed_bits", "is_ipv6", "length_at", "link_bytes", "transport")

    def __init__(self, link_bytes: int, *, is_ipv6: bool) -> None:
        self.link_bytes = link_bytes
        self.is_ipv6 = is_ipv6
        self.transport = link_bytes + (IPV6_HEADER_LENGTH if is_ipv6 else IPV4_HEADER_LENGTH)
        self.length_at = link_bytes + (4 if is_ipv6 else 2)
        self.checksum_at = link_bytes + 10
        """Of the header of IPv4."""
        between = self.transport + 4 - (self.length_at + 2)
        self.fields = Struct(f"!{self.length_at}xH{between}xI4xBB")
        """The packet's length, the sequence number, the data offset and the flags."""
        fixed = bytearray(b"\xff" * (self.transport + _LONGEST_TCP_HEADER_BYTES))
        for start, stop in (
            (self.length_at, self.length_at + 2),
            (self.transport + 4, self.transport + 8),
            (self.transport + 16, self.transport + 18),
        ):
            fixed[start:stop] = bytes(stop - start)
        if not is_ipv6:
            for start in (link_bytes + 4, self.checksum_at):
                fixed[start : start + 2] = b"\0\0"
        fixed[self.transport + 13] = ~PSH & 0xFF
        self.fixed_bits = int.from_bytes(fixed, "little")
        """Of the headers as one number, what must be the same in all segments."""

    def packet_end(self, length_field: int) -> int:
        """Where the packet ends within its frame."""
        return length_field + (self.transport if self.is_ipv6 else self.link_bytes)


_LAYOUTS = {
    link_type: {4: _Layout(link_bytes, is_ipv6=False), 6: _Layout(link_bytes, is_ipv6=True)}
    for link_type, link_bytes in ((LinkType.ETHERNET, ethernet.HEADER_LENGTH), (LinkType.RAW_IP, 0))
}
_ETHER_TYPES = {4: _UINT16.pack(ethernet.ETHERTYPE_IPV4), 6: _UINT16.pack(ethernet.ETHERTYPE_IPV6)}


class _Run:
    """A segment, and those that have joined it."""

    __slots__ = (
        "_address_sum",
        "_first",
        "_flags",
        "_header",
        "_header_bytes",
        "_layout",
        "_length",
        "_next_sequence",
        "_pieces",
        "_segment_bytes",
    )

    def __init__(
        self, frame: Frame, layout: _Layout, header_bytes: int, end: int, sequence: int, flags: int
    ) -> None:
        self._first = frame
        self._layout = layout
        self._header_bytes = header_bytes
        self._header = int.from_bytes(frame.head[:header_bytes], "little")
        self._segment_bytes = self._length = end - header_bytes
        self._next_sequence = (sequence + self._length) & 0xFFFFFFFF
        self._flags = flags
        self._pieces: list[Buffer] = [frame.head[header_bytes:end]]
        addresses_at = layout.transport - (32 if layout.is_ipv6 else 8)
        # The pseudo-header of both addresses is the sum of one address as long as both.
        addresses = bytes(frame.head[addresses_at : layout.transport])
        self._address_sum = pseudo_header_sum(addresses, b"", PROTOCOL_TCP, 0)

    def takes(self, frame: Frame) -> bool:
        """Whether the frame has joined the others."""
        head, layout, header_bytes = frame.head, self._layout, self._header_bytes
        header = int.from_bytes(head[:header_bytes], "little")
        if (header ^ self._header) & layout.fixed_bits or self._flags & PSH:
            return False
        length_field, sequence, _, flags = layout.fields.unpack_from(head)
        end = layout.packet_end(length_field)
        length = end - header_bytes
        if (
            sequence != self._next_sequence
            or not 0 < length <= self._segment_bytes
            or end > len(head)
            or self._length % self._segment_bytes
            or header_bytes - layout.link_bytes + self._length + length > _LONGEST_PACKET_BYTES
            or frame.gso_size
            or frame.payload
        ):
            return False
        payload = head[header_bytes:end]
        if len(self._pieces) == 1 and not self._is_intact(self._first, self._pieces[0]):
            return False
        if not self._is_intact(frame, payload):
            return False
        self._pieces.append(payload)
        self._length += length
        self._next_sequence = (sequence + length) & 0xFFFFFFFF
        self._flags |= flags
        return True

    def _is_intact(self, frame: Frame, payload: Buffer) -> bool:
        """Whether its checksums are good, those that the device has not verified."""
        head, layout, header_bytes = frame.head, self._layout, self._header_bytes
        transport = layout.transport
        if not layout.is_ipv6 and ones_complement_sum(head[layout.link_bytes : transport]) != 0xFFFF:
            return False
        if frame.checksum is not ChecksumState.UNVERIFIED:
            return True
        length = header_bytes - transport + len(payload)
        header_sum = ones_complement_sum(head[transport:header_bytes])
        return (self._address_sum + length + header_sum + ones_complement_sum(payload)) % 0xFFFF == 0

    def frame(self) -> Frame:
        """The super-segment, or the frame as it came if it is alone."""
        first, layout, header_bytes = self._first, self._layout, self._header_bytes
        if len(self._pieces) == 1:
            return first
        head = bytearray(first.head[:header_bytes])
        head[layout.transport + 13] = self._flags
        length_field = header_bytes + self._length - layout.packet_end(0)
        _UINT16.pack_into(head, layout.length_at, length_field)
        if not layout.is_ipv6:
            _UINT16.pack_into(head, layout.checksum_at, 0)
            header_sum = ones_complement_sum(head[layout.link_bytes : layout.transport])
            _UINT16.pack_into(head, layout.checksum_at, header_sum ^ 0xFFFF)
        whole = b"".join((head, *self._pieces))
        return Frame(
            whole,
            (),
            self._segment_bytes,
            ChecksumState.VERIFIED,
            layout.transport,
            is_ipv6=layout.is_ipv6,
        )


def coalesce(frames: Sequence[Frame], interface: Interface) -> Sequence[Frame]:
    """What a device handed over at once, in order, joined where that can be done."""
    if len(frames) < 2:
        return frames
    result: list[Frame] = []
    run: _Run | None = None
    for frame in frames:
        if run is not None:
            if run.takes(frame):
                continue
            result.append(run.frame())
        run = _begin(frame, interface.link_type)
        if run is None:
            result.append(frame)
    if run is not None:
        result.append(run.frame())
    return result


def _begin(frame: Frame, link_type: LinkType) -> _Run | None:
    """A run of one, if others may join it: a whole TCP segment with data that asks for nothing but an ACK."""
    head = frame.head
    layouts = _LAYOUTS[link_type]
    link_bytes = layouts[4].link_bytes
    if frame.gso_size or frame.payload or len(head) <= link_bytes:
        return None
    version = head[link_bytes] >> 4
    layout = layouts.get(version)
    if layout is None or len(head) <= layout.transport + _SHORTEST_TCP_HEADER_BYTES:
        return None
    if link_bytes and head[link_bytes - 2 : link_bytes] != _ETHER_TYPES[version]:
        return None
    if not _is_plain_tcp(head, layout):
        return None
    length_field, sequence, offset, flags = layout.fields.unpack_from(head)
    header_bytes = layout.transport + (offset >> 4 << 2)
    end = layout.packet_end(length_field)
    is_whole = layout.transport + _SHORTEST_TCP_HEADER_BYTES <= header_bytes < end <= len(head)
    if not is_whole or flags != ACK:
        return None
    return _Run(frame, layout, header_bytes, end, sequence, flags)


def _is_plain_tcp(head: Buffer, layout: _Layout) -> bool:
    """Neither a fragment nor with options or extension headers of IP."""
    start = layout.link_bytes
    if layout.is_ipv6:
        return head[start + 6] == PROTOCOL_TCP
    is_fragment = head[start + 6] & 0x3F or head[start + 7]
    return head[start] == 0x45 and head[start + 9] == PROTOCOL_TCP and not is_fragment
