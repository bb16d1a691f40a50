"""What a file can say itself instead of having it derived, and the mistakes that are possible with it."""

from __future__ import annotations

import pytest

from testbed.errors import TopologyError
from testbed.topology import Topology
from testbed.topology.load import load_text
from testbed.topology.problems import ProblemCollector
from tests.topology.path_walker import walk_everything


def load(text: str) -> Topology:
    return load_text(text, ProblemCollector("lab.yaml"))


def problems_of(text: str) -> list[str]:
    with pytest.raises(TopologyError) as caught:
        load(text)
    return [line.removeprefix("lab.yaml:") for line in str(caught.value).splitlines()]


def lab(nodes: str, links: str) -> str:
    """``nodes`` begin in line 4."""
    return f"version: 1\nname: lab\nnodes:\n{nodes}links:\n{links}"


def addresses(topology: Topology, end: str) -> list[str]:
    node, _, interface = end.partition(":")
    return [str(address) for address in topology.node(node).interface(interface).addresses]


def routes(topology: Topology, node: str, version: int = 4) -> list[str]:
    return [
        f"{route.source or '*'} {route.destination} {route.gateway or 'link'} {route.interface}"
        f" {route.metric}"
        for route in topology.node(node).routes
        if route.destination.version == version
    ]


TWO_HOSTS = "  a: {}\n  b: {}\n"


def test_interface_names_are_derived_in_the_order_of_links_around_those_said() -> None:
    topology = load(
        lab(TWO_HOSTS, "  - endpoints: [a, b:eth1]\n  - endpoints: [a:wlan0, b]\n  - endpoints: [a, b]\n")
    )
    assert [interface.name for interface in topology.node("a").interfaces] == ["eth0", "wlan0", "eth2"]
    assert [interface.name for interface in topology.node("b").interfaces] == ["eth1", "eth2", "eth3"]


def test_subnets_of_a_link_replace_the_derived_one_of_their_family() -> None:
    topology = load(lab(TWO_HOSTS, "  - endpoints: [a, b]\n    subnets: [192.168.7.0/24]\n"))
    assert addresses(topology, "a:eth0") == ["192.168.7.1/24", "fd00:0:0:1::1/64"]
    assert addresses(topology, "b:eth0") == ["192.168.7.2/24", "fd00:0:0:1::2/64"]


def test_addresses_of_an_interface_are_exactly_those_said() -> None:
    links = "  - endpoints: [{node: a, addresses: [192.0.2.2/24, 192.0.2.9/24]}, b]\n"
    topology = load(lab(TWO_HOSTS, links))
    assert addresses(topology, "a:eth0") == ["192.0.2.2/24", "192.0.2.9/24"]
    assert addresses(topology, "b:eth0") == ["192.0.2.1/24", "fd00:0:0:1::1/64"]


def test_addresses_and_mac_can_be_said_at_the_node_too() -> None:
    nodes = "  a: {interfaces: {eth0: {addresses: [], mac: '02:00:00:00:00:AA'}}}\n  b: {}\n"
    topology = load(lab(nodes, "  - endpoints: [a, b]\n"))
    assert addresses(topology, "a:eth0") == []
    assert topology.node("a").interface("eth0").mac == "02:00:00:00:00:aa"


def test_derived_subnets_avoid_those_said() -> None:
    links = "  - endpoints: [a, b]\n  - endpoints: [a, b]\n    subnets: [10.0.0.0/15, 'fd00:0:0:2::/64']\n"
    topology = load(lab(TWO_HOSTS, links))
    assert addresses(topology, "a:eth0") == ["10.2.0.1/24", "fd00:0:0:200::1/64"]
    assert addresses(topology, "a:eth1") == ["10.0.0.1/15", "fd00:0:0:2::1/64"]


def test_point_to_point_prefixes() -> None:
    topology = load(lab(TWO_HOSTS, "  - endpoints: [a, b]\n    subnets: [192.0.2.6/31, '2001:db8::/127']\n"))
    assert addresses(topology, "a:eth0") == ["192.0.2.6/31", "2001:db8::/127"]
    assert addresses(topology, "b:eth0") == ["192.0.2.7/31", "2001:db8::1/127"]


