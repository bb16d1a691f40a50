"""ARP (RFC 826) for one Ethernet interface: answers for its addresses, asks for those of others."""

from __future__ import annotations

from collections.abc import Callable

from mptcp_stack.counters import Counters
from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.ip.datagrams import DroppedPacketError
from mptcp_stack.ip.interface import Interface, is_usable_mac
from mptcp_stack.ip.neighbours import Neighbour, NeighbourActions, NeighbourCache
from mptcp_stack.ip.output import PacketOutput
from mptcp_stack.wire.addresses import is_loopback, is_multicast, is_unspecified
from mptcp_stack.wire.arp import ARP_REPLY, ARP_REQUEST, ArpPacket, emit_arp, parse_arp
from mptcp_stack.wire.ethernet import (
    BROADCAST,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    EthernetHeader,
    emit_ethernet,
)
from mptcp_stack.wire.frame import Frame

_UNKNOWN_MAC = bytes(6)


class AddressResolution:
    """The ARP side of an interface, with its neighbour cache.

    It answers for every address of the host, whichever interface has it (the weak host model, Linux's
    arp_ignore=0), and learns from senders within the interface's prefixes only. There is no duplicate address
    detection (RFC 5227).
    """

    def __init__(
        self,
        interface: Interface,
        output: PacketOutput,
        counters: Counters,
        is_local: Callable[[bytes], bool],
    ) -> None:
        self._interface = interface
        self._is_local = is_local
        self._output = output
        self._counters = counters
        self.cache = NeighbourCache(
            NeighbourActions(
                link_header=lambda mac: emit_ethernet(EthernetHeader(mac, interface.mac, ETHERTYPE_IPV4)),
                request=self._request,
                transmit=lambda frame: output.transmit(interface, frame),
                unresolved=output.report_unresolved,
            ),
            counters,
        )

    def receive(self, data: memoryview, *, is_unicast: bool, now_us: int) -> None:
        """Handle an ARP packet. Raises DroppedPacketError."""
        try:
            packet = parse_arp(data)
        except MalformedPacketError:
            raise DroppedPacketError("StackDropMalformedArp") from None
        if not is_usable_mac(packet.sender_mac):
            raise DroppedPacketError("StackDropMalformedArp")
        sender = packet.sender_address
        if packet.sender_mac == self._interface.mac or self._interface.owns(sender):
            # Our own packet come back, or somebody who uses our address: nothing to learn from either.
            raise DroppedPacketError("StackDropMartian")
        if is_multicast(sender) or is_loopback(sender) or sender == b"\xff\xff\xff\xff":
            raise DroppedPacketError("StackDropMartian")
        is_for_us = self._interface.owns(packet.target_address)
        may_learn = not is_unspecified(sender) and self._interface.is_on_link(sender)
        target = packet.target_address
        is_ours = is_for_us or (self._is_local(target) and not is_loopback(target))
        if packet.operation == ARP_REQUEST and is_ours:
            if may_learn:
                self.cache.learn(sender, packet.sender_mac, packet.target_address, now_us)
            self._reply(packet)
            return
        if may_learn:
            solicited = packet.operation == ARP_REPLY and is_for_us and is_unicast
            self.cache.advertised(
                sender, packet.sender_mac, solicited=solicited, override=True, now_us=now_us
            )
        if not is_for_us and sender != packet.target_address:
            raise DroppedPacketError("StackDropNotForUs")

    def _reply(self, request: ArpPacket) -> None:
        self._transmit(
            ArpPacket(
                ARP_REPLY,
                self._interface.mac,
                request.target_address,
                request.sender_mac,
                request.sender_address,
            ),
            request.sender_mac,
        )

    def _request(self, neighbour: Neighbour) -> None:
        request = ArpPacket(
            ARP_REQUEST, self._interface.mac, neighbour.source, _UNKNOWN_MAC, neighbour.address
        )
        # RFC 1122 §2.3.2.1: an address that was known is asked for at its old place first.
        self._transmit(request, neighbour.mac or BROADCAST)

    def _transmit(self, packet: ArpPacket, destination: bytes) -> None:
        header = EthernetHeader(destination, self._interface.mac, ETHERTYPE_ARP)
        self._output.transmit(self._interface, Frame(emit_ethernet(header) + emit_arp(packet)))
