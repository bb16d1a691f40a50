"""Fragments into packets again (RFC 791 §3.2, RFC 8200 §4.5), with a bound on everything that waits.

What arrives twice is dropped; fragments that overlap otherwise take their packet with them, in IPv6 by RFC
5722 and in IPv4 as Linux does. So no later fragment ever changes an earlier one, and as nothing of a packet
is looked at before it is whole, tiny first fragments (RFC 1858, RFC 3128) hide nothing.
"""

from __future__ import annotations

from bisect import bisect_left

from mptcp_stack.counters import Counters
from mptcp_stack.wire.icmp import V6_ERRONEOUS_HEADER, V6_INCOMPLETE_HEADER_CHAIN, IcmpParameterProblem
from mptcp_stack.wire.ip_packet import Fragment, IpPacket, names_upper_layer

IPV4_LIFETIME_US = 30_000_000
IPV6_LIFETIME_US = 60_000_000
"""Linux's ipfrag_time and ip6frag_time; RFC 8200 §4.5 demands the latter."""
MAXIMUM_BYTES = 4 << 20
"""Of all that waits in one IP version, bookkeeping included: Linux's ipfrag_high_thresh."""
MAXIMUM_BYTES_FROM_ONE_SOURCE = MAXIMUM_BYTES // 4
MAXIMUM_PACKETS_FROM_ONE_SOURCE = 64
"""Incomplete ones; beyond them the oldest goes, as beyond Linux's ipfrag_max_dist."""
BYTES_BESIDE_A_FRAGMENT = 256
BYTES_BESIDE_A_PACKET = 2048
MAXIMUM_PAYLOAD = 65_535
QUOTED_BYTES = 1232
"""Kept of a first fragment: as much as an ICMP error may quote (RFC 4443 §2.4 (c))."""

_PAYLOAD_LENGTH_FIELD = 4
NOT_ECT, ECT_1, ECT_0, CE = range(4)
_Key = tuple[bytes, bytes, int, int]
"""Source, destination, identification, and protocol (IPv4) or interface (IPv6, link-local)."""


class IncompletePacket:
    """The fragments of one packet that have arrived so far."""

    __slots__ = (
        "congestion_marks",
        "expires_us",
        "first",
        "first_bytes",
        "held_bytes",
        "key",
        "length",
        "pieces",
        "received_bytes",
        "starts",
    )

    def __init__(self, key: _Key, expires_us: int) -> None:
        self.key = key
        self.expires_us = expires_us
        self.starts: list[int] = []
        self.pieces: list[bytes] = []
        self.received_bytes = 0
        self.held_bytes = BYTES_BESIDE_A_PACKET
        self.length: int | None = None
        self.first: IpPacket | None = None
        self.first_bytes = b""
        """The start of the first fragment, headers included: what an ICMP error would quote."""
        self.congestion_marks = 0
        """One bit for each of the four values of the ECN field that a fragment had."""

    @property
    def is_complete(self) -> bool:
        return self.first is not None and self.received_bytes == self.length

    @property
    def end(self) -> int:
        """The end of the piece that reaches furthest."""
        return self.starts[-1] + len(self.pieces[-1]) if self.starts else 0

    def accepts_end(self, end: int, has_more: bool) -> bool:
        """Whether a fragment that ends there agrees with what is known of the packet's length."""
        if has_more:
            return self.length is None or end <= self.length
        return end >= self.end and (self.length is None or end == self.length)

    def insert(self, start: int, data: memoryview) -> bool | None:
        """True for a new piece, None for one that is there already; False where it overlaps others."""
        end = start + len(data)
        index = bisect_left(self.starts, start)
        overlaps_next = index < len(self.starts) and self.starts[index] < end
        if overlaps_next or (index and self._end_at(index - 1) > start):
            return None if self._covers(start, end) else False
        self.starts.insert(index, start)
        self.pieces.insert(index, bytes(data))
        self.received_bytes += len(data)
        self.held_bytes += len(data) + BYTES_BESIDE_A_FRAGMENT
        return True

    def _end_at(self, index: int) -> int:
        return self.starts[index] + len(self.pieces[index])

    def _covers(self, start: int, end: int) -> bool:
        index = bisect_left(self.starts, start + 1) - 1
        if index < 0:
            return False
        covered_to = self.starts[index]
        while index < len(self.starts) and self.starts[index] == covered_to and covered_to < end:
            covered_to = self._end_at(index)
            index += 1
        return covered_to >= end


