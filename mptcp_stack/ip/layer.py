"""The IP layer of a host: frames in, datagrams up; segments down, frames out.

A packet's way in: `IpLayer.receive` → Ethernet → ARP, or IP → address checks → neighbour discovery, ICMP, or
a `Datagram` for TCP. Its way out: `IpLayer.send` → `output.PacketOutput` → neighbour → `IpLayer.take_frames`.

Every packet that goes nowhere is counted by its reason. Fragments are put together; none is ever sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mptcp_stack.counters import Counters
from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.ip.address_resolution import AddressResolution
from mptcp_stack.ip.datagrams import Datagram, DroppedPacketError, IcmpError, IcmpErrorKind
from mptcp_stack.ip.echo import EchoRequests
from mptcp_stack.ip.host_configuration import HostConfiguration
from mptcp_stack.ip.icmp_input import IcmpInput
from mptcp_stack.ip.icmp_output import IcmpOutput
from mptcp_stack.ip.interface import Interface, InterfaceAddress, LinkType
from mptcp_stack.ip.neighbour_discovery import NeighbourDiscovery
from mptcp_stack.ip.neighbours import REACHABLE_TIME_US, NeighbourCache
from mptcp_stack.ip.output import PacketOutput, Path
from mptcp_stack.ip.reassembly import FragmentReassembly, ipv6_fragment_defect
from mptcp_stack.ip.routing import Route, RoutingTable
from mptcp_stack.wire import icmp
from mptcp_stack.wire.addresses import is_link_local, is_loopback, is_multicast, is_unspecified, unmap
from mptcp_stack.wire.checksum import ones_complement_sum, pseudo_header_sum
from mptcp_stack.wire.ethernet import (
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    HEADER_LENGTH,
    EthernetHeader,
    parse_ethernet,
)
from mptcp_stack.wire.frame import Buffer, ChecksumState, Frame
from mptcp_stack.wire.ip_packet import (
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_TCP,
    Fragment,
    IpPacket,
    enter_reassembled,
    parse_ipv4,
    parse_ipv6,
)
from mptcp_stack.wire.neighbour_discovery import NEIGHBOUR_DISCOVERY_TYPES

__all__ = ["Datagram", "IcmpError", "IcmpErrorKind", "IpLayer"]


class IpLayer:
    """Interfaces, addresses, routes and neighbours of one host, and the packets between them and TCP.

    Ethernet interfaces resolve their next hops by ARP and NDP; duplicate address detection is not done.
    Addresses are packed bytes of length 4 or 16, never IPv4-mapped; time is microseconds handed in.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._configuration = HostConfiguration()
        self._resolution: dict[int, AddressResolution] = {}
        self._discovery: dict[int, NeighbourDiscovery] = {}
        self._caches: tuple[NeighbourCache, ...] = ()
        self._output = PacketOutput(self._configuration, counters, self._neighbours_of)
        self.on_path_mtu_change: Callable[[bytes | None], None] = lambda destination: None
        """Told of a destination, or of None for all of them, when `path_mtu` has changed."""
        self.takes_for_others: Callable[[IpPacket], bool] = lambda packet: False
        """Asked of TCP's packets to addresses that are not ours: whether they are taken all the same."""
        self._icmp_output = IcmpOutput(self._configuration, self._output, counters)
        self._icmp_input = IcmpInput(self._configuration, self._icmp_output, counters)
        self.echo_requests = EchoRequests(self._configuration, self._icmp_output)
        self._icmp_input.take_echo_reply = self.echo_requests.take_reply
        self._reassembly = {
            4: FragmentReassembly(counters, is_ipv6=False),
            16: FragmentReassembly(counters, is_ipv6=True),
        }

    @property
    def interfaces(self) -> list[Interface]:
        """The interfaces with a device, in the order in which they were added."""
        return self._configuration.interfaces

    @property
    def loopback(self) -> Interface:
        """The interface over which this host talks to itself."""
        return self._configuration.loopback

    @property
    def neighbour_caches(self) -> tuple[NeighbourCache, ...]:
        """What is known of neighbours: for each Ethernet interface one cache for IPv4 and one for IPv6."""
        return self._caches

    @property
    def cached_paths(self) -> int:
        """The number of address pairs whose headers are kept ready."""
        return self._output.cached_paths

    @property
    def routes(self) -> RoutingTable:
        """The routing table; connected routes come and go with the interfaces' addresses."""
        return self._configuration.routes

    def add_interface(
        self,
        name: str,
        *,
        link_type: LinkType,
        mac: bytes = b"",
        mtu: int = 1500,
        addresses: Iterable[InterfaceAddress] = (),
        checksum_offload: bool = False,
        gso_max_size: int = 0,
        generic_segmentation: bool = True,
    ) -> Interface:
        """Add an interface, up. Raises ConfigurationError for values that make no sense.

        An Ethernet interface also gets the link-local IPv6 address of its MAC (RFC 4291 appendix A).
        """
        added = self._configuration.add_interface(
            name,
            link_type=link_type,
            mac=mac,
            mtu=mtu,
            addresses=addresses,
            checksum_offload=checksum_offload,
            gso_max_size=gso_max_size,
            generic_segmentation=generic_segmentation,
        )
        if link_type is LinkType.ETHERNET:
            resolution = AddressResolution(added, self._output, self._counters, self._configuration.is_local)
            discovery = NeighbourDiscovery(added, self._output, self._counters)
            self._resolution[added.index] = resolution
            self._discovery[added.index] = discovery
            self._caches += (resolution.cache, discovery.cache)
        return added

    def interface(self, name: str) -> Interface:
        """The interface of that name; raises ConfigurationError if there is none."""
        return self._configuration.interface(name)

    def add_address(self, interface: Interface, address: InterfaceAddress) -> None:
        """Add an address and its connected route. Raises ConfigurationError."""
        self._configuration.add_address(interface, address)

    def remove_address(self, interface: Interface, address: bytes) -> None:
        """Remove an address and its connected route. Raises ConfigurationError."""
        self._configuration.remove_address(interface, address)

    def set_up(self, interface: Interface, is_up: bool) -> None:
        """Take an interface up or down; going down forgets its neighbours and drops what it has queued."""
        self._configuration.set_up(interface, is_up)
        if is_up:
            return
        self._output.drop_queued(interface)
        for length in (4, 16):
            cache = self._neighbours_of(interface, length)
            if cache is not None:
                cache.clear()

    def set_mtu(self, interface: Interface, mtu: int) -> None:
        """Change an interface's MTU (bytes of an IP packet). Raises ConfigurationError."""
        self._configuration.set_mtu(interface, mtu)
        self.on_path_mtu_change(None)

    def path_mtu(self, source: bytes, destination: bytes) -> int:
        """Bytes of the largest packet that is believed to arrive there."""
        return self._output.path_mtu(source, destination)

    def learn_path_mtu(self, source: bytes, destination: bytes, mtu: int, now_us: int) -> None:
        """A believable error says that no more fits the path (RFC 1191, RFC 8201)."""
        if self._output.learn_path_mtu(source, destination, mtu, now_us):
            self.on_path_mtu_change(destination)

    def is_local(self, address: bytes) -> bool:
        """Whether ``address`` is one of this host's, on an interface that is up, or a loopback address."""
        return self._configuration.is_local(address)

    def send_for_others(self) -> None:
        """From now on packets may leave from addresses that are not this host's."""
        self._configuration.sends_for_others = True

    def route_for(self, destination: bytes, source: bytes | None) -> Route | None:
        """The route for a packet; over `loopback` if ``destination`` is local; None if there is none."""
        return self._configuration.route_for(destination, source)

    def select_source(self, destination: bytes) -> bytes | None:
        """The address to reach ``destination`` from (RFC 6724 §5, reduced); None if it cannot be reached."""
        return self._configuration.select_source(destination)

    def send(
        self,
        source: bytes,
        destination: bytes,
        protocol: int,
        head: bytearray,
        payload: tuple[Buffer, ...],
        *,
        checksum_offset: int,
        gso_size: int = 0,
        traffic_class: int = 0,
        now_us: int,
    ) -> bool:
        """Queue one transport segment, or super-segment where the route's interface takes those.

        ``head`` is the transport header; its checksum at ``checksum_offset`` is filled in here. ``payload``
        is passed on as it is and must stay unchanged until the frame has been sent. A packet to an unresolved
        neighbour waits; one to an address of this host is found in `take_looped`. One that exceeds the MTU is
        dropped, and reported by `take_errors`. Returns False if there is no route, or ``source`` is no
        address of this host.
        """
        return self._output.send(
            source,
            destination,
            protocol,
            head,
            payload,
            checksum_offset=checksum_offset,
            gso_size=gso_size,
            traffic_class=traffic_class,
            now_us=now_us,
        )

    def take_frames(self) -> list[tuple[Interface, Frame]]:
        """All queued outgoing frames, in order."""
        return self._output.take_frames()

    def take_looped(self) -> list[Datagram]:
        """All datagrams from this host to itself, in order."""
        return self._output.take_looped()

    def take_errors(self) -> list[IcmpError]:
        """Errors that this host itself found out: neighbours that do not answer, packets beyond the MTU."""
        return self._output.take_errors()

    def next_deadline_us(self) -> int | None:
        """When `handle_deadline` has something to do; None while nothing waits."""
        earliest_us: int | None = None
        for cache in self._caches:
            deadline_us = cache.next_deadline_us
            if deadline_us is not None and (earliest_us is None or deadline_us < earliest_us):
                earliest_us = deadline_us
        others = [each.next_deadline_us for each in self._reassembly.values()]
        for deadline_us in (*others, self._output.path_mtus.next_deadline_us):
            if deadline_us is not None and (earliest_us is None or deadline_us < earliest_us):
                earliest_us = deadline_us
        return earliest_us

    def handle_deadline(self, now_us: int) -> None:
        """Repeat requests for neighbours; give up silent ones, incomplete packets, old path MTUs."""
        for cache in self._caches:
            cache.handle_deadline(now_us)
        for reassembly in self._reassembly.values():
            for incomplete in reassembly.take_expired(now_us):
                if incomplete.first is not None:
                    message = icmp.IcmpTimeExceeded(icmp.REASSEMBLY_TIME_EXCEEDED, incomplete.first_bytes)
                    self._icmp_output.send_error(
                        message, incomplete.first, now_us, content=incomplete.pieces[0]
                    )
        for destination in self._output.path_mtus.take_expired(now_us):
            self._configuration.routes.invalidate()
            self.on_path_mtu_change(destination)

    def receive(self, frame: Frame, interface: Interface, now_us: int) -> Datagram | IcmpError | None:
        """Take one frame from a device.

        Returns what TCP has to handle; None for all that was answered here, or counted and dropped. The
        payload of the result is a view of ``frame.head``.
        """
        try:
            return self._receive(frame, interface, now_us)
        except DroppedPacketError as dropped:
            self._counters.increment(dropped.reason)
            return None

    def _receive(self, frame: Frame, interface: Interface, now_us: int) -> Datagram | IcmpError | None:
        if not interface.is_up:
            raise DroppedPacketError("StackDropInterfaceDown")
        data = memoryview(frame.to_bytes() if frame.payload else frame.head)
        if interface.link_type is LinkType.RAW_IP:
            return self._receive_without_link(data, frame, interface, now_us)
        try:
            link = parse_ethernet(data)
        except MalformedPacketError:
            raise DroppedPacketError("StackDropMalformedEthernet") from None
        if link.source[0] & 1:
            raise DroppedPacketError("StackDropMalformedEthernet")
        if link.destination != interface.mac and not link.destination[0] & 1:
            raise DroppedPacketError("StackDropNotForUs")
        data = data[HEADER_LENGTH:]
        if link.ether_type == ETHERTYPE_IPV4:
            return self._receive_ipv4(data, frame, interface, link, now_us)
        if link.ether_type == ETHERTYPE_IPV6:
            return self._receive_ipv6(data, frame, interface, link, now_us)
        if link.ether_type == ETHERTYPE_ARP:
            resolution = self._resolution[interface.index]
            resolution.receive(data, is_unicast=not link.destination[0] & 1, now_us=now_us)
            return None
        raise DroppedPacketError("StackDropUnknownProtocol")

    def _receive_without_link(
        self, data: memoryview, frame: Frame, interface: Interface, now_us: int
    ) -> Datagram | IcmpError | None:
        version = data[0] >> 4 if data else 0
        if version == 4:
            return self._receive_ipv4(data, frame, interface, None, now_us)
        if version == 6:
            return self._receive_ipv6(data, frame, interface, None, now_us)
        raise DroppedPacketError("StackDropMalformedIp")

    def _receive_ipv4(
        self, data: memoryview, frame: Frame, interface: Interface, link: EthernetHeader | None, now_us: int
    ) -> Datagram | IcmpError | None:
        self._counters.increment("IpInReceives")
        try:
            packet = parse_ipv4(data)
        except MalformedPacketError:
            self._counters.increment("IpInHdrErrors")
            raise DroppedPacketError("StackDropMalformedIp") from None
        self._counters.increment(
            _ECN_COUNTERS_V4[packet.traffic_class & 3], _segments_of(frame, packet) if frame.gso_size else 1
        )
        if packet.protocol == PROTOCOL_TCP and packet.fragment is None:
            return self._receive_tcp(packet, frame, interface, link, now_us)
        if packet.fragment is not None:
            return self._receive_fragment(packet, packet.fragment, data, interface, link, now_us)
        return self._receive_other(packet, frame, interface, link, now_us)

    def _receive_ipv6(
        self, data: memoryview, frame: Frame, interface: Interface, link: EthernetHeader | None, now_us: int
    ) -> Datagram | IcmpError | None:
        self._counters.increment("Ip6InReceives")
        try:
            packet = parse_ipv6(data)
        except MalformedPacketError:
            self._counters.increment("Ip6InHdrErrors")
            raise DroppedPacketError("StackDropMalformedIp") from None
        self._counters.increment(
            _ECN_COUNTERS_V6[packet.traffic_class & 3], _segments_of(frame, packet) if frame.gso_size else 1
        )
        if packet.protocol == PROTOCOL_TCP and packet.fragment is None:
            return self._receive_tcp(packet, frame, interface, link, now_us)
        if packet.fragment is not None:
            return self._receive_fragment(packet, packet.fragment, data, interface, link, now_us)
        return self._receive_other(packet, frame, interface, link, now_us)

    def _receive_tcp(
        self,
        packet: IpPacket,
        frame: Frame,
        interface: Interface,
        link: EthernetHeader | None,
        now_us: int,
    ) -> Datagram:
        source, destination, payload = packet.source, packet.destination, packet.payload
        # A path back over the interface it came from vouches for both addresses: it passed the same checks.
        path = self._output.cached_path(destination, source, PROTOCOL_TCP)
        if path is None or path.interface is not interface:
            problem = self._address_problem(packet, interface)
            if problem is not None:
                raise self._address_error(problem, packet)
        if link is not None and link.destination != interface.mac:
            # RFC 1122 §4.2.3.10: TCP takes nothing that was sent to many.
            raise self._address_error("StackDropNotForUs", packet)
        if frame.checksum is ChecksumState.UNVERIFIED and not _transport_checksum_is_good(packet, path):
            for name in ("TcpInSegs", "TcpInErrs", "TcpInCsumErrors"):
                self._counters.increment(name)
            raise DroppedPacketError("StackDropBadChecksum")
        if path is not None and link is not None:
            neighbour = path.neighbour
            if neighbour is not None and neighbour.mac == link.source:
                neighbour.reachable_until_us = now_us + REACHABLE_TIME_US
        self._counters.increment("IpInDelivers" if len(source) == 4 else "Ip6InDelivers")
        return Datagram(
            source, destination, PROTOCOL_TCP, payload, interface, packet.traffic_class, frame.gso_size
        )

    def _receive_fragment(
        self,
        packet: IpPacket,
        fragment: Fragment,
        data: memoryview,
        interface: Interface,
        link: EthernetHeader | None,
        now_us: int,
    ) -> Datagram | IcmpError | None:
        problem = self._address_problem(packet, interface)
        if problem is not None:
            raise self._address_error(problem, packet)
        is_ipv6 = len(packet.source) == 16
        reassembly = self._reassembly[len(packet.source)]
        if is_ipv6 and (defect := ipv6_fragment_defect(packet, fragment, data)) is not None:
            self._counters.increment("Ip6InHdrErrors")
            self._icmp_output.send_error(defect, packet, now_us)
            raise DroppedPacketError("StackDropMalformedIp")
        whole = reassembly.receive(packet, fragment, data, interface.index, now_us)
        if whole is None:
            return None
        if is_ipv6:
            try:
                enter_reassembled(whole)
            except MalformedPacketError:
                self._counters.increment("Ip6InHdrErrors")
                raise DroppedPacketError("StackDropMalformedIp") from None
            if _is_neighbour_discovery(whole):
                # RFC 6980 §5: they fit into one packet, and nobody on the way could judge their pieces.
                raise DroppedPacketError("StackDropIgnoredIcmp")
        if whole.protocol == PROTOCOL_TCP:
            return self._receive_tcp(whole, _REASSEMBLED, interface, link, now_us)
        return self._receive_other(whole, _REASSEMBLED, interface, link, now_us)

    def _receive_other(
        self,
        packet: IpPacket,
        frame: Frame,
        interface: Interface,
        link: EthernetHeader | None,
        now_us: int,
    ) -> IcmpError | None:
        problem = self._address_problem(packet, interface)
        if problem is not None:
            raise self._address_error(problem, packet)
        is_ipv6 = len(packet.source) == 16
        if packet.protocol != (PROTOCOL_ICMPV6 if is_ipv6 else PROTOCOL_ICMP):
            self._counters.increment("Ip6InUnknownProtos" if is_ipv6 else "IpInUnknownProtos")
            raise DroppedPacketError("StackDropUnknownProtocol")
        if not is_ipv6 and link is not None and link.destination != interface.mac:
            raise self._address_error("StackDropNotForUs", packet)
        self._counters.increment("Ip6InDelivers" if is_ipv6 else "IpInDelivers")
        self._counters.increment("Icmp6InMsgs" if is_ipv6 else "IcmpInMsgs")
        if frame.checksum is ChecksumState.UNVERIFIED and not _icmp_checksum_is_good(packet):
            if not is_ipv6:
                self._counters.increment("IcmpInCsumErrors")
            self._counters.increment("Icmp6InErrors" if is_ipv6 else "IcmpInErrors")
            raise DroppedPacketError("StackDropBadChecksum")
        return self._receive_icmp(packet, interface, link, now_us)

    def _receive_icmp(
        self, packet: IpPacket, interface: Interface, link: EthernetHeader | None, now_us: int
    ) -> IcmpError | None:
        if _is_neighbour_discovery(packet):
            if link is None:
                raise DroppedPacketError("StackDropIgnoredIcmp")
            self._discovery[interface.index].receive(packet, sender_mac=link.source, now_us=now_us)
            return None
        if is_unspecified(packet.source):
            raise self._address_error("StackDropMartian", packet)
        return self._icmp_input.receive(packet, interface, now_us)

    def _address_problem(self, packet: IpPacket, interface: Interface) -> str | None:
        """Why a packet between these addresses must not be taken, as the counter of the reason."""
        configuration, source, destination = self._configuration, packet.source, packet.destination
        is_icmpv6 = len(source) == 16 and packet.protocol == PROTOCOL_ICMPV6
        if (
            is_multicast(source)
            or is_loopback(source)
            or configuration.is_local(source)
            or configuration.is_broadcast(source)
            # Only a node that has no address yet may send from "::", to ask for one in ICMPv6.
            or (is_unspecified(source) and not is_icmpv6)
            or is_loopback(destination)
            # On the wire those are forgeries: above this layer they would pass for IPv4 (as in Linux).
            or unmap(source) is not source
        ):
            return "StackDropMartian"
        if len(destination) == 16:
            if is_multicast(destination):
                discovery = self._discovery.get(interface.index)
                joined = is_icmpv6 and discovery is not None and discovery.joined(destination)
                return None if joined else "StackDropNotForUs"
            if is_link_local(destination):
                return None if interface.owns(destination) else "StackDropNotForUs"
        if configuration.is_local(destination):
            return None
        is_for_one = not (configuration.is_broadcast(destination) or is_multicast(destination))
        is_taken = is_for_one and packet.protocol == PROTOCOL_TCP and self.takes_for_others(packet)
        return None if is_taken else "StackDropNotForUs"

    def _neighbours_of(self, interface: Interface, address_length: int) -> NeighbourCache | None:
        if interface.link_type is LinkType.RAW_IP:
            return None
        side = self._resolution if address_length == 4 else self._discovery
        return side[interface.index].cache

    def _address_error(self, reason: str, packet: IpPacket) -> DroppedPacketError:
        self._counters.increment("Ip6InAddrErrors" if len(packet.source) == 16 else "IpInAddrErrors")
        return DroppedPacketError(reason)


