"""Interfaces: their addresses, and what cannot be configured."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mptcp_stack.counters import Counters
from mptcp_stack.errors import ConfigurationError
from mptcp_stack.ip.interface import InterfaceAddress, LinkType, common_prefix_length, link_local_from_mac
from mptcp_stack.ip.layer import IpLayer
from mptcp_stack.wire.addresses import parse_address
from tests.ip.single_host import OUR_MAC, OUR_V4, SingleHost, mac_bytes


def test_link_local_address_follows_rfc_4291_appendix_a() -> None:
    assert link_local_from_mac(mac_bytes("34:56:78:9a:bc:de")) == parse_address("fe80::3656:78ff:fe9a:bcde")


def test_ethernet_interface_gets_its_link_local_address_once() -> None:
    automatic = link_local_from_mac(mac_bytes(OUR_MAC))
    for given in ([], [InterfaceAddress(automatic, 64)]):
        added = IpLayer(Counters()).add_interface(
            "eth0", link_type=LinkType.ETHERNET, mac=mac_bytes(OUR_MAC), addresses=given
        )
        assert added.addresses == [InterfaceAddress(automatic, 64)]


def test_raw_interface_gets_no_address_of_its_own() -> None:
    added = IpLayer(Counters()).add_interface("tun0", link_type=LinkType.RAW_IP)
    assert added.addresses == []


def test_interfaces_are_found_by_name_and_numbered_after_the_loopback() -> None:
    host = SingleHost()
    assert host.layer.interface("eth0") is host.interface
    assert host.layer.interface("lo") is host.layer.loopback
    assert (host.layer.loopback.index, host.interface.index) == (1, 2)
    assert host.layer.interfaces == [host.interface]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [("10.0.0.0", "10.0.0.0", 32), ("10.0.0.1", "10.0.0.2", 30), ("::1", "8000::1", 0), ("::", "::1", 127)],
)
def test_common_prefix(first: str, second: str, expected: int) -> None:
    assert common_prefix_length(parse_address(first), parse_address(second)) == expected


@pytest.mark.parametrize(
    "configure",
    [
        lambda layer: layer.add_interface("eth0", link_type=LinkType.RAW_IP),
        lambda layer: layer.add_interface("eth1", link_type=LinkType.ETHERNET),
        lambda layer: layer.add_interface("eth1", link_type=LinkType.ETHERNET, mac=b"\x01" + bytes(5)),
        lambda layer: layer.add_interface("eth1", link_type=LinkType.ETHERNET, mac=bytes(6)),
        lambda layer: layer.add_interface("eth1", link_type=LinkType.RAW_IP, mtu=67),
        lambda layer: layer.add_interface("eth1", link_type=LinkType.RAW_IP, mtu=65536),
        lambda layer: layer.interface("eth1"),
        lambda layer: layer.add_address(layer.interface("eth0"), InterfaceAddress(parse_address(OUR_V4), 8)),
        lambda layer: layer.add_address(layer.interface("eth0"), InterfaceAddress(bytes(4), 8)),
        lambda layer: layer.add_address(layer.interface("eth0"), InterfaceAddress(b"\xff" + bytes(15), 8)),
        lambda layer: layer.add_address(
            layer.interface("eth0"), InterfaceAddress(parse_address("::ffff:10.0.0.9"), 120)
        ),
        lambda layer: layer.remove_address(layer.interface("eth0"), parse_address("10.0.0.9")),
        lambda layer: layer.set_mtu(layer.interface("eth0"), 60),
        lambda _: InterfaceAddress(bytes(5), 8),
        lambda _: InterfaceAddress(bytes(4), 33),
    ],
)
def test_senseless_configuration_is_refused(configure: Callable[[IpLayer], object]) -> None:
    host = SingleHost()
    before = (len(host.layer.interfaces), list(host.interface.addresses), len(host.layer.routes))
    with pytest.raises(ConfigurationError):
        configure(host.layer)
    assert (len(host.layer.interfaces), host.interface.addresses, len(host.layer.routes)) == before