def test_switches_join_links_into_one_subnet() -> None:
    nodes = TWO_HOSTS + "  s: {kind: switch}\n  t: {kind: switch}\n"
    links = "  - endpoints: [a, s]\n  - endpoints: [s, t]\n  - endpoints: [t, b]\n  - endpoints: [a, b]\n"
    topology = load(lab(nodes, links))
    assert addresses(topology, "a:eth0")[0] == "10.0.1.1/24"
    assert addresses(topology, "b:eth0")[0] == "10.0.1.2/24"
    assert addresses(topology, "a:eth1")[0] == "10.0.2.1/24"
    assert topology.node("s").interface("eth0").addresses == ()
    walk_everything(topology)


def test_a_said_route_replaces_the_derived_one() -> None:
    nodes = (
        "  a: {routes: [{to: default, via: 10.0.1.3}, {to: 192.0.2.0/24, interface: eth0, metric: 7},"
        " {to: 192.0.2.1, via: 10.0.1.2, from: 10.0.1.1}]}\n"
        "  s: {kind: switch}\n  r: {kind: router}\n  q: {kind: router}\n  b: {}\n"
    )
    links = "".join(f"  - endpoints: [{ends}]\n" for ends in ("a, s", "r, s", "q, s", "r, b"))
    topology = load(lab(nodes, links))
    assert routes(topology, "a") == [
        "* 0.0.0.0/0 10.0.1.3 eth0 0",
        "* 192.0.2.0/24 link eth0 7",
        "10.0.1.1 192.0.2.1/32 10.0.1.2 eth0 0",
    ]
    assert routes(topology, "a", 6) == ["* ::/0 fd00:0:0:1::2 eth0 10"]


def test_one_default_route_and_a_specific_one_where_another_router_is_nearer() -> None:
    nodes = TWO_HOSTS + "  c: {}\n  s: {kind: switch}\n  r: {kind: router}\n  q: {kind: router}\n"
    links = "".join(f"  - endpoints: [{ends}]\n" for ends in ("a, s", "r, s", "q, s", "r, b", "q, c", "q, b"))
    topology = load(lab(nodes, links))
    assert routes(topology, "a") == ["* 10.0.2.0/24 10.0.1.2 eth0 0", "* 0.0.0.0/0 10.0.1.3 eth0 10"]
    walk_everything(topology)


def test_the_host_that_the_file_names_first_decides_the_path() -> None:
    links = "  - endpoints: [a, b]\n  - endpoints: [a, b]\n"
    paths = walk_everything(load(lab("  a: {}\n  b: {}\n", links)))
    other = walk_everything(load(lab("  b: {}\n  a: {}\n", links)))
    by_text = {(str(source), str(destination)): path for (source, destination), path in paths.items()}
    other_by_text = {(str(source), str(destination)): path for (source, destination), path in other.items()}
    assert by_text["10.0.2.1", "10.0.1.2"] == ["a:eth1"]
    assert by_text["10.0.1.2", "10.0.2.1"] == ["b:eth1"]
    assert other_by_text["10.0.2.1", "10.0.1.2"] == ["a:eth0"]
    assert other_by_text["10.0.1.2", "10.0.2.1"] == ["b:eth0"]


def test_mptcp_settings_default_to_the_kernels() -> None:
    settings = load(lab(TWO_HOSTS, "  - endpoints: [a, b]\n")).node("a").mptcp
    assert (settings.subflows_limit, settings.add_addr_accepted_limit, settings.endpoints) == (2, 0, ())


def test_automatic_endpoints_are_the_addresses_of_every_interface_but_the_first() -> None:
    nodes = "  a: {mptcp: {endpoints: auto, limits: {subflows: 8, add_addr_accepted: 3}}}\n  b: {}\n"
    settings = load(lab(nodes, "  - endpoints: [a, b]\n" * 3)).node("a").mptcp
    assert (settings.subflows_limit, settings.add_addr_accepted_limit) == (8, 3)
    assert [(str(e.address), set(e.flags), e.interface, e.identifier) for e in settings.endpoints] == [
        ("10.0.2.1", {"subflow"}, "eth1", None),
        ("fd00:0:0:2::1", {"subflow"}, "eth1", None),
        ("10.0.3.1", {"subflow"}, "eth2", None),
        ("fd00:0:0:3::1", {"subflow"}, "eth2", None),
    ]


