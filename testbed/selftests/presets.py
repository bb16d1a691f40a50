"""Impairments by name, for ``--impair``: what a whole matrix can be played over.

A preset holds for every link of the server, in both directions, where its case asks for nothing itself. Over
``lossy`` and ``reordering`` the exact counts of a case need not hold: an echo of ADD_ADDR may be lost, and
data that overtakes the third packet of the handshake makes either stack fall back (RFC 8684 §3.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from testbed.topology.impairments import combine, parse_word, split_words
from testbed.topology.model import Impairment, Link, Topology

NO_IMPAIRMENT = "none"

PRESETS: Mapping[str, str] = {
    NO_IMPAIRMENT: "",
    "dsl": "rate 16mbit delay 15ms",
    "lte": "rate 30mbit delay 25ms",
    "wifi": "rate 60mbit delay 3ms",
    "satellite": "rate 20mbit delay 270ms",
    "lossy": "delay 10ms loss 1%",
    "reordering": "delay 10ms reorder 5% 50%",
}
"""Name → what is asked, in the words of topology files."""


def impairment_of(preset: str) -> Impairment:
    """Raises KeyError for an unknown name."""
    text = PRESETS[preset]
    if not text:
        return Impairment()
    return combine({word: parse_word(word, value) for word, value in split_words(text).items()})


def with_preset(topology: Topology, preset: str) -> Topology:
    """The topology with the server's links impaired so."""
    if preset == NO_IMPAIRMENT:
        return topology
    impairment = impairment_of(preset)
    return replace(topology, links=tuple(_impaired(link, impairment) for link in topology.links))


def _impaired(link: Link, impairment: Impairment) -> Link:
    if "server" not in (link.first.node, link.second.node):
        return link
    if not (link.forward.is_nothing and link.backward.is_nothing):
        return link
    return replace(link, forward=impairment, backward=impairment)
