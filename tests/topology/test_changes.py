"""What becomes of a topology when addresses come and go and cables move: its routes follow."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_interface

import pytest

from testbed.topology.changes import interface_at, link_at, moved, with_address, without_address
from testbed.topology.load import load_text, load_topology
from testbed.topology.model import LinkEnd, Topology
from testbed.topology.problems import ProblemCollector

CLIENT = LinkEnd("client", "eth1")
WLAN = LinkEnd("client", "wlan0")


def rules(topology: Topology, node: str, source: str) -> list[str]:
    """The policy routes of one source address."""
    return [
        f"{route.destination} via {route.gateway} dev {route.interface}"
        for route in topology.node(node).routes
        if route.source == ip_address(source)
    ]


def test_a_new_address_gets_its_policy_routes() -> None:
    topology = with_address(load_topology("two-paths"), CLIENT, ip_interface("10.0.3.7/24"))
    assert rules(topology, "client", "10.0.3.7") == [
        "10.0.3.0/24 via None dev eth1",
        "0.0.0.0/0 via 10.0.3.2 dev eth1",
    ]
    assert len(interface_at(topology, CLIENT).addresses) == 3


def test_an_address_that_goes_takes_its_routes_along_and_comes_back_with_them() -> None:
    before = load_topology("two-paths")
    without = without_address(before, CLIENT, ip_address("10.0.3.1"))
    assert rules(without, "client", "10.0.3.1") == []
    assert not any("10.0.3.1" in str(route) for route in without.node("server").routes)
    again = with_address(without, CLIENT, ip_interface("10.0.3.1/24"))
    for node in before.nodes:
        assert set(again.node(node.name).routes) == set(node.routes)


def test_routes_of_the_file_stay() -> None:
    topology = load_text(
        "version: 1\nname: said\nnodes:\n  a: {routes: [{to: default, via: 10.0.1.2, metric: 3}]}\n"
        "  b: {}\nlinks: [{endpoints: [a, b]}]\n",
        ProblemCollector("said"),
    )
    (said,) = (route for route in topology.node("a").routes if route.metric == 3)
    changed = with_address(topology, LinkEnd("a", "eth0"), ip_interface("10.0.1.9/24"))
    assert said in changed.node("a").routes


def test_a_host_that_moves_has_an_address_there_and_its_routes() -> None:
    topology = moved(load_topology("roaming"), WLAN, "office")
    addresses = [str(address) for address in interface_at(topology, WLAN).addresses]
    assert addresses == ["10.0.3.2/24", "fd00:0:0:3::2/64"]
    assert rules(topology, "client", "10.0.3.2")[-1] == "0.0.0.0/0 via 10.0.3.1 dev wlan0"
    link = link_at(topology, WLAN)
    assert (str(link.second), link.built_as) == ("office:eth1", "client:wlan0")
    with pytest.raises(ValueError, match="no link is at home:eth0"):
        link_at(topology, LinkEnd("home", "eth0"))


def test_back_home_it_finds_its_old_socket_and_address() -> None:
    before = load_topology("roaming")
    again = moved(moved(before, WLAN, "office"), WLAN, "home")
    assert str(link_at(again, WLAN).second) == "home:eth0"
    assert interface_at(again, WLAN).addresses == interface_at(before, WLAN).addresses
    for node in before.nodes:
        assert set(again.node(node.name).routes) == set(node.routes)


def test_addresses_may_be_said() -> None:
    topology = moved(load_topology("roaming"), WLAN, "office", [ip_interface("10.0.3.50/24")])
    assert interface_at(topology, WLAN).addresses == (ip_interface("10.0.3.50/24"),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: with_address(t, LinkEnd("client", "wlan1"), ip_interface("10.0.1.7/24")), "did you mean"),
        (lambda t: with_address(t, LinkEnd("home", "eth0"), ip_interface("10.0.1.7/24")), "is a switch's"),
        (lambda t: with_address(t, WLAN, ip_interface("10.0.1.2/24")), "r1:eth0 has 10.0.1.2 already"),
        (
            lambda t: with_address(t, WLAN, ip_interface("10.0.3.7/24")),
            "10.0.3.7/24 belongs to another network than client:wlan0, which is in 10.0.1.0/24",
        ),
        (lambda t: without_address(t, WLAN, ip_address("10.0.1.2")), "client:wlan0 does not have 10.0.1.2"),
        (lambda t: moved(t, WLAN, "offfice"), "no switch is called 'offfice'; did you mean 'office'?"),
        (lambda t: moved(t, WLAN, "home"), "client:wlan0 is in 'home' already"),
        (
            lambda t: moved(t, LinkEnd("client", "wwan0"), "home"),
            "its link goes to no switch, but to lte:eth0",
        ),
        (
            lambda t: moved(t, WLAN, "office", [ip_interface("10.0.1.1/24")]),
            "10.0.1.1/24 belongs to another network than client:wlan0, which is in 10.0.3.0/24",
        ),
    ],
)
def test_nonsense_is_refused(change: Callable[[Topology], Topology], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        change(load_topology("roaming"))
