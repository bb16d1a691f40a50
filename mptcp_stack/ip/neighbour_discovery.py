"""Neighbour discovery (RFC 4861) for one Ethernet interface: the host's part of it, without routers.

Addresses and routes come from the configuration: router advertisements are counted and ignored. There is no
duplicate address detection (RFC 4862 §5.4), but a node that does it is told when it picks an address of ours.
"""

from __future__ import annotations

from mptcp_stack.counters import Counters
from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.ip.datagrams import DroppedPacketError
from mptcp_stack.ip.interface import Interface, is_usable_mac
from mptcp_stack.ip.neighbours import Neighbour, NeighbourActions, NeighbourCache
from mptcp_stack.ip.output import PacketOutput
from mptcp_stack.wire.addresses import is_multicast, is_unspecified
from mptcp_stack.wire.ethernet import ETHERTYPE_IPV6, EthernetHeader, emit_ethernet, multicast_mac
from mptcp_stack.wire.frame import Frame
from mptcp_stack.wire.ip_packet import PROTOCOL_ICMPV6, IpPacket, emit_ipv6_header
from mptcp_stack.wire.neighbour_discovery import (
    HOP_LIMIT,
    NeighbourAdvertisement,
    NeighbourDiscoveryMessage,
    NeighbourSolicitation,
    emit_neighbour_discovery,
    parse_neighbour_discovery,
    solicited_node_group,
)

ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")


class NeighbourDiscovery:
    """The NDP side of an interface, with its neighbour cache."""

    def __init__(self, interface: Interface, output: PacketOutput, counters: Counters) -> None:
        self._interface = interface
        self._output = output
        self._counters = counters
        self.cache = NeighbourCache(
            NeighbourActions(
                link_header=lambda mac: emit_ethernet(EthernetHeader(mac, interface.mac, ETHERTYPE_IPV6)),
                request=self._solicit,
                transmit=lambda frame: output.transmit(interface, frame),
                unresolved=output.report_unresolved,
            ),
            counters,
        )

    def joined(self, group: bytes) -> bool:
        """Whether the interface listens to a multicast group: all nodes, and its solicited-node groups."""
        return group == ALL_NODES or any(
            solicited_node_group(own.address) == group for own in self._interface.addresses_of_length(16)
        )

    def receive(self, packet: IpPacket, *, sender_mac: bytes, now_us: int) -> None:
        """Handle a message whose checksum is good. Raises DroppedPacketError."""
        if packet.hop_limit != HOP_LIMIT:
            # RFC 4861 §7.1: a packet with less has passed a router, so it does not come from this link.
            raise DroppedPacketError("StackDropMalformedIcmp")
        try:
            message = parse_neighbour_discovery(packet.payload)
        except MalformedPacketError:
            raise DroppedPacketError("StackDropMalformedIcmp") from None
        if isinstance(message, NeighbourSolicitation):
            self._counters.increment("Icmp6InNeighborSolicits")
            self._receive_solicitation(packet, message, sender_mac, now_us)
        elif isinstance(message, NeighbourAdvertisement):
            self._counters.increment("Icmp6InNeighborAdvertisements")
            self._receive_advertisement(packet, message, now_us)
        else:
            raise DroppedPacketError("StackDropIgnoredIcmp")

    def _receive_solicitation(
        self, packet: IpPacket, message: NeighbourSolicitation, sender_mac: bytes, now_us: int
    ) -> None:
        if message.source_mac is not None and not is_usable_mac(message.source_mac):
            raise DroppedPacketError("StackDropMalformedIcmp")
        if not self._interface.owns(message.target):
            raise DroppedPacketError("StackDropNotForUs")
        if is_unspecified(packet.source):
            if message.source_mac is not None or packet.destination != solicited_node_group(message.target):
                raise DroppedPacketError("StackDropMalformedIcmp")
            self._advertise(message.target, ALL_NODES, multicast_mac(ALL_NODES), is_solicited=False)
            return
        if message.source_mac is not None and self._interface.is_on_link(packet.source):
            self.cache.learn(packet.source, message.source_mac, message.target, now_us)
        self._advertise(message.target, packet.source, message.source_mac or sender_mac, is_solicited=True)

    def _receive_advertisement(self, packet: IpPacket, message: NeighbourAdvertisement, now_us: int) -> None:
        if message.is_solicited and is_multicast(packet.destination):
            raise DroppedPacketError("StackDropMalformedIcmp")
        mac = message.target_mac
        if mac is not None and not is_usable_mac(mac):
            raise DroppedPacketError("StackDropMalformedIcmp")
        if mac == self._interface.mac or self._interface.owns(message.target):
            raise DroppedPacketError("StackDropMartian")
        self.cache.advertised(
            message.target,
            mac,
            solicited=message.is_solicited,
            override=message.is_override,
            now_us=now_us,
        )

    def _advertise(self, target: bytes, destination: bytes, mac: bytes, *, is_solicited: bool) -> None:
        message = NeighbourAdvertisement(
            target, self._interface.mac, is_solicited=is_solicited, is_override=True
        )
        self._counters.increment("Icmp6OutNeighborAdvertisements")
        self._transmit(message, target, destination, mac)

    def _solicit(self, neighbour: Neighbour) -> None:
        message = NeighbourSolicitation(neighbour.address, self._interface.mac)
        destination, mac = neighbour.address, neighbour.mac
        if not mac:
            destination = solicited_node_group(neighbour.address)
            mac = multicast_mac(destination)
        self._counters.increment("Icmp6OutNeighborSolicits")
        self._transmit(message, neighbour.source, destination, mac)

    def _transmit(
        self, message: NeighbourDiscoveryMessage, source: bytes, destination: bytes, mac: bytes
    ) -> None:
        self._counters.increment("Ip6OutRequests")
        self._counters.increment("Icmp6OutMsgs")
        encoded = emit_neighbour_discovery(message, source, destination)
        head = b"".join(
            (
                emit_ethernet(EthernetHeader(mac, self._interface.mac, ETHERTYPE_IPV6)),
                emit_ipv6_header(source, destination, PROTOCOL_ICMPV6, len(encoded), hop_limit=HOP_LIMIT),
                encoded,
            )
        )
        self._output.transmit(self._interface, Frame(head, is_ipv6=True))
