"""Middleboxes as nodes: on which link they do their work, which way round, and mistakes at their places."""

from __future__ import annotations

import pytest

from testbed.backend.stored_topology import topology_from_json, topology_to_json
from testbed.errors import TopologyError
from testbed.middlebox.settings import DropIcmpErrors, Firewall, Nat44, Reset, Split, Strip
from testbed.topology.load import load_text
from testbed.topology.model import NodeKind, Topology
from testbed.topology.plan import describe
from testbed.topology.problems import ProblemCollector

FIREWALL = "fw: {kind: middlebox, middlebox: {firewall: {}, strip: {direction: '<-'}, split: {}}}"


def load(nodes: str, *links: str) -> Topology:
    text = f"version: 1\nname: boxed\nnodes:\n  a: {{}}\n  b: {{}}\n  {nodes}\nlinks:\n"
    text += "".join(f"  - {{{link}}}\n" for link in links)
    return load_text(text, ProblemCollector("boxed"))


def test_a_middlebox_is_passed_from_its_first_link_to_its_second() -> None:
    topology = load(FIREWALL, "endpoints: [a, fw]", "endpoints: [fw, b]")
    boxes = (Firewall("->"), Strip("<-"), Split())
    assert [link.middlebox for link in topology.links] == [boxes, ()]
    assert topology.node("fw").kind is NodeKind.MIDDLEBOX
    # one network for both links
    ends = [topology.node(name).interfaces[0].addresses[0] for name in ("a", "b")]
    assert [str(end) for end in ends] == ["10.0.1.1/24", "10.0.1.2/24"]
    assert topology_from_json(topology_to_json(topology)) == topology
    assert "middlebox fw" in describe(topology)


def test_the_first_link_may_begin_at_the_middlebox() -> None:
    topology = load(FIREWALL, "endpoints: [fw, a]", "endpoints: [fw, b]")
    assert [link.middlebox for link in topology.links] == [(Split(), Strip("->"), Firewall("<-")), ()]


def test_boxes_of_a_link_stand_between_those_of_its_nodes() -> None:
    topology = load(
        "one: {kind: middlebox, middlebox: {reset: {direction: '->'}}}\n"
        "  two: {kind: middlebox, middlebox: {firewall: }}",
        "endpoints: [one, two], middlebox: {split: }",
        "endpoints: [a, one]",
        "endpoints: [two, b]",
    )
    assert [link.middlebox for link in topology.links] == [(Reset("<-"), Split(), Firewall("->")), (), ()]


def test_a_translator_has_an_address_of_its_network() -> None:
    nat = "nat: {kind: middlebox, middlebox: {nat44: {address: 10.0.1.9}, drop_icmp_errors: }}"
    topology = load(nat, "endpoints: [a, nat]", "endpoints: [nat, b]")
    assert topology.links[0].middlebox == (Nat44(address="10.0.1.9"), DropIcmpErrors())


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        ("x: {kind: middlebox}", "boxed:6:3: 'x' needs a 'middlebox' — what it does to packets"),
        (
            "x: {kind: switch, middlebox: {split: }}",
            "boxed:6:21: a switch does nothing to packets — say 'kind: middlebox'",
        ),
        (
            "x: {kind: middlebox, middlebox: {split: }, stack: kernel}",
            "boxed:6:46: a middlebox has no 'stack' — only hosts have",
        ),
        (
            "x: {kind: middlebox, middlebox: {split: }, routes: [{to: default, via: 10.0.1.1}]}",
            "boxed:6:46: a middlebox has no routes — only hosts and routers have",
        ),
        (
            "x: {kind: middlebox, middlebox: {split: }, interfaces: {eth0: {addresses: [10.0.1.3/24]}}}",
            "boxed:6:77: 'x' is a middlebox: its interfaces have no addresses — remove them",
        ),
        (
            "x: {kind: middlebox, middlebox: {nat44: {address: 10.7.0.1}}}",
            "boxed:6:53: 10.7.0.1 is in no network of the link — they are 10.0.1.0/24, fd00:0:0:1::/64",
        ),
        (
            "x: {kind: middlebox, middlebox: {nat44: {address: 10.0.1.2}}}",
            "boxed:6:53: b:eth0 has 10.0.1.2 already — the outer side needs one of its own",
        ),
    ],
)
def test_mistakes_are_told_at_their_places(node: str, problem: str) -> None:
    with pytest.raises(TopologyError) as caught:
        load(node, "endpoints: [a, x]", "endpoints: [x, b]")
    assert str(caught.value).splitlines() == [problem]


def test_a_middlebox_has_two_links() -> None:
    with pytest.raises(TopologyError, match=r"boxed:6:3: a middlebox has two links, 'fw' has 3"):
        load(FIREWALL, *["endpoints: [a, fw]"] * 2, "endpoints: [fw, b]")


def test_middleboxes_make_no_loop() -> None:
    with pytest.raises(TopologyError, match="closes a loop of switches or middleboxes"):
        load(
            f"{FIREWALL}\n  s: {{kind: switch}}",
            *["endpoints: [s, fw]"] * 2,
            "endpoints: [a, s]",
            "endpoints: [s, b]",
        )
