"""The way out: route, neighbour and headers for every packet, with all that repeats kept per path."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from struct import Struct

from mptcp_stack.counters import Counters
from mptcp_stack.ip.datagrams import Datagram, IcmpError, IcmpErrorKind
from mptcp_stack.ip.host_configuration import MAXIMUM_CACHED, HostConfiguration
from mptcp_stack.ip.interface import Interface
from mptcp_stack.ip.neighbours import Neighbour, NeighbourCache, PendingPacket
from mptcp_stack.ip.path_mtu import PathMtus
from mptcp_stack.ip.segmenting import cut
from mptcp_stack.wire.addresses import is_link_local, is_loopback
from mptcp_stack.wire.checksum import checksum_of, ones_complement_sum, pseudo_header_sum
from mptcp_stack.wire.frame import Buffer, ChecksumState, Frame
from mptcp_stack.wire.ip_packet import emit_ipv4_header, emit_ipv6_header

MAXIMUM_QUEUED_FRAMES = 16_384
MAXIMUM_LOOPED_DATAGRAMS = 4096
MAXIMUM_ERRORS = 256
MAXIMUM_PACKET = 65_535
MTU_WITHOUT_ROUTE = 1500

NeighbourLookup = Callable[[Interface, int], NeighbourCache | None]
"""The cache for an interface and an address length; None on a link without neighbours."""

_UINT16 = Struct("!H")
_UINT32 = Struct("!I")
_LENGTH_AND_IDENTIFICATION = Struct("!HH")


class Path:
    """Everything that the packets from one address to another have in common."""

    __slots__ = (
        "cache",
        "destination",
        "header_length",
        "header_sum",
        "identification",
        "interface",
        "is_ipv6",
        "is_loop",
        "neighbour",
        "next_hop",
        "protocol",
        "pseudo_sum",
        "request_counter",
        "source",
        "template",
    )

    def __init__(
        self,
        source: bytes,
        destination: bytes,
        protocol: int,
        interface: Interface,
        *,
        may_fragment: bool = False,
    ) -> None:
        self.source = source
        self.destination = destination
        self.protocol = protocol
        self.interface = interface
        self.is_loop = False
        self.next_hop = destination
        self.cache: NeighbourCache | None = None
        self.neighbour: Neighbour | None = None
        self.is_ipv6 = len(destination) == 16
        self.request_counter = "Ip6OutRequests" if self.is_ipv6 else "IpOutRequests"
        self.identification = 0
        self.header_sum = 0
        self.pseudo_sum = pseudo_header_sum(source, destination, protocol, 0)
        if self.is_ipv6:
            self.template = emit_ipv6_header(source, destination, protocol, 0)
        else:
            self.template = emit_ipv4_header(
                source, destination, protocol, 0, identification=0, dont_fragment=not may_fragment
            )
            # The sum over what stays the same: all but the total length and the checksum itself.
            self.header_sum = (
                ones_complement_sum(self.template[:2])
                + ones_complement_sum(self.template[4:10])
                + ones_complement_sum(self.template[12:])
            )
        self.header_length = len(self.template)

    def ip_header(self, length: int, segments: int, traffic_class: int) -> bytearray:
        """The IP header before ``length`` bytes that the wire will carry as so many ``segments``."""
        header = bytearray(self.template)
        if self.is_ipv6:
            _UINT16.pack_into(header, 4, length)
            if traffic_class:
                _UINT32.pack_into(header, 0, 6 << 28 | traffic_class << 20)
            return header
        total = length + self.header_length
        identification = self.identification
        # Cutting a super-segment numbers the pieces on from here; the next packet comes after them.
        self.identification = (identification + segments) & 0xFFFF
        header[1] = traffic_class
        _LENGTH_AND_IDENTIFICATION.pack_into(header, 2, total, identification)
        header_sum = (self.header_sum + traffic_class + total + identification) % 0xFFFF or 0xFFFF
        _UINT16.pack_into(header, 10, header_sum ^ 0xFFFF)
        return header

    def request_source(self) -> bytes:
        """As whom to ask for the next hop: the packet's source if it is of that link (RFC 4861 §7.2.2)."""
        if self.interface.owns(self.source):
            return self.source
        return self.interface.source_for(self.next_hop) or self.source


