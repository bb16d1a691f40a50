"""Nodes that pass packets on: routers (RFC 1812 §5.2, RFC 8200) and switches, as simulated nodes.

A router answers for its own addresses with the bundled IP layer. Its neighbours' MAC addresses come from the
topology, so that a packet is forwarded at once; hosts resolve the router's as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mptcp_stack.counters import Counters
from mptcp_stack.ip.interface import Interface, LinkType
from mptcp_stack.ip.layer import IpLayer
from mptcp_stack.wire import icmp
from mptcp_stack.wire.addresses import is_link_local, is_multicast
from mptcp_stack.wire.ethernet import (
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    HEADER_LENGTH,
    EthernetHeader,
    emit_ethernet,
)
from mptcp_stack.wire.frame import ChecksumState, Frame
from mptcp_stack.wire.ip_packet import PROTOCOL_ICMP, PROTOCOL_ICMPV6, emit_ipv4_header, emit_ipv6_header
from testbed.backend.simulated.packet_filter import PacketFilter

_QUOTED_BYTES = 500
_IN_TRANSIT = 0
"""The code of Time Exceeded that routers send (RFC 792, RFC 4443 §3.3)."""
_TTL = {ETHERTYPE_IPV4: HEADER_LENGTH + 8, ETHERTYPE_IPV6: HEADER_LENGTH + 7}
_SOURCE = {ETHERTYPE_IPV4: slice(26, 30), ETHERTYPE_IPV6: slice(22, 38)}
_DESTINATION = {ETHERTYPE_IPV4: slice(30, 34), ETHERTYPE_IPV6: slice(38, 54)}
_V4_CHECKSUM = slice(24, 26)

Outgoing = list[tuple[Interface, Frame]]


class Router:
    """See :class:`mptcp_stack.driver.DrivenStack`."""

    def __init__(self, neighbours: Mapping[bytes, bytes]) -> None:
        """``neighbours``: packed address → MAC address of every interface of the topology."""
        self.counters = Counters()
        self.ip = IpLayer(self.counters)
        self._neighbours = neighbours
        self._outgoing: Outgoing = []
        self.unroutable = 0
        """Packets without a way on, which are dropped."""
        self.packet_filter: PacketFilter | None = None

    def receive_frame(self, frame: Frame, interface: Interface, now_us: int) -> None:
        head = bytes(frame.head)
        ether_type = int.from_bytes(head[12:14], "big")
        if head[:6] == interface.mac and ether_type in _TTL:
            destination = head[_DESTINATION[ether_type]]
            if self._is_refused("prerouting", frame, interface):
                return
            if not (self.ip.is_local(destination) or is_multicast(destination) or is_link_local(destination)):
                self._forward(frame, head, interface, ether_type)
                return
        self.ip.receive(frame, interface, now_us)

    def frames_to_send(self, now_us: int) -> Outgoing:
        outgoing, self._outgoing = self._outgoing, []
        return outgoing + self.ip.take_frames()

    def next_deadline_us(self) -> int | None:
        return self.ip.next_deadline_us()

    def handle_deadline(self, now_us: int) -> None:
        self.ip.handle_deadline(now_us)

    def _forward(self, frame: Frame, head: bytes, incoming: Interface, ether_type: int) -> None:
        if head[_TTL[ether_type]] <= 1:
            expired = icmp.IcmpTimeExceeded(_IN_TRANSIT, head[HEADER_LENGTH:][:_QUOTED_BYTES])
            self._report(expired, head, incoming, ether_type)
            return
        destination = head[_DESTINATION[ether_type]]
        route = self.ip.routes.lookup(destination, head[_SOURCE[ether_type]])
        mac = self._neighbours.get(route.gateway or destination) if route is not None else None
        if route is None or mac is None:
            self.unroutable += 1
            return
        if self._is_refused("forward", frame, incoming):
            return
        outgoing = route.interface
        if _packet_length(frame) > outgoing.mtu:
            self._report(_too_big(head, outgoing.mtu, ether_type), head, incoming, ether_type)
            return
        forwarded = bytearray(head)
        forwarded[:12] = mac + outgoing.mac
        _decrement_hop_limit(forwarded, ether_type)
        self._outgoing.append((outgoing, replace(frame, head=forwarded)))

    def _is_refused(self, hook: str, frame: Frame, incoming: Interface) -> bool:
        if self.packet_filter is None or self.packet_filter.hook != hook:
            return False
        refusal = self.packet_filter.refuses(frame, incoming.name)
        if refusal is not None and refusal.answer is not None:
            link = bytes(frame.head[6:12]) + incoming.mac
            self._outgoing.append((incoming, Frame(link + refusal.answer[len(link) :])))
        return refusal is not None

    def _report(self, message: icmp.IcmpMessage, head: bytes, incoming: Interface, ether_type: int) -> None:
        """An error to the sender, back the way that its packet came."""
        sender = head[_SOURCE[ether_type]]
        source = incoming.source_for(sender)
        if source is None:
            return
        if ether_type == ETHERTYPE_IPV4:
            encoded = icmp.emit_icmpv4(message)
            header = bytes(emit_ipv4_header(source, sender, PROTOCOL_ICMP, len(encoded), identification=0))
        else:
            encoded = icmp.emit_icmpv6(message, source, sender)
            header = bytes(emit_ipv6_header(source, sender, PROTOCOL_ICMPV6, len(encoded)))
        link = emit_ethernet(EthernetHeader(head[6:12], incoming.mac, ether_type))
        self._outgoing.append((incoming, Frame(link + header + encoded)))


def _too_big(head: bytes, mtu: int, ether_type: int) -> icmp.IcmpMessage:
    quoted = head[HEADER_LENGTH:][:_QUOTED_BYTES]
    if ether_type == ETHERTYPE_IPV6:
        return icmp.IcmpPacketTooBig(mtu, quoted)
    return icmp.IcmpDestinationUnreachable(icmp.V4_FRAGMENTATION_NEEDED, quoted, mtu)


def _packet_length(frame: Frame) -> int:
    """Of the IP packet; of a super-segment, that of its longest segment."""
    if not frame.gso_size or frame.checksum is not ChecksumState.PARTIAL:
        return len(frame) - HEADER_LENGTH
    tcp_header_bytes = (frame.head[frame.transport_offset + 12] >> 4) * 4
    return frame.transport_offset - HEADER_LENGTH + tcp_header_bytes + frame.gso_size


def _decrement_hop_limit(head: bytearray, ether_type: int) -> None:
    head[_TTL[ether_type]] -= 1
    if ether_type == ETHERTYPE_IPV4:
        # RFC 1141: the word with the TTL in its upper half became less by 0x0100
        total = int.from_bytes(head[_V4_CHECKSUM], "big") + 0x0100
        head[_V4_CHECKSUM] = ((total + (total >> 16)) & 0xFFFF).to_bytes(2, "big")


class Switch:
    """A learning bridge (IEEE 802.1D). See :class:`mptcp_stack.driver.DrivenStack`."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.interfaces: list[Interface] = []
        self._stations: dict[bytes, Interface] = {}
        self._outgoing: Outgoing = []

    def receive_frame(self, frame: Frame, interface: Interface, now_us: int) -> None:
        head = bytes(frame.head[:12])
        self._stations[head[6:]] = interface
        known = self._stations.get(head[:6])
        targets = [known] if known is not None else self.interfaces
        self._outgoing += [(target, frame) for target in targets if target is not interface]

    def add_port(self, name: str, mac: bytes, mtu: int) -> Interface:
        """One more, to plug a cable into."""
        port = Interface(len(self.interfaces) + 1, name, LinkType.ETHERNET, mac, mtu)
        self.interfaces.append(port)
        return port

    def unplugged(self, interface: Interface) -> None:
        """Nobody is behind this port any more."""
        self._stations = {mac: port for mac, port in self._stations.items() if port is not interface}

    def frames_to_send(self, now_us: int) -> Outgoing:
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def next_deadline_us(self) -> int | None:
        return None

    def handle_deadline(self, now_us: int) -> None:
        """Nothing here waits for time."""
