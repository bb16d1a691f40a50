"""On which link a middlebox does its work: what it says becomes boxes of its first link."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from testbed.middlebox.settings import BoxSettings
from testbed.topology.raw import NodeFile, TopologyFile
from testbed.topology.wiring import Wiring

_OPPOSITE = {"->": "<-", "<-": "->"}


def link_boxes(file: TopologyFile, wiring: Wiring) -> list[tuple[BoxSettings, ...]]:
    """The boxes of each link, from its first end to its second: its own ones between those of its nodes."""
    first_links = _first_links(wiring)
    placed = []
    for index, link in enumerate(file.links):
        before, behind = (
            _boxes(file.nodes[end.node]) if first_links.get(end.node) == index else ()
            for end in link.endpoints
        )
        placed.append((*_turned(before), *link.middlebox.boxes(), *behind))
    return placed


def _first_links(wiring: Wiring) -> dict[str, int]:
    found: dict[str, int] = {}
    for port in wiring.ports:
        found.setdefault(port.node, port.link)
    return found


def _boxes(node: NodeFile) -> tuple[BoxSettings, ...]:
    return node.middlebox.boxes() if node.middlebox is not None else ()


def _turned(boxes: tuple[BoxSettings, ...]) -> Iterator[BoxSettings]:
    """Seen from the other side."""
    for box in reversed(boxes):
        yield replace(box, direction=_OPPOSITE.get(box.direction, box.direction))
