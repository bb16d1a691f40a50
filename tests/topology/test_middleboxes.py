"""Boxes on links: what a file says, what is made of it, and mistakes at their places."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from testbed.backend.impaired_links import choose_realisation, cut_links, link_configurations
from testbed.backend.simulated.lab import SimulatedLab
from testbed.backend.stored_topology import topology_from_json, topology_to_json
from testbed.errors import CapabilityError, TopologyError
from testbed.middlebox.settings import KINDS, BoxSettings, Reset, Split, Strip
from testbed.topology.load import load_text
from testbed.topology.middleboxes import BOX_FILES
from testbed.topology.model import LinkEnd, Realisation, Topology
from testbed.topology.plan import describe
from testbed.topology.problems import ProblemCollector


def load(middlebox: str, rest: str = "") -> Topology:
    text = (
        "version: 1\nname: boxed\nnodes: {a: {}, b: {}}\n"
        f"{rest}links:\n  - endpoints: [a, b]\n    middlebox: {middlebox}\n"
    )
    return load_text(text, ProblemCollector("boxed"))


def boxes(middlebox: str) -> tuple[BoxSettings, ...]:
    (link,) = load(middlebox).links
    return link.middlebox


def test_boxes_come_in_the_order_of_the_format() -> None:
    said = "{reset: {after_bytes: 9, direction: '<-'}, split: , strip: {subtypes: [dss], packets: [data]}}"
    assert boxes(said) == (Strip("both", ("dss",), ("data",)), Split(), Reset("<-", 9))
    assert boxes("{}") == ()


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_of_the_format_are_those_of_the_boxes(kind: str) -> None:
    said = {"nat44": "address: 10.0.1.9", "nat66": "address: 'fd00:0:0:1::9'"}.get(kind, "")
    (box,) = boxes(f"{{{kind}: {{{said}}}}}")
    address = {"address": said.partition(": ")[2].strip("'")} if said else {}
    assert asdict(box) == asdict(KINDS[kind]()) | address
    fields = {name.removesuffix("_us") for name in asdict(KINDS[kind]())}
    assert set(BOX_FILES[kind].model_fields) == fields - {"kind"}


@pytest.mark.parametrize(
    ("middlebox", "column", "problem"),
    [
        ("{splt: {}}", 17, "unknown key 'splt' — did you mean 'split'?"),
        ("{strip: {subtypes: [mp_capabel]}}", 36, "cannot be 'mp_capabel' — did you mean 'mp_capable'?"),
        ("{strip: {subtypes: []}}", 35, "'subtypes'"),
        ("{strip: {pakets: [syn]}}", 25, "unknown key 'pakets' — did you mean 'packets'?"),
        ("{reset: {after_bytes: -1}}", 38, "'after_bytes' must be at least 0, not -1"),
        ("{split: {payload_bytes: 0}}", 40, "'payload_bytes' must be at least 1, not 0"),
        ("{rewrite: yes}", 26, "'rewrite' must be a mapping, not 'yes'"),
        ("{firewall: {direction: both}}", 39, "'direction' cannot be 'both'"),
        ("{nat44: {}}", 24, "'address' is missing"),
        ("{nat44: }", 17, "'nat44' needs an 'address' — of its outer side"),
        ("{nat44: {address: 10.0.1.9, direction: both}}", 55, "'direction' cannot be 'both'"),
        ("{nat44: {address: 10.0.1.9, idle_timeout: 5}}", 58, "a time needs a unit, like '5ms'"),
        ("{nat44: {address: 'fd00::1'}}", 34, "fd00::1 is no address of IPv4"),
        ("{nat66: {address: 'fd00:0:0:1::1'}}", 34, "a:eth0 has fd00:0:0:1::1 already"),
        ("{nat44: {address: 10.9.9.9}}", 34, "10.9.9.9 is in no network of the link — they are 10.0.1.0/24"),
        ("{coalesce: {options: last}}", 37, "'options' cannot be 'last'"),
    ],
)
def test_mistakes_are_reported_at_their_places(middlebox: str, column: int, problem: str) -> None:
    with pytest.raises(TopologyError) as raised:
        load(middlebox)
    assert f"boxed:6:{column}: " in str(raised.value)
    assert problem in str(raised.value)


def test_a_box_beside_its_key_is_pointed_to_it() -> None:
    with pytest.raises(TopologyError, match="put it under 'middlebox'"):
        load("{}\n    split: {}")


def test_plan_shows_the_boxes() -> None:
    shown = describe(load("{strip: {packets: [syn]}, split: {}}"))
    assert "mtu 1500  strip {packets: [syn]}  split {}" in shown


def test_boxes_survive_the_labs_file() -> None:
    said = ["nat44: {address: 10.0.1.9}", "nat66: {address: 'fd00:0:0:1::9', idle_timeout: 5s}"]
    said += [f"{kind}: " for kind in KINDS if not kind.startswith("nat")]
    topology = load("{" + ", ".join(said) + "}")
    assert topology_from_json(topology_to_json(topology)) == topology


def test_a_link_with_a_box_needs_the_emulator() -> None:
    built = cut_links(load("{split: {}}"))
    assert choose_realisation(built) is Realisation.EMULATOR
    (link,) = link_configurations(built.links, seed=1)
    assert link.middlebox == (Split(),)
    with pytest.raises(CapabilityError, match="netem is no middlebox"):
        choose_realisation(cut_links(replace(load("{split: {}}"), impairments=Realisation.NETEM)))


def test_simulated_links_have_boxes() -> None:
    with SimulatedLab(load("{split: {}}"), seed=1) as lab:
        for wire, _direction in lab.wires(LinkEnd("a", "eth0")):
            assert wire.rewrite is not None
            assert list(wire.rewrite(b"no packet", 0)) == [b"no packet"]