def test_endpoints_by_interface_or_address() -> None:
    nodes = (
        "  a: {mptcp: {endpoints: [{interface: eth1, flags: [subflow, backup]},"
        " {address: 10.0.1.1, flags: [signal], id: 5, port: 10100}]}}\n  b: {}\n"
    )
    endpoints = load(lab(nodes, "  - endpoints: [a, b]\n" * 2)).node("a").mptcp.endpoints
    assert [(str(e.address), sorted(e.flags), e.interface, e.identifier, e.port) for e in endpoints] == [
        ("10.0.2.1", ["backup", "subflow"], "eth1", None, None),
        ("fd00:0:0:2::1", ["backup", "subflow"], "eth1", None, None),
        ("10.0.1.1", ["signal"], None, 5, 10100),
    ]


def test_impairment_per_direction() -> None:
    impair = '    impair: {"->": {rate: 1.5Mbit}, "<-": {rate: 64kbit}}\n'
    (link,) = load(lab(TWO_HOSTS, "  - endpoints: [a, b]\n" + impair)).links
    assert (str(link.first), str(link.second)) == ("a:eth0", "b:eth0")
    assert (link.forward.rate_bit_s, link.backward.rate_bit_s) == (1_500_000, 64_000)


def test_mtu_and_sysctls_pass_through() -> None:
    nodes = (
        "  a: {sysctls: {net.mptcp.checksum_enabled: 1, net.ipv4.tcp_rmem: 4096 131072 6291456}}\n  b: {}\n"
    )
    topology = load(lab(nodes, "  - {endpoints: [a, b], mtu: 9000}\n"))
    assert topology.node("a").sysctls == (
        ("net.mptcp.checksum_enabled", "1"),
        ("net.ipv4.tcp_rmem", "4096 131072 6291456"),
    )
    assert topology.node("a").interface("eth0").mtu == topology.links[0].mtu == 9000


def test_scheduler_and_path_manager_are_sysctls() -> None:
    nodes = "  a: {mptcp: {scheduler: roundrobin, path_manager: userspace}}\n  b: {}\n"
    topology = load(lab(nodes, "  - endpoints: [a, b]\n"))
    assert topology.node("a").sysctls == (("net.mptcp.scheduler", "roundrobin"), ("net.mptcp.pm_type", "1"))
    assert topology.node("b").sysctls == ()


def test_a_small_mtu_is_fine_without_ipv6() -> None:
    ends = "[{node: a, addresses: [10.0.0.1/24]}, {node: b, addresses: [10.0.0.2/24]}]"
    topology = load(lab(TWO_HOSTS, f"  - {{endpoints: {ends}, mtu: 68}}\n"))
    assert topology.links[0].mtu == 68