class PacketOutput:
    """Sends packets, or keeps them while their neighbour is being asked for. All queues are bounded."""

    def __init__(
        self, configuration: HostConfiguration, counters: Counters, neighbours: NeighbourLookup
    ) -> None:
        self._configuration = configuration
        self._counters = counters
        self._neighbours = neighbours
        self._paths: dict[tuple[bytes, bytes, int], Path] = {}
        self._generation = -1
        self.path_mtus = PathMtus()
        self._frames: list[tuple[Interface, Frame]] = []
        self._looped: list[Datagram] = []
        self._errors: deque[IcmpError] = deque(maxlen=MAXIMUM_ERRORS)

    def send(
        self,
        source: bytes,
        destination: bytes,
        protocol: int,
        head: bytearray,
        payload: tuple[Buffer, ...],
        *,
        checksum_offset: int | None,
        gso_size: int,
        traffic_class: int,
        now_us: int,
    ) -> bool:
        """See `IpLayer.send`; with ``checksum_offset`` None the checksum is in place already."""
        path = self.cached_path(source, destination, protocol)
        if path is None:
            path = self._open_path(source, destination, protocol)
            if path is None:
                return False
        self._counters.increment(path.request_counter)
        length = len(head) + sum(map(len, payload))
        segments = 1
        biggest = length
        if gso_size:
            segments = (length - len(head) + gso_size - 1) // gso_size
            if segments > 1:
                biggest = len(head) + gso_size
            else:
                segments, gso_size = 1, 0
        if biggest + path.header_length > path.interface.mtu or length + path.header_length > MAXIMUM_PACKET:
            self._refuse_too_big(path, head)
        elif path.is_loop:
            self._loop(path, head, payload, gso_size, traffic_class)
        elif gso_size and not path.interface.gso_max_size:
            for segment, part in cut(head, payload, gso_size):
                length = len(segment) + len(part)
                frame = _transport_frame(path, segment, (part,), 0, length, checksum_offset)
                self._add_headers(path, frame, length, 1, traffic_class, now_us)
        else:
            frame = _transport_frame(path, head, payload, gso_size, length, checksum_offset)
            self._add_headers(path, frame, length, segments, traffic_class, now_us)
        return True

    def path_mtu(self, source: bytes, destination: bytes) -> int:
        """Bytes of the largest packet that is believed to arrive."""
        route = self._configuration.route_for(destination, source)
        if route is None:
            return MTU_WITHOUT_ROUTE
        known = self.path_mtus.get(route.interface, destination)
        return route.interface.mtu if known is None else min(known.mtu, route.interface.mtu)

    def learn_path_mtu(self, source: bytes, destination: bytes, mtu: int, now_us: int) -> bool:
        """Take what a router said. Whether the MTU is smaller now."""
        route = self._configuration.route_for(destination, source)
        if route is None or not self.path_mtus.learn(route.interface, destination, mtu, now_us):
            return False
        self._configuration.routes.invalidate()
        return True

    @property
    def cached_paths(self) -> int:
        """How many paths are remembered."""
        return len(self._paths)

    def cached_path(self, source: bytes, destination: bytes, protocol: int) -> Path | None:
        """The path that earlier packets took, unless routes or addresses have changed since."""
        generation = self._configuration.routes.generation
        if self._generation != generation:
            self._paths.clear()
            self._generation = generation
        return self._paths.get((source, destination, protocol))

    def transmit(self, interface: Interface, frame: Frame) -> None:
        """Queue a finished frame."""
        if len(self._frames) >= MAXIMUM_QUEUED_FRAMES:
            self._counters.increment("StackDropTransmitQueueFull")
            return
        self._frames.append((interface, frame))

    def take_frames(self) -> list[tuple[Interface, Frame]]:
        """All frames queued since the last call, in order."""
        frames, self._frames = self._frames, []
        return frames

    def take_looped(self) -> list[Datagram]:
        """All datagrams from this host to itself since the last call, in order."""
        looped, self._looped = self._looped, []
        return looped

    def take_errors(self) -> list[IcmpError]:
        """What this host itself found out about packets that could not be sent, since the last call."""
        errors = list(self._errors)
        self._errors.clear()
        return errors

    def drop_queued(self, interface: Interface) -> None:
        """Throw away what is queued for an interface that went down."""
        kept = [each for each in self._frames if each[0] is not interface]
        self._counters.increment("StackDropInterfaceDown", len(self._frames) - len(kept))
        self._frames = kept

    def report_unresolved(self, packet: PendingPacket) -> None:
        """Report a packet whose neighbour did not answer, as a router would."""
        transport = memoryview(packet.frame.head)[packet.frame.transport_offset :]
        self._report(
            IcmpErrorKind.HOST_UNREACHABLE,
            packet.source,
            packet.destination,
            packet.protocol,
            transport,
            None,
        )

    def _open_path(self, source: bytes, destination: bytes, protocol: int) -> Path | None:
        configuration = self._configuration
        may_send = configuration.sends_for_others or configuration.is_local(source)
        route = configuration.route_for(destination, source) if may_send else None
        if route is None or not _may_leave(source, route.interface, configuration.loopback):
            self._counters.increment("StackDropNoRoute")
            self._counters.increment("Ip6OutNoRoutes" if len(destination) == 16 else "IpOutNoRoutes")
            return None
        if len(self._paths) >= MAXIMUM_CACHED:
            self._paths.clear()
        interface = route.interface
        known = self.path_mtus.get(interface, destination)
        may_fragment = known is not None and known.may_fragment
        path = Path(source, destination, protocol, interface, may_fragment=may_fragment)
        path.is_loop = interface is configuration.loopback
        path.next_hop = route.gateway or destination
        path.cache = self._neighbours(interface, len(destination))
        self._paths[(source, destination, protocol)] = path
        return path

    def _add_headers(
        self, path: Path, frame: Frame, length: int, segments: int, traffic_class: int, now_us: int
    ) -> None:
        """Puts the headers of IP and the link before what begins with the transport header, and queues it."""
        header = path.ip_header(length, segments, traffic_class)
        frame.transport_offset = len(header)
        cache = path.cache
        if cache is None:
            frame.head = b"".join((header, frame.head))
            self.transmit(path.interface, frame)
            return
        neighbour = path.neighbour
        if neighbour is None or not neighbour.link_header:
            neighbour = path.neighbour = cache.open(path.next_hop, path.request_source())
            if neighbour is None:
                self._counters.increment("StackDropNeighbourQueueFull")
                return
        link_header = neighbour.link_header
        if not link_header:
            # It may wait for seconds, and the payload's owner reuses its memory before that.
            frame.head = b"".join((header, frame.head, *frame.payload))
            frame.payload = ()
            packet = PendingPacket(frame, path.source, path.destination, path.protocol)
            cache.hold(neighbour, packet, now_us)
            return
        if now_us >= neighbour.reachable_until_us:
            cache.note_use(neighbour, now_us)
        frame.head = b"".join((link_header, header, frame.head))
        frame.transport_offset += len(link_header)
        self.transmit(path.interface, frame)

    def _loop(
        self, path: Path, head: bytearray, payload: tuple[Buffer, ...], gso_size: int, traffic_class: int
    ) -> None:
        if len(self._looped) >= MAXIMUM_LOOPED_DATAGRAMS:
            self._counters.increment("StackDropTransmitQueueFull")
            return
        prefix = "Ip6" if path.is_ipv6 else "Ip"
        self._counters.increment(prefix + "InReceives")
        self._counters.increment(prefix + "InDelivers")
        transport = memoryview(b"".join((head, *payload)))
        self._looped.append(
            Datagram(
                path.source,
                path.destination,
                path.protocol,
                transport,
                path.interface,
                traffic_class,
                gso_size,
            )
        )

    def _refuse_too_big(self, path: Path, head: bytearray) -> None:
        self._counters.increment("StackDropTooBig")
        self._report(
            IcmpErrorKind.PACKET_TOO_BIG,
            path.source,
            path.destination,
            path.protocol,
            memoryview(bytes(head)),
            path.interface.mtu,
        )

    def _report(
        self,
        kind: IcmpErrorKind,
        source: bytes,
        destination: bytes,
        protocol: int,
        transport: memoryview,
        mtu: int | None,
    ) -> None:
        self._errors.append(IcmpError(source, destination, protocol, transport, kind, mtu, source))


