"""Addresses, routes and cables of a lab that is up: the kernel holds what a lab built that way would hold."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_interface

import pytest

from testbed.backend.lab import Lab
from testbed.backend.namespaces import NamespaceBackend
from testbed.errors import UsageError
from testbed.topology.changes import moved, with_address, without_address
from testbed.topology.load import load_topology
from testbed.topology.model import LinkEnd, Topology

from .connections import can_talk

pytestmark = pytest.mark.root
CLIENT = LinkEnd("client", "eth1")
WLAN = LinkEnd("client", "wlan0")
TCP = {"client_stack": "tcp", "server_stack": "tcp"}


def held(lab: Lab) -> dict[str, list[str]]:
    """Addresses, rules and routes of every node, without what differs between two labs."""
    found = {}
    for node in lab.topology.nodes:
        lines = []
        for words in (["rule"], ["route", "show", "table", "all"], ["-o", "address"]):
            for family in ("-4", "-6"):
                lines += lab.run_in(node.name, ["ip", family, *words]).stdout.splitlines()
        usual = [line for line in lines if "fe80:" not in line and " valid_lft" not in line]
        addresses = json.loads(lab.run_in(node.name, ["ip", "-j", "address"]).stdout)
        usual += [
            f"{each['ifname']} {address['local']}/{address['prefixlen']}"
            for each in addresses
            for address in each["addr_info"]
            if address["scope"] == "global"
        ]
        found[node.name] = sorted(usual)
    return found


def changed(topology: Topology) -> Topology:
    added = with_address(topology, CLIENT, ip_interface("10.0.3.7/24"))
    added = with_address(added, CLIENT, ip_interface("fd00:0:0:3::7/64"))
    return without_address(added, CLIENT, ip_address("10.0.3.1"))


def test_the_kernel_holds_what_a_new_lab_would(lab_name: str) -> None:
    before = load_topology("two-paths", TCP)
    with NamespaceBackend(with_agents=False).up(before, lab_name) as lab:
        first = held(lab)
        lab.reconfigure(changed(before))
        reconfigured = held(lab)
        lab.reconfigure(before)
        assert held(lab) == first
    with NamespaceBackend(with_agents=False).up(changed(before), lab_name) as lab:
        assert held(lab) == reconfigured
    assert first != reconfigured


def test_a_link_that_went_down_comes_back_with_its_new_routes(lab_name: str) -> None:
    before = load_topology("two-paths", TCP)
    with NamespaceBackend(with_agents=False).up(before, lab_name) as lab:
        lab.reconfigure(changed(before))
        wanted = held(lab)["client"]
        lab.set_link("client", "eth1", up=False)
        lab.set_link("client", "eth1", up=True)
        assert held(lab)["client"] == wanted


@pytest.mark.parametrize("emulated", ["false", "true"])
def test_a_cable_is_plugged_in_elsewhere_and_back(lab_name: str, emulated: str) -> None:
    before = load_topology("roaming", TCP | {"emulated": emulated})
    with NamespaceBackend(with_agents=False).up(before, lab_name) as lab:
        first = held(lab)
        lab.reconfigure(moved(before, WLAN, "office"))
        assert can_talk(lab, "client", "server", "10.0.2.2", source="10.0.3.2")
        trace = lab.run_in("client", ["ip", "-j", "route", "get", "10.0.2.2", "from", "10.0.3.2"]).stdout
        assert json.loads(trace)[0]["gateway"] == "10.0.3.1"
        with NamespaceBackend().open_lab(lab_name) as again:
            assert str(again.links.link_at("client:wlan0").second) == "office:eth1"
            if emulated == "true":
                again.links.change_at("client:wlan0", {"delay": "1ms"})
            again.reconfigure(moved(again.topology, WLAN, "home"))
            assert held(again) == first
            assert can_talk(again, "client", "server", "10.0.2.2", source="10.0.1.1")


def test_a_cable_whose_rate_is_enforced_at_its_end_stays(lab_name: str) -> None:
    text = TCP | {"rate": "10mbit"}
    topology = load_topology("roaming", text)
    end = LinkEnd("r2", "eth0")
    with (
        NamespaceBackend(with_agents=False).up(topology, lab_name) as lab,
        pytest.raises(UsageError, match=r"r2:eth0 cannot be moved: its rate is enforced where"),
    ):
        lab.reconfigure(moved(topology, end, "home", []))
