"""Two IP layers on one link, nothing between them but a loop that carries frames."""

from __future__ import annotations

import pytest

from mptcp_stack.counters import DROP_NAMES, Counters
from mptcp_stack.ip.interface import Interface, InterfaceAddress, LinkType
from mptcp_stack.ip.layer import Datagram, IpLayer
from mptcp_stack.ip.routing import Route
from mptcp_stack.wire.addresses import parse_address
from tests.ip.single_host import PROTOCOL_TCP, TCP_CHECKSUM_OFFSET, tcp_header


class Link:
    """Hosts on one Ethernet; every frame reaches all others, as on a hub."""

    def __init__(self, *, checksum_offload: bool) -> None:
        self.hosts = [self._host(number, checksum_offload) for number in (1, 2, 3)]

    def _host(self, number: int, checksum_offload: bool) -> tuple[IpLayer, Interface, Counters]:
        counters = Counters()
        layer = IpLayer(counters)
        interface = layer.add_interface(
            "eth0",
            link_type=LinkType.ETHERNET,
            mac=bytes([2, 0, 0, 0, 0, number]),
            addresses=[
                InterfaceAddress(parse_address(f"10.0.0.{number}"), 24),
                InterfaceAddress(parse_address(f"fd00::{number}"), 64),
            ],
            checksum_offload=checksum_offload,
            gso_max_size=65_536,
        )
        return layer, interface, counters

    def run(self, now_us: int) -> list[tuple[int, Datagram]]:
        """Carry frames until there are none; what came up, with the number of the host."""
        delivered = []
        while frames := [(sender, frame) for sender, _, _ in self.hosts for _, frame in sender.take_frames()]:
            for sender, frame in frames:
                for number, (layer, interface, _) in enumerate(self.hosts, 1):
                    if layer is sender:
                        continue
                    result = layer.receive(frame, interface, now_us)
                    if isinstance(result, Datagram):
                        delivered.append((number, result))
        return delivered


def send(layer: IpLayer, source: str, destination: str, payload: bytes, gso_size: int = 0) -> bool:
    return layer.send(
        parse_address(source),
        parse_address(destination),
        PROTOCOL_TCP,
        tcp_header(),
        (payload,),
        checksum_offset=TCP_CHECKSUM_OFFSET,
        gso_size=gso_size,
        now_us=0,
    )


@pytest.mark.parametrize("prefix", ["10.0.0.", "fd00::"])
@pytest.mark.parametrize("checksum_offload", [False, True])
def test_segment_crosses_the_link_and_only_its_destination_gets_it(
    prefix: str, checksum_offload: bool
) -> None:
    link = Link(checksum_offload=checksum_offload)
    payload = bytes(range(256)) * 5
    assert send(link.hosts[0][0], prefix + "1", prefix + "2", payload)
    ((number, datagram),) = link.run(0)
    assert (number, datagram.destination) == (2, parse_address(prefix + "2"))
    assert bytes(datagram.payload[20:]) == payload
    assert send(link.hosts[1][0], prefix + "2", prefix + "1", payload)
    ((number, _),) = link.run(1)
    assert number == 1
    _, _, first = link.hosts[0]
    assert [name for name in DROP_NAMES if first[name]] == []


def test_super_segment_crosses_the_link_whole() -> None:
    link = Link(checksum_offload=True)
    assert send(link.hosts[0][0], "fd00::1", "fd00::2", bytes(60_000), gso_size=1400)
    ((_, datagram),) = link.run(0)
    assert (datagram.gso_size, len(datagram.payload)) == (1400, 60_020)


def test_two_gateways_are_told_apart_by_the_packets_source() -> None:
    link = Link(checksum_offload=False)
    layer, interface, _ = link.hosts[0]
    second = parse_address("10.0.0.11")
    layer.add_address(interface, InterfaceAddress(second, 24))
    for gateway, source in (("10.0.0.2", None), ("10.0.0.3", second)):
        layer.routes.add(Route(bytes(4), 0, interface, gateway=parse_address(gateway), source=source))
    for other, own, _ in link.hosts[1:]:
        other.add_address(own, InterfaceAddress(parse_address("192.0.2.9"), 32))
    send(layer, "10.0.0.1", "192.0.2.9", b"")
    send(layer, "10.0.0.11", "192.0.2.9", b"")
    delivered = link.run(0)
    assert [(number, datagram.source) for number, datagram in delivered] == [
        (2, parse_address("10.0.0.1")),
        (3, second),
    ]