PROBLEMS = {
    "address twice": (
        TWO_HOSTS,
        "  - endpoints: [{node: a, addresses: [10.0.0.1/24]}, {node: b, addresses: [10.0.0.1/24]}]\n",
        ["7:76: address 10.0.0.1 is given twice — to a:eth0"],
    ),
    "address twice on one interface": (
        TWO_HOSTS,
        "  - endpoints: [{node: a, addresses: [10.0.0.1/24, 10.0.0.1/24]}, b]\n",
        [
            "7:39: address 10.0.0.1 is given twice — to a:eth0",
            "7:52: address 10.0.0.1 is given twice — to a:eth0",
        ],
    ),
    "out of subnet": (
        TWO_HOSTS,
        "  - {endpoints: [{node: a, addresses: [10.0.0.1/24]}, b], subnets: [10.0.1.0/24]}\n",
        ["7:40: 10.0.0.1/24 is in none of the link's subnets — they are 10.0.1.0/24"],
    ),
    "overlap between links": (
        TWO_HOSTS,
        "  - {endpoints: [a, b], subnets: [10.0.1.0/24]}\n  - {endpoints: [a, b], subnets: [10.0.0.0/16]}\n",
        ["8:35: subnet 10.0.0.0/16 overlaps with 10.0.1.0/24 of another link — in line 7"],
    ),
    "overlap of neighbours": (
        TWO_HOSTS,
        "  - endpoints: [{node: a, addresses: [10.0.0.1/24]}, {node: b, addresses: [10.0.0.2/16]}]\n",
        ["7:76: subnet 10.0.0.0/16 overlaps with 10.0.0.0/24 — in line 7"],
    ),
    "same subnet on two links": (
        TWO_HOSTS,
        "  - {endpoints: [a, b], subnets: ['fd00::/64']}\n  - {endpoints: [a, b], subnets: ['fd00::/64']}\n",
        ["8:35: subnet fd00::/64 overlaps with fd00::/64 of another link — in line 7"],
    ),
    "subnet with host bits": (
        TWO_HOSTS,
        "  - {endpoints: [a, b], subnets: [10.0.1.5/24]}\n",
        ["7:35: 10.0.1.5/24 has host bits set; the network is 10.0.1.0/24"],
    ),
    "multicast subnet": (
        TWO_HOSTS,
        "  - {endpoints: [a, b], subnets: [224.0.0.0/24]}\n",
        ["7:35: 224.0.0.1 is a multicast address, not a host's"],
    ),
    "subnet too small": (
        "  a: {}\n  b: {}\n  s: {kind: switch}\n  c: {}\n",
        "  - {endpoints: [a, s], subnets: [10.0.1.0/30]}\n  - endpoints: [b, s]\n  - endpoints: [c, s]\n",
        ["9:35: subnet 10.0.1.0/30 has room for 2 addresses, 3 are needed — take a shorter prefix"],
    ),
    "switch with address": (
        "  a: {}\n  s: {kind: switch}\n",
        "  - endpoints: [a, {node: s, addresses: [10.0.1.1/24]}]\n",
        ["7:41: 's' is a switch: its interfaces have no addresses — remove them"],
    ),
    "mac": (
        TWO_HOSTS,
        "  - endpoints: [{node: a, mac: '01:00:00:00:00:01'}, {node: b, mac: 2}]\n",
        [
            "7:32: 01:00:00:00:00:01 is a multicast MAC address: its first byte must be even",
            "7:69: '2' is not a MAC address, like '02:00:00:00:00:01'",
        ],
    ),
    "mac twice": (
        TWO_HOSTS,
        "  - endpoints: [{node: a, mac: '02:00:00:00:00:0a'}, {node: b, mac: '02:00:00:00:00:0A'}]\n",
        ["7:69: MAC address 02:00:00:00:00:0a is given twice — to a:eth0"],
    ),
    "unknown interface of a node": (
        "  a: {interfaces: {eht0: {}}}\n  b: {}\n",
        "  - endpoints: [a, b]\n",
        ["4:20: 'a' has no interface 'eht0' — did you mean 'eth0'?"],
    ),
    "said twice": (
        "  a: {interfaces: {eth0: {addresses: []}}}\n  b: {}\n",
        "  - endpoints: [{node: a, addresses: [10.0.0.1/24]}, b]\n",
        ["4:27: 'addresses' is said twice — line 7 says it too"],
    ),
}