class FragmentReassembly:
    """All incomplete packets of one IP version. Counts as Linux does."""

    def __init__(self, counters: Counters, *, is_ipv6: bool) -> None:
        self._counters = counters
        self._prefix = "Ip6Reasm" if is_ipv6 else "IpReasm"
        self._is_ipv6 = is_ipv6
        self._lifetime_us = IPV6_LIFETIME_US if is_ipv6 else IPV4_LIFETIME_US
        # In the order in which they began, which is that in which they expire.
        self._packets: dict[_Key, IncompletePacket] = {}
        self._by_source: dict[bytes, dict[_Key, IncompletePacket]] = {}
        self._source_bytes: dict[bytes, int] = {}
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._packets)

    @property
    def next_deadline_us(self) -> int | None:
        for packet in self._packets.values():
            return packet.expires_us
        return None

    def receive(
        self, packet: IpPacket, fragment: Fragment, data: memoryview, interface_index: int, now_us: int
    ) -> IpPacket | None:
        """Takes a fragment; ``data`` is all of it from its IP header on.

        Returns the whole packet if this was what it lacked, with the headers of its first fragment.
        """
        self._counters.increment(self._prefix + "Reqds")
        scope = (interface_index if packet.source[:1] == b"\xfe" else 0) if self._is_ipv6 else packet.protocol
        key = (packet.source, packet.destination, fragment.identification, scope)
        incomplete = self._packets.get(key)
        if incomplete is None:
            incomplete = self._open(key, now_us)
            if incomplete is None:
                self._counters.increment(self._prefix + "Fails")
                self._counters.increment("StackDropFragment")
                return None
        if not self._insert(incomplete, packet, fragment, data):
            self._counters.increment("StackDropFragment")
            return None
        if not incomplete.is_complete:
            self._limit_source(packet.source)
            return None
        self._forget(incomplete)
        return self._assemble(incomplete)

    def take_expired(self, now_us: int) -> list[IncompletePacket]:
        """Packets whose time has run out. They are forgotten."""
        expired: list[IncompletePacket] = []
        for packet in self._packets.values():
            if packet.expires_us > now_us:
                break
            expired.append(packet)
        for packet in expired:
            self._counters.increment(self._prefix + "Timeout")
            self._discard(packet)
        return expired

    def _open(self, key: _Key, now_us: int) -> IncompletePacket | None:
        if self.held_bytes + BYTES_BESIDE_A_PACKET > MAXIMUM_BYTES:
            return None
        packet = IncompletePacket(key, now_us + self._lifetime_us)
        self._packets[key] = packet
        source = key[0]
        self._by_source.setdefault(source, {})[key] = packet
        self._hold(source, packet.held_bytes)
        return packet

    def _hold(self, source: bytes, held_bytes: int) -> None:
        self.held_bytes += held_bytes
        self._source_bytes[source] = self._source_bytes.get(source, 0) + held_bytes

    def _insert(
        self, incomplete: IncompletePacket, packet: IpPacket, fragment: Fragment, data: memoryview
    ) -> bool:
        """False for a fragment that is dropped, and its packet with it unless it is only a repeated one."""
        piece = packet.payload
        if fragment.has_more and len(piece) & 7:
            piece = piece[: len(piece) & ~7]
        end = fragment.offset + len(piece)
        is_sound = len(piece) and end <= MAXIMUM_PAYLOAD and incomplete.accepts_end(end, fragment.has_more)
        cost = len(piece) + BYTES_BESIDE_A_FRAGMENT
        if not is_sound or self.held_bytes + cost > MAXIMUM_BYTES:
            self._discard(incomplete)
            return False
        is_new = incomplete.insert(fragment.offset, piece)
        if not is_new:
            if is_new is False:
                self._counters.increment("IpExtReasmOverlaps", 0 if self._is_ipv6 else 1)
                self._discard(incomplete)
            return False
        self._hold(packet.source, cost)
        if not fragment.has_more:
            incomplete.length = end
        incomplete.congestion_marks |= 1 << (packet.traffic_class & 3)
        if not fragment.offset:
            incomplete.first = packet
            incomplete.first_bytes = bytes(data[:QUOTED_BYTES])
            # Else the frame, whatever its size, would stay for the sake of the headers.
            packet.payload = memoryview(b"")
        return True

    def _limit_source(self, source: bytes) -> None:
        packets = self._by_source[source]
        while len(packets) > 1 and (
            len(packets) > MAXIMUM_PACKETS_FROM_ONE_SOURCE
            or self._source_bytes[source] > MAXIMUM_BYTES_FROM_ONE_SOURCE
        ):
            self._discard(next(iter(packets.values())))

    def _discard(self, packet: IncompletePacket) -> None:
        self._counters.increment(self._prefix + "Fails")
        self._counters.increment("StackDropFragment", len(packet.pieces))
        self._forget(packet)

    def _forget(self, packet: IncompletePacket) -> None:
        del self._packets[packet.key]
        source = packet.key[0]
        self.held_bytes -= packet.held_bytes
        self._source_bytes[source] -= packet.held_bytes
        del self._by_source[source][packet.key]
        if not self._by_source[source]:
            del self._by_source[source], self._source_bytes[source]

    def _assemble(self, incomplete: IncompletePacket) -> IpPacket | None:
        packet = incomplete.first
        congestion = reassembled_congestion(incomplete.congestion_marks)
        too_long = packet is not None and packet.payload_offset + incomplete.received_bytes > MAXIMUM_PAYLOAD
        if packet is None or congestion is None or (too_long and not self._is_ipv6):
            self._counters.increment(self._prefix + "Fails")
            self._counters.increment("StackDropFragment", len(incomplete.pieces))
            return None
        self._counters.increment(self._prefix + "OKs")
        packet.payload = memoryview(b"".join(incomplete.pieces))
        packet.traffic_class = packet.traffic_class & ~3 | congestion
        packet.fragment = None
        return packet


