"""The shipped topologies: what they are, and that every host address is reachable from every host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_address

import jsonschema
import pytest

from testbed.errors import TopologyError
from testbed.topology import NodeKind, StackKind, Topology, builtin_names, load_topology
from testbed.topology.document import parse_document, plain_value
from testbed.topology.load import load_text
from testbed.topology.problems import ProblemCollector
from testbed.topology.schema import SCHEMA_FILE
from testbed.topology.template import render
from tests.topology.path_walker import walk_everything

LABS = ("one-path", "two-paths", "four-links", "four-paths", "chain")
WITH_TWO_HOSTS = (*LABS, "wifi-and-lte", "mtu-mismatch", "shared-bottleneck")


def addresses(topology: Topology, node: str, interface: str) -> list[str]:
    return [str(address) for address in topology.node(node).interface(interface).addresses]


def test_all_are_found_by_name() -> None:
    assert builtin_names() == (
        "chain",
        "four-links",
        "four-paths",
        "incast",
        "mtu-mismatch",
        "one-path",
        "roaming",
        "shared-bottleneck",
        "simult-flows",
        "star",
        "two-paths",
        "wifi-and-lte",
    )


@pytest.mark.parametrize("name", builtin_names())
def test_every_host_address_is_reachable_from_every_host(name: str) -> None:
    topology = load_topology(name)
    assert walk_everything(topology)
    assert topology.name == name
    assert topology.source is not None


@pytest.mark.parametrize("name", WITH_TWO_HOSTS)
def test_a_path_is_the_same_both_ways(name: str) -> None:
    """A subflow must not depend on two paths."""
    paths = walk_everything(load_topology(name))
    for (source, destination), path in paths.items():
        back = paths[destination, source]
        routers = [step.partition(":")[0] for step in path[1:]]
        assert routers == [step.partition(":")[0] for step in reversed(back[1:])]
        if not routers:
            assert path[0].partition(":")[2] == back[0].partition(":")[2]


@pytest.mark.parametrize("name", WITH_TWO_HOSTS)
def test_stacks_default_to_userspace_and_can_be_chosen(name: str) -> None:
    topology = load_topology(name)
    assert [host.stack for host in topology.hosts()] == [StackKind.USERSPACE] * 2
    chosen = load_topology(name, {"client_stack": "kernel", "server_stack": "tcp"})
    assert chosen.node("client").stack is StackKind.KERNEL
    assert chosen.node("server").stack is StackKind.TCP


@pytest.mark.parametrize("name", LABS)
def test_both_directions_take_the_rate_once(name: str) -> None:
    topology = load_topology(name, {"rate": "20mbit"})
    rates = [link.forward.rate_bit_s for link in topology.links]
    rates += [link.backward.rate_bit_s for link in topology.links]
    paths = {"one-path": 1, "two-paths": 2, "four-links": 4, "four-paths": 4, "chain": 1}[name]
    assert sorted(rate for rate in rates if rate is not None) == [20_000_000] * 2 * paths


@pytest.mark.parametrize("name", ["one-path", "two-paths", "chain"])
def test_rates_are_never_on_a_host(name: str) -> None:
    topology = load_topology(name, {"rate": "20mbit"})
    for link in topology.links:
        for end, impairment in ((link.first, link.forward), (link.second, link.backward)):
            if topology.node(end.node).kind is NodeKind.HOST:
                assert impairment.rate_bit_s is None


def test_two_paths_are_disjoint_by_the_clients_source_address() -> None:
    topology = load_topology("two-paths")
    paths = walk_everything(topology)
    for (source, _), path in paths.items():
        if str(source) in ("10.0.1.1", "fd00:0:0:1::1"):
            assert path == ["client:eth0", "r1:eth1"]
        if str(source) in ("10.0.3.1", "fd00:0:0:3::1"):
            assert path == ["client:eth1", "r2:eth1"]
    assert paths[ip_address("10.0.2.2"), ip_address("10.0.3.1")] == ["server:eth1", "r2:eth0"]


def test_four_links_have_the_addresses_of_the_kernels_join_tests() -> None:
    topology = load_topology("four-links")
    for link in range(4):
        assert addresses(topology, "server", f"eth{link}")[0] == f"10.0.{link + 1}.1/24"
        assert addresses(topology, "client", f"eth{link}")[0] == f"10.0.{link + 1}.2/24"
    defaults = [
        (str(route.gateway), route.interface, route.metric)
        for route in topology.node("client").routes
        if route.source is None and str(route.destination) == "0.0.0.0/0"
    ]
    assert defaults == [(f"10.0.{link + 1}.1", f"eth{link}", 10 * (link + 1)) for link in range(4)]


def test_one_path_and_chain_have_one_default_route_per_host_and_family() -> None:
    for name in ("one-path", "chain"):
        for host in load_topology(name).hosts():
            assert [str(route.destination) for route in host.routes] == ["0.0.0.0/0", "::/0"]


@pytest.mark.parametrize(("hosts", "prefix"), [(1, 24), (254, 24), (255, 23), (1100, 21)])
def test_a_star_has_one_subnet_with_room_for_all(hosts: int, prefix: int) -> None:
    topology = load_topology("star", {"hosts": str(hosts)})
    seen = {address for host in topology.hosts() for address in addresses(topology, host.name, "eth0")}
    assert len(topology.hosts()) == hosts
    assert len(seen) == 2 * hosts
    networks = {address.network for host in topology.hosts() for address in host.interface("eth0").addresses}
    assert sorted(network.prefixlen for network in networks) == [prefix, 64]
    assert not any(host.routes for host in topology.hosts())
    assert len({interface.mac for node in topology.nodes for interface in node.interfaces}) == 2 * hosts


@pytest.mark.parametrize("name", builtin_names())
@pytest.mark.parametrize("variables", [{}, {"rate": "5mbit", "client_stack": "kernel"}])
def test_the_schema_accepts_it(name: str, variables: Mapping[str, str]) -> None:
    source = load_topology(name).source
    assert source is not None
    if name in {"simult-flows", "star", "wifi-and-lte", "mtu-mismatch"}:
        variables = {}
    problems = ProblemCollector(name)
    text, _ = render(source.read_text("utf-8"), variables, problems)
    document = parse_document(text, problems)
    assert document is not None
    assert not len(problems)
    schema = json.loads(SCHEMA_FILE.read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(plain_value(document))


def test_unknown_names_and_variables_are_refused_with_a_hint() -> None:
    with pytest.raises(TopologyError, match=r"no topology is called 'two-path'.*did you mean 'two-paths'"):
        load_topology("two-path")
    with pytest.raises(
        TopologyError, match=r"no variable is called 'client-stack'.*did you mean 'client_stack'"
    ):
        load_topology("two-paths", {"client-stack": "kernel"})
    with pytest.raises(TopologyError, match=r":16:\d+: 'stack' cannot be 'kernal' — did you mean 'kernel'\?"):
        load_topology("two-paths", {"client_stack": "kernal"})


def test_the_same_file_always_gives_the_same_topology() -> None:
    assert load_topology("two-paths") == load_topology("two-paths")
    text = "version: 1\nname: {}\nnodes: {{a: {{}}, b: {{}}}}\nlinks: [{{endpoints: [a, b]}}]\n"
    one = load_text(text.format("one"), ProblemCollector("one"))
    other = load_text(text.format("other"), ProblemCollector("other"))
    assert one.node("a").interfaces[0].mac != other.node("a").interfaces[0].mac
    for topology in (one, other):
        for node in topology.nodes:
            assert int(node.interfaces[0].mac[:2], 16) & 3 == 2, "locally administered, unicast"