NODE_PROBLEMS = {
    "endpoint flags": (
        (
            "mptcp: {endpoints: [{interface: eth0, flags: [signal, fullmesh]}, "
            "{interface: eth1, flags: [signl]}]}"
        ),
        [
            "4:52: 'signal' and 'fullmesh' exclude each other — the kernel refuses both",
            "4:99: 'flags' cannot be 'signl' — did you mean 'signal'?",
        ],
    ),
    "endpoint port": (
        "mptcp: {endpoints: [{interface: eth0, flags: [subflow], port: 1}]}",
        ["4:69: 'port' needs the flag 'signal' and not 'subflow' — only announced addresses have one"],
    ),
    "endpoint port of a subflow endpoint": (
        "mptcp: {endpoints: [{interface: eth0, flags: [signal, subflow], port: 1}]}",
        ["4:77: 'port' needs the flag 'signal' and not 'subflow' — only announced addresses have one"],
    ),
    "endpoint ids": (
        (
            "mptcp: {endpoints: [{address: 10.0.1.1, flags: [], id: 0}, "
            "{address: 10.0.2.1, flags: [], id: 256}]}"
        ),
        ["4:62: 'id' must be at least 1, not 0", "4:101: 'id' must be at most 255, not 256"],
    ),
    "endpoint id twice": (
        "mptcp: {endpoints: [{address: 10.0.1.1, flags: [], id: 1}, {address: 10.0.2.1, flags: [], id: 1}]}",
        ["4:101: endpoint id 1 is given twice"],
    ),
    "endpoint without a place": (
        "mptcp: {endpoints: [{flags: []}, {interface: eth0, flags: [], id: 1}]}",
        [
            "4:27: an endpoint needs 'interface' or 'address'",
            "4:73: 'id' needs 'address' — an interface has several addresses, an id belongs to one",
        ],
    ),
    "endpoint elsewhere": (
        "mptcp: {endpoints: [{interface: eth2, flags: []}, {address: 10.0.1.2, flags: []}]}",
        [
            "4:39: the host has no interface 'eth2' — did you mean 'eth1'?",
            (
                "4:67: the host has no address 10.0.1.2 — known: 10.0.1.1/24, fd00:0:0:1::1/64, 10.0.2.1/24,"
                " fd00:0:0:2::1/64"
            ),
        ],
    ),
    "endpoint of another interface": (
        "mptcp: {endpoints: [{interface: eth0, address: 10.0.2.1, flags: []}]}",
        ["4:39: 10.0.2.1 is an address of 'eth1'"],
    ),
    "endpoint twice": (
        "mptcp: {endpoints: [{interface: eth0, flags: []}, {address: 10.0.1.1, flags: [signal, signal]}]}",
        ["4:57: 10.0.1.1 is an endpoint already", "4:84: a flag is given twice"],
    ),
    "limits": (
        "mptcp: {limits: {subflows: -1, add_addr_accepted: 9}}",
        ["4:34: 'subflows' must be at least 0, not -1", "4:57: 'add_addr_accepted' must be at most 8, not 9"],
    ),
    "endpoints word": (
        "mptcp: {endpoints: all}",
        ["4:26: 'endpoints' cannot be 'all' — it is 'auto'"],
    ),
    "route of mixed families": (
        "routes: [{to: 10.9.0.0/24, via: 'fd00:0:0:1::2'}]",
        ["4:16: a route cannot mix IPv4 and IPv6"],
    ),
    "route to nowhere": (
        "routes: [{to: default, interface: eth0}, {to: 10.9.0.1/24}]",
        [
            "4:21: 'default' of which family? — write '0.0.0.0/0' or '::/0', or say 'via'",
            "4:53: 10.9.0.1/24 has host bits set; the network is 10.9.0.0/24",
        ],
    ),
    "route without a way": (
        "routes: [{to: 10.9.0.1}]",
        ["4:16: a route needs 'via' or 'interface'"],
    ),
    "route over nobody": (
        (
            "routes: [{to: default, via: 10.9.0.1}, {to: default, via: 10.0.2.2, interface: eth0},"
            " {to: default, via: 10.0.1.1}]"
        ),
        [
            (
                "4:35: 10.9.0.1 is not in a subnet of any interface"
                " — known: 10.0.1.1/24, fd00:0:0:1::1/64, 10.0.2.1/24, fd00:0:0:2::1/64"
            ),
            "4:65: 10.0.2.2 is not in a subnet of interface 'eth0' — known: 10.0.1.1/24, fd00:0:0:1::1/64",
            "4:112: 10.0.1.1 is the node's own address — 'via' names the next router's",
        ],
    ),
    "route from elsewhere": (
        "routes: [{to: default, via: 10.0.1.2, from: 10.0.1.9, metric: -1}, {to: '::/0', interface: wlan0}]",
        [
            (
                "4:51: the node has no address 10.0.1.9"
                " — known: 10.0.1.1/24, fd00:0:0:1::1/64, 10.0.2.1/24, fd00:0:0:2::1/64"
            ),
            "4:69: 'metric' must be at least 0, not -1",
            "4:98: the node has no interface 'wlan0' — known: eth0, eth1",
        ],
    ),
}


@pytest.mark.parametrize(("nodes", "links", "expected"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_problems_of_addresses(nodes: str, links: str, expected: list[str]) -> None:
    assert problems_of(lab(nodes, links)) == expected


@pytest.mark.parametrize(("settings", "expected"), NODE_PROBLEMS.values(), ids=NODE_PROBLEMS.keys())
def test_problems_of_a_host(settings: str, expected: list[str]) -> None:
    text = lab(f"  a: {{{settings}}}\n  b: {{}}\n", "  - endpoints: [a, b]\n  - endpoints: [a, b]\n")
    assert problems_of(text) == expected


def test_a_host_has_no_more_endpoints_than_the_kernel_holds() -> None:
    nodes = "  a: {mptcp: {endpoints: auto}}\n  b: {}\n"
    assert len(load(lab(nodes, "  - endpoints: [a, b]\n" * 5)).node("a").mptcp.endpoints) == 8
    found = problems_of(lab(nodes, "  - endpoints: [a, b]\n" * 6))
    assert found == ["4:26: 10 endpoints; a host has at most 8"]
