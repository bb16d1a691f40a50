"""Derived routes on random topologies, walked packet by packet."""

from __future__ import annotations

import random

import pytest

from testbed.errors import TopologyError
from testbed.topology import Topology
from testbed.topology.load import load_text
from testbed.topology.problems import ProblemCollector
from tests.topology.path_walker import PathWalker, host_addresses, walk_everything


def random_topology(seed: int) -> Topology:
    """Routers in a connected graph, with switches in between, and hosts with one to three links to them."""
    choose = random.Random(seed)
    routers = [f"r{number}" for number in range(choose.randint(1, 6))]
    switches = [f"s{number}" for number in range(choose.randint(0, 3))]
    hosts = [f"h{number}" for number in range(choose.randint(2, 5))]
    links = [(router, choose.choice(routers[:number])) for number, router in enumerate(routers) if number]
    links += [(switch, choose.choice(routers)) for switch in switches]
    for _ in range(choose.randint(0, 4)):
        first, second = choose.choice(routers), choose.choice(routers + switches)
        if first != second:
            links.append((first, second))
    for host in hosts:
        links += [(host, choose.choice(routers + switches)) for _ in range(choose.randint(1, 3))]
    nodes = hosts + routers + switches
    choose.shuffle(nodes)
    kinds = {"h": "host", "r": "router", "s": "switch"}
    text = "version: 1\nname: random\nnodes:\n"
    text += "".join(f"  {name}: {{kind: {kinds[name[0]]}}}\n" for name in nodes)
    text += "links:\n" + "".join(f"  - endpoints: [{first}, {second}]\n" for first, second in links)
    return load_text(text, ProblemCollector(f"seed {seed}"))


def disjoint_topology(seed: int) -> Topology:
    """Two hosts over several islands that no router joins, each a chain of routers, some hosts beside."""
    choose = random.Random(seed)
    nodes = {"b": "host", "a": "host"}
    links = []
    for island in range(choose.randint(2, 4)):
        previous = "a"
        for hop in range(choose.randint(0, 3)):
            router = f"r{island}x{hop}"
            nodes[router] = "router"
            links.append((previous, router))
            if choose.random() < 0.3:
                nodes[f"h{island}x{hop}"] = "host"
                links.append((router, f"h{island}x{hop}"))
            previous = router
        links.append((previous, "b"))
    text = "version: 1\nname: disjoint\nnodes:\n"
    text += "".join(f"  {name}: {{kind: {kind}}}\n" for name, kind in nodes.items())
    text += "links:\n" + "".join(f"  - endpoints: [{first}, {second}]\n" for first, second in links)
    return load_text(text, ProblemCollector(f"seed {seed}"))


@pytest.mark.parametrize("seed", range(60))
def test_everybody_reaches_everybody_over_routers(seed: int) -> None:
    topology = random_topology(seed)
    interface_of = {address: f"{host}:{interface}" for host, interface, address in host_addresses(topology)}
    for (source, _), path in walk_everything(topology).items():
        assert path[0] == interface_of[source], "packets leave by the interface that has their source"


@pytest.mark.parametrize("seed", range(40))
def test_over_islands_both_directions_take_one_path(seed: int) -> None:
    topology = disjoint_topology(seed)
    walker = PathWalker(topology)
    addresses = [entry for entry in host_addresses(topology) if entry[0] in "ab"]
    for sender, interface, source in addresses:
        for receiver, _, destination in addresses:
            if sender == receiver or source.version != destination.version:
                continue
            path = [step.partition(":")[0] for step in walker.path(sender, destination, source)]
            back = [step.partition(":")[0] for step in walker.path(receiver, source, destination)]
            assert path[1:] == back[:0:-1]
            if sender == "b":
                # The file names it first: its addresses decide.
                assert walker.path(sender, destination, source)[0] == f"b:{interface}"
            walker.path(sender, destination, None)


def test_routers_take_the_shortest_way() -> None:
    text = (
        "version: 1\nname: ring\nnodes: {a: {}, b: {}, r1: {kind: router}, r2: {kind: router},"
        " r3: {kind: router}, r4: {kind: router}}\nlinks:\n"
        + "".join(
            f"  - endpoints: [{ends}]\n" for ends in ("a, r1", "r1, r2", "r2, r3", "r3, b", "r1, r4", "r4, b")
        )
    )
    topology = load_text(text, ProblemCollector("ring"))
    walk_everything(topology)
    walker = PathWalker(topology)
    destination = topology.node("b").interface("eth1").addresses[0].ip
    assert walker.path("a", destination, None) == ["a:eth0", "r1:eth2", "r4:eth1"]


def test_several_subnets_on_one_link() -> None:
    text = (
        "version: 1\nname: lab\nnodes: {a: {}, b: {}, r: {kind: router}, c: {}}\nlinks:\n"
        "  - endpoints: [{node: a, addresses: [10.1.0.1/24]}, s]\n"
        "  - endpoints: [{node: b, addresses: [10.2.0.1/24]}, s]\n"
        "  - endpoints: [{node: r, addresses: [10.1.0.9/24, 10.2.0.9/24]}, s]\n"
        "  - endpoints: [r, c]\n"
    ).replace("c: {}}", "c: {}, s: {kind: switch}}")
    topology = load_text(text, ProblemCollector("lab"))
    paths = {(str(a), str(b)): path for (a, b), path in walk_everything_ipv4(topology).items()}
    assert paths["10.1.0.1", "10.2.0.1"] == ["a:eth0", "r:eth0"]


def walk_everything_ipv4(topology: Topology) -> dict[tuple[object, object], list[str]]:
    walker = PathWalker(topology)
    addresses = [entry for entry in host_addresses(topology) if entry[2].version == 4]
    return {
        (source, destination): walker.path(sender, destination, source)
        for sender, _, source in addresses
        for receiver, _, destination in addresses
        if sender != receiver
    }


def test_files_that_would_need_too_many_routes_are_refused() -> None:
    routers = 1000
    text = "version: 1\nname: huge\nnodes:\n  a: {}\n  b: {}\n"
    text += "".join(f"  r{number}: {{kind: router}}\n" for number in range(routers))
    text += "links:\n  - endpoints: [a, r0]\n"
    text += "".join(f"  - endpoints: [r{number}, r{number + 1}]\n" for number in range(routers - 1))
    text += f"  - endpoints: [r{routers - 1}, b]\n"
    with pytest.raises(TopologyError, match=r"huge:3:1: too large: up to 2002000 routes"):
        load_text(text, ProblemCollector("huge"))