def _transport_frame(
    path: Path,
    head: bytearray,
    payload: tuple[Buffer, ...],
    gso_size: int,
    length: int,
    checksum_offset: int | None,
) -> Frame:
    """A frame that lacks the headers before the transport header, whose checksum is filled in."""
    state = _fill_checksum(path, head, payload, length, checksum_offset)
    return Frame(head, payload, gso_size, state, 0, checksum_offset or 0, path.is_ipv6)


def _fill_checksum(
    path: Path, head: bytearray, payload: tuple[Buffer, ...], length: int, checksum_offset: int | None
) -> ChecksumState:
    if checksum_offset is None:
        return ChecksumState.UNVERIFIED
    if path.interface.checksum_offload:
        _UINT16.pack_into(head, checksum_offset, (path.pseudo_sum + length) % 0xFFFF)
        return ChecksumState.PARTIAL
    _UINT16.pack_into(head, checksum_offset, 0)
    _UINT16.pack_into(head, checksum_offset, checksum_of((head, *payload), path.pseudo_sum + length))
    return ChecksumState.UNVERIFIED


def _may_leave(source: bytes, interface: Interface, loopback: Interface) -> bool:
    """Whether packets from one of our addresses may go out there (RFC 1122 §3.2.1.3 (g), RFC 4007 §6)."""
    if interface is loopback:
        return True
    if is_link_local(source) and len(source) == 16:
        return interface.owns(source)
    return not is_loopback(source)