def _is_neighbour_discovery(packet: IpPacket) -> bool:
    if packet.protocol != PROTOCOL_ICMPV6 or not packet.payload:
        return False
    return packet.payload[0] in NEIGHBOUR_DISCOVERY_TYPES


# In the order of the field's values.
_ECN_COUNTERS_V4 = ("IpExtInNoECTPkts", "IpExtInECT1Pkts", "IpExtInECT0Pkts", "IpExtInCEPkts")
_ECN_COUNTERS_V6 = ("Ip6InNoECTPkts", "Ip6InECT1Pkts", "Ip6InECT0Pkts", "Ip6InCEPkts")


def _segments_of(frame: Frame, packet: IpPacket) -> int:
    """How many packets a wire would have carried, as far as the TCP header tells."""
    length = len(packet.payload)
    header_length = packet.payload[12] >> 4 << 2 if length > _LEAST_TCP_HEADER else length
    return max(1, -(-(length - header_length) // frame.gso_size))


_LEAST_TCP_HEADER = 20
_REASSEMBLED = Frame(b"")
"""In the place of a frame whose device could have judged the checksum."""


def _transport_checksum_is_good(packet: IpPacket, path: Path | None) -> bool:
    """``path``: the way back to the sender, whose pseudo-header has the same sum but for the length."""
    length = len(packet.payload)
    if path is None:
        initial = pseudo_header_sum(packet.source, packet.destination, packet.protocol, length)
    else:
        initial = path.pseudo_sum + length
    return (initial + ones_complement_sum(packet.payload)) % 0xFFFF == 0


def _icmp_checksum_is_good(packet: IpPacket) -> bool:
    if len(packet.source) == 16:
        return icmp.icmpv6_checksum_is_good(packet.payload, packet.source, packet.destination)
    return icmp.icmpv4_checksum_is_good(packet.payload)
