"""Impairments by name: every one can be read, and they stand where the case asks for nothing."""

from __future__ import annotations

import pytest

from testbed.selftests.presets import PRESETS, impairment_of, with_preset
from testbed.topology.impairments import contradictions, impairment_text
from testbed.topology.load import load_topology


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_says_something_that_can_be(name: str) -> None:
    impairment = impairment_of(name)
    assert impairment.is_nothing == (name == "none")
    assert list(contradictions(impairment)) == []


def test_the_servers_links_are_impaired_both_ways() -> None:
    topology = with_preset(load_topology("two-paths"), "lossy")
    asked = {
        (link.first.node, link.second.node): (impairment_text(link.forward), impairment_text(link.backward))
        for link in topology.links
    }
    lossy = PRESETS["lossy"]
    assert asked == {
        ("client", "r1"): ("", ""),
        ("r1", "server"): (lossy, lossy),
        ("client", "r2"): ("", ""),
        ("r2", "server"): (lossy, lossy),
    }


def test_what_the_case_asks_for_stays() -> None:
    topology = load_topology("two-paths", {"rate": "20mbit"})
    assert with_preset(topology, "dsl") == topology
    assert with_preset(topology, "none") is topology