def reassembled_congestion(marks: int) -> int | None:
    """The ECN field of a packet whose fragments had these (RFC 3168 §5.3); None where they contradict.

    Congestion that one of them met counts for all; a mixture of marked and unmarkable ones is refused.
    """
    if marks & 1 << NOT_ECT:
        return NOT_ECT if marks == 1 << NOT_ECT else None
    if marks & 1 << CE:
        return CE
    return ECT_0 if marks & 1 << ECT_0 else ECT_1


def ipv6_fragment_defect(
    packet: IpPacket, fragment: Fragment, data: memoryview
) -> IcmpParameterProblem | None:
    """What RFC 8200 §4.5 has a receiver tell the sender of a fragment that can belong to no packet."""
    if not fragment.offset and not names_upper_layer(packet):
        return IcmpParameterProblem(V6_INCOMPLETE_HEADER_CHAIN, packet.payload_offset, data)
    if fragment.has_more and len(packet.payload) & 7:
        return IcmpParameterProblem(V6_ERRONEOUS_HEADER, _PAYLOAD_LENGTH_FIELD, data)
    if fragment.offset + len(packet.payload) > MAXIMUM_PAYLOAD:
        # The field of the fragment header, which lies directly before the payload.
        return IcmpParameterProblem(V6_ERRONEOUS_HEADER, packet.payload_offset - 6, data)
    return None
