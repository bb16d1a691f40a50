"""One host with one Ethernet interface on a link that scapy plays."""

from __future__ import annotations

from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from mptcp_stack.counters import DROP_NAMES, Counters
from mptcp_stack.ip.interface import InterfaceAddress, LinkType, link_local_from_mac
from mptcp_stack.ip.layer import Datagram, IcmpError, IpLayer
from mptcp_stack.wire.addresses import format_address, parse_address
from mptcp_stack.wire.frame import ChecksumState, Frame

OUR_MAC = "02:00:00:00:00:01"
PEER_MAC = "02:00:00:00:00:02"
OTHER_MAC = "02:00:00:00:00:03"
OUR_V4, PEER_V4, GATEWAY_V4, FAR_V4 = "10.0.0.1", "10.0.0.2", "10.0.0.254", "192.0.2.7"
OUR_V6, PEER_V6, FAR_V6 = "fd00::1", "fd00::2", "2001:db8::7"
PROTOCOL_TCP = 6
TCP_CHECKSUM_OFFSET = 16
SECOND_US = 1_000_000


def mac_bytes(text: str) -> bytes:
    """The six bytes of a MAC address in the usual text form."""
    return bytes.fromhex(text.replace(":", ""))


_TCP_HEADER = bytes(TCP(sport=40_000, dport=80, flags="A", chksum=0))
OUR_LINK_LOCAL = format_address(link_local_from_mac(mac_bytes(OUR_MAC)))
PEER_LINK_LOCAL = format_address(link_local_from_mac(mac_bytes(PEER_MAC)))


def tcp_header() -> bytearray:
    """A bare TCP header from port 40000 to port 80 whose checksum field is still zero."""
    return bytearray(_TCP_HEADER)


def ethernet(packet: Packet, source: str = PEER_MAC, destination: str = OUR_MAC) -> Packet:
    """The packet in a frame from the peer to us."""
    return Ether(src=source, dst=destination) / packet


def is_at(address: str, mac: str, target: str = OUR_V4, destination: str = OUR_MAC) -> Packet:
    """An ARP reply from ``mac``."""
    reply = ARP(op="is-at", hwsrc=mac, psrc=address, hwdst=OUR_MAC, pdst=target)
    return Ether(src=mac, dst=destination) / reply


class SingleHost:
    """The layer under test with the link's other side; every call says what time it is."""

    def __init__(
        self,
        *,
        link_type: LinkType = LinkType.ETHERNET,
        checksum_offload: bool = False,
        gso_max_size: int = 0,
        mtu: int = 1500,
    ) -> None:
        self.counters = Counters()
        self.layer = IpLayer(self.counters)
        self.interface = self.layer.add_interface(
            "eth0",
            link_type=link_type,
            mac=mac_bytes(OUR_MAC) if link_type is LinkType.ETHERNET else b"",
            mtu=mtu,
            addresses=[
                InterfaceAddress(parse_address(OUR_V4), 24),
                InterfaceAddress(parse_address(OUR_V6), 64),
            ],
            checksum_offload=checksum_offload,
            gso_max_size=gso_max_size,
        )

    def receive(
        self,
        packet: Packet | bytes,
        at_us: int = 0,
        checksum: ChecksumState = ChecksumState.UNVERIFIED,
        gso_size: int = 0,
    ) -> Datagram | IcmpError | None:
        """Hand a frame in."""
        frame = Frame(bytes(packet), gso_size=gso_size, checksum=checksum)
        return self.layer.receive(frame, self.interface, at_us)

    def send(
        self,
        destination: str = PEER_V4,
        source: str | None = None,
        payload: tuple[bytes, ...] = (b"payload",),
        gso_size: int = 0,
        traffic_class: int = 0,
        at_us: int = 0,
        head: bytearray | None = None,
    ) -> bool:
        """Send a TCP segment."""
        return self.layer.send(
            parse_address(source or (OUR_V6 if ":" in destination else OUR_V4)),
            parse_address(destination),
            PROTOCOL_TCP,
            tcp_header() if head is None else head,
            payload,
            checksum_offset=TCP_CHECKSUM_OFFSET,
            gso_size=gso_size,
            traffic_class=traffic_class,
            now_us=at_us,
        )

    def sent(self) -> list[Packet]:
        """All frames sent since the last call, as scapy reads them."""
        first = Ether if self.interface.link_type is LinkType.ETHERNET else _ip_class
        return [first(frame.to_bytes()) for _, frame in self.layer.take_frames()]

    def learn_peer(self, at_us: int = 0) -> None:
        """Have the peer's IPv4 address resolved, and nothing of that left in the queues."""
        self.send(at_us=at_us)
        self.receive(is_at(PEER_V4, PEER_MAC), at_us)
        self.layer.take_frames()

    def drops(self) -> dict[str, int]:
        """Every drop counter that is not zero."""
        return {
            name.removeprefix("StackDrop"): self.counters[name] for name in DROP_NAMES if self.counters[name]
        }

    def counted(self, *names: str) -> list[int]:
        """The values of some counters."""
        return [self.counters[name] for name in names]


def _ip_class(data: bytes) -> Packet:
    return IP(data) if data[0] >> 4 == 4 else IPv6(data)


def assert_checksums_good(packet: Packet) -> None:
    """Scapy fills in the same checksums and lengths that the packet has."""
    again = packet.__class__(bytes(packet))
    for layer in (IP, TCP, ICMP):
        if layer in again:
            del again[layer].chksum
    current = again
    while current:
        current.fields.pop("cksum", None)
        current = current.payload
    if IPv6 in again:
        del again[IPv6].plen
    assert bytes(again) == bytes(packet)
