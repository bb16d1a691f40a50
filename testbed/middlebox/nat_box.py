"""Network address translators, NAT44 and NAT66: the inside appears under one outer address.

The outer address lies in the network beyond the box, whose nodes ask for it by ARP or neighbour discovery;
the box asks on inside for its neighbour there, and translates the answer. Connections of TCP that begin
inside pass, and ICMP errors about them. Nobody outside reaches an inner address.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from mptcp_stack.wire.addresses import is_link_local, is_multicast, is_unspecified
from mptcp_stack.wire.checksum import checksum_of, pseudo_header_sum
from mptcp_stack.wire.ip_packet import PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP
from mptcp_stack.wire.neighbour_discovery import solicited_node_group
from testbed.middlebox.nat_table import Mapping, NatTable
from testbed.middlebox.segment import FIN, RST, Segment
from testbed.middlebox.settings import Nat44, Nat66

_NETWORK: Final = 14
_ARP, _IPV4, _IPV6 = b"\x08\x06", b"\x08\x00", b"\x86\xdd"
_ARP_SENDER: Final = slice(_NETWORK + 14, _NETWORK + 18)
_ARP_TARGET: Final = slice(_NETWORK + 24, _NETWORK + 28)
_ARP_LENGTH: Final = _NETWORK + 28
_V6_SOURCE: Final = slice(_NETWORK + 8, _NETWORK + 24)
_V6_DESTINATION: Final = slice(_NETWORK + 24, _NETWORK + 40)
_V6_PAYLOAD: Final = _NETWORK + 40
_ND_TARGET: Final = slice(_V6_PAYLOAD + 8, _V6_PAYLOAD + 24)
_SOLICITATION, _ADVERTISEMENT = 135, 136
_ICMPV4_ERRORS: Final = frozenset({3, 11, 12})
_ICMPV6_ERRORS: Final = frozenset({1, 2, 3, 4})
_ERROR_HEADER_BYTES: Final = 8


class NatBox:
    """See :class:`testbed.middlebox.settings.Nat44`. It acts from the inside to the outside."""

    def __init__(self, settings: Nat44 | Nat66, seed: int, clock: Callable[[], int]) -> None:
        """``clock``: the time in us."""
        self._outer = ip_address(settings.address).packed
        self._table = NatTable(seed, settings.idle_timeout_us)
        self._clock = clock
        self._neighbour: bytes | None = None
        """Who answers inside for the outer address."""

    def pass_with(self, segment: Segment) -> list[Segment]:
        if len(segment.source) != len(self._outer):
            return [segment]
        now_us = self._clock()
        mapping = self._table.outbound(segment.source, segment.source_port, now_us)
        if mapping is None:
            return []
        self._neighbour = self._neighbour or segment.source
        self._note(mapping, segment, now_us, from_outside=False)
        return [replace(segment, source=self._outer, source_port=mapping.outer_port)]

    def pass_against(self, segment: Segment) -> list[Segment]:
        if len(segment.source) != len(self._outer):
            return [segment]
        now_us = self._clock()
        mapping = self._table.inbound(segment.destination_port, now_us)
        if mapping is None or segment.destination != self._outer:
            return []
        self._note(mapping, segment, now_us, from_outside=True)
        return [replace(segment, destination=mapping.inner_address, destination_port=mapping.inner_port)]

    def _note(self, mapping: Mapping, segment: Segment, now_us: int, *, from_outside: bool) -> None:
        closes = bool(segment.flags & (FIN | RST))
        self._table.used(mapping, now_us, from_outside=from_outside, closes=closes)

    def pass_frame_with(self, frame: bytes) -> list[bytes]:
        """What holds no segment of TCP, from inside."""
        return self._pass_frame(frame, from_outside=False)

    def pass_frame_against(self, frame: bytes) -> list[bytes]:
        return self._pass_frame(frame, from_outside=True)

    def _pass_frame(self, frame: bytes, *, from_outside: bool) -> list[bytes]:
        ether_type = frame[12:14]
        if len(self._outer) == 4:
            if ether_type == _ARP and len(frame) >= _ARP_LENGTH:
                return self._resolution(bytearray(frame), from_outside=from_outside)
            if ether_type == _IPV4:
                return self._ipv4_error(bytearray(frame), from_outside=from_outside)
        elif ether_type == _IPV6:
            return self._ipv6(bytearray(frame), from_outside=from_outside)
        return [frame]

    def _resolution(self, frame: bytearray, *, from_outside: bool) -> list[bytes]:
        """ARP: outside it is the outer address that speaks, inside the neighbour that is spoken to."""
        if not from_outside:
            if any(frame[_ARP_SENDER]):
                self._neighbour = bytes(frame[_ARP_SENDER])
                frame[_ARP_SENDER] = self._outer
        elif frame[_ARP_TARGET] != self._outer or self._neighbour is None:
            return []
        else:
            frame[_ARP_TARGET] = self._neighbour
        return [bytes(frame)]

    def _ipv6(self, frame: bytearray, *, from_outside: bool) -> list[bytes]:
        if len(frame) < _V6_PAYLOAD + _ERROR_HEADER_BYTES:
            return []
        if frame[_NETWORK + 6] != PROTOCOL_ICMPV6:
            # Extension headers before what is for a link only, as of multicast listeners, or unknown things.
            return [bytes(frame)] if is_multicast(bytes(frame[_V6_DESTINATION])) else []
        kind = frame[_V6_PAYLOAD]
        if kind in (_SOLICITATION, _ADVERTISEMENT) and len(frame) >= _ND_TARGET.stop:
            return self._discovery(frame, from_outside=from_outside)
        if kind in _ICMPV6_ERRORS:
            quoted = _V6_PAYLOAD + _ERROR_HEADER_BYTES
            if not self._error(frame, _V6_SOURCE, _V6_DESTINATION, quoted, from_outside=from_outside):
                return []
            _finish_icmpv6(frame)
            return [bytes(frame)]
        ends = bytes(frame[_V6_SOURCE]), bytes(frame[_V6_DESTINATION])
        return [bytes(frame)] if any(is_link_local(end) or is_multicast(end) for end in ends) else []

    def _discovery(self, frame: bytearray, *, from_outside: bool) -> list[bytes]:
        """Neighbour discovery (RFC 4861), as :meth:`_resolution`."""
        if from_outside:
            return self._discovery_from_outside(frame)
        source = bytes(frame[_V6_SOURCE])
        if not is_link_local(source) and not is_unspecified(source):
            self._neighbour = source
            frame[_V6_SOURCE] = self._outer
        if frame[_V6_PAYLOAD] == _ADVERTISEMENT and bytes(frame[_ND_TARGET]) == self._neighbour:
            frame[_ND_TARGET] = self._outer
        _finish_icmpv6(frame)
        return [bytes(frame)]

    def _discovery_from_outside(self, frame: bytearray) -> list[bytes]:
        target, destination = bytes(frame[_ND_TARGET]), bytes(frame[_V6_DESTINATION])
        asks = frame[_V6_PAYLOAD] == _SOLICITATION
        if asks and not is_link_local(target):
            if target != self._outer or self._neighbour is None:
                return []
            frame[_ND_TARGET] = self._neighbour
            if is_multicast(destination):
                group = solicited_node_group(self._neighbour)
                frame[_V6_DESTINATION] = group
                frame[:6] = b"\x33\x33" + group[12:]
        if destination == self._outer and self._neighbour is not None:
            frame[_V6_DESTINATION] = self._neighbour
        _finish_icmpv6(frame)
        return [bytes(frame)]

    def _ipv4_error(self, frame: bytearray, *, from_outside: bool) -> list[bytes]:
        if len(frame) < _NETWORK + 20:
            return []
        header_bytes = (frame[_NETWORK] & 0xF) * 4
        icmp = _NETWORK + header_bytes
        source, destination = (slice(_NETWORK + place, _NETWORK + place + 4) for place in (12, 16))
        if (
            frame[_NETWORK + 9] != PROTOCOL_ICMP
            or len(frame) < icmp + _ERROR_HEADER_BYTES + 20
            or frame[icmp] not in _ICMPV4_ERRORS
        ):
            return []
        quoted = icmp + _ERROR_HEADER_BYTES
        if not self._error(frame, source, destination, quoted, from_outside=from_outside):
            return []
        end = _NETWORK + int.from_bytes(frame[_NETWORK + 2 : _NETWORK + 4], "big")
        _finish(frame, slice(quoted, quoted + (frame[quoted] & 0xF) * 4), 10)
        _finish(frame, slice(_NETWORK, icmp), 10)
        _finish(frame, slice(icmp, end), 2)
        return [bytes(frame)]

    def _error(
        self, frame: bytearray, source: slice, destination: slice, quoted: int, *, from_outside: bool
    ) -> bool:
        """Translate the addresses of an error, and of the packet that it quotes; whether that is known.

        One from outside quotes what was sent, and so has our outer address as its source; one from inside
        quotes what came in.
        """
        size = len(self._outer)
        is_ipv4 = size == 4
        if len(frame) < quoted + (20 if is_ipv4 else 40):
            return False
        addresses = quoted + (12 if is_ipv4 else 8) + (0 if from_outside else size)
        protocol = frame[quoted + (9 if is_ipv4 else 6)]
        header_bytes = (frame[quoted] & 0xF) * 4 if is_ipv4 else 40
        ports = quoted + header_bytes + (0 if from_outside else 2)
        if protocol != PROTOCOL_TCP or len(frame) < ports + 2:
            return False
        address, port = (
            bytes(frame[addresses : addresses + size]),
            int.from_bytes(frame[ports : ports + 2], "big"),
        )
        now_us = self._clock()
        if from_outside:
            mapping = self._table.inbound(port, now_us) if address == self._outer else None
            if mapping is None or frame[destination] != self._outer:
                return False
            frame[destination] = frame[addresses : addresses + size] = mapping.inner_address
            frame[ports : ports + 2] = mapping.inner_port.to_bytes(2, "big")
        else:
            mapping = self._table.known(address, port, now_us)
            if mapping is None:
                return False
            frame[source] = frame[addresses : addresses + size] = self._outer
            frame[ports : ports + 2] = mapping.outer_port.to_bytes(2, "big")
        return True


def _finish(frame: bytearray, part: slice, place: int) -> None:
    """The checksum over a part of a frame, at a place in it; a part that is cut short keeps what it has."""
    start = part.start + place
    if len(frame) < part.stop or start + 2 > part.stop:
        return
    frame[start : start + 2] = b"\0\0"
    frame[start : start + 2] = checksum_of((frame[part],)).to_bytes(2, "big")


def _finish_icmpv6(frame: bytearray) -> None:
    end = _V6_PAYLOAD + int.from_bytes(frame[_NETWORK + 4 : _NETWORK + 6], "big")
    start = _V6_PAYLOAD + 2
    frame[start : start + 2] = b"\0\0"
    total = pseudo_header_sum(
        bytes(frame[_V6_SOURCE]), bytes(frame[_V6_DESTINATION]), PROTOCOL_ICMPV6, end - _V6_PAYLOAD
    )
    frame[start : start + 2] = checksum_of((frame[_V6_PAYLOAD:end],), total).to_bytes(2, "big")
