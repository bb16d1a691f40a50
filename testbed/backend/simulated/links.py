"""What a link of a topology is in a simulation, and how it changes while time passes there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.device.link_model import LinkSettings
from mptcp_stack.simulator import Link as SimulatedLink
from testbed.backend.impaired_links import ImpairedLink
from testbed.backend.link_control import BACKWARD, FORWARD, DirectionState, LinkState, directions_of
from testbed.middlebox.chain import Middlebox
from testbed.middlebox.settings import BoxSettings
from testbed.topology.impairments import link_settings
from testbed.topology.model import Impairment, Link, LinkEnd

SIMULATED = "link model of the simulator"
"""What a link's realisation is called where people read it."""
CABLE_DELAY_US = 50
"""Of a link of which nothing is asked: time has to pass on it, or a transfer would take none."""


def wire_settings(impairment: Impairment, mtu: int) -> WireSettings:
    """One direction of a link, under the model that namespace labs use too."""
    settings = link_settings(impairment, mtu)
    values = {field.name: getattr(settings, field.name) for field in fields(LinkSettings)}
    return WireSettings(**(values | {"delay_us": max(settings.delay_us, CABLE_DELAY_US)}))


def put_middlebox(boxes: Sequence[BoxSettings], simulated: SimulatedLink, seed: int) -> None:
    """Boxes in the middle of a simulated link, in the place of those that were there."""
    if not boxes:
        simulated.forward.rewrite = simulated.backward.rewrite = None
        return
    middlebox = Middlebox(boxes, seed)
    simulated.forward.rewrite = lambda frame, index: middlebox.forward(frame)
    simulated.backward.rewrite = lambda frame, index: middlebox.backward(frame)


class SimulatedRealiser:
    """See :class:`testbed.backend.link_control.Realiser`: every link of a simulation can be changed."""

    def __init__(self, links: Mapping[LinkEnd, SimulatedLink], seed_of: Callable[[Link, str], int]) -> None:
        self._links = links
        self._seed_of = seed_of
        self._impairments: dict[tuple[str, str], Impairment] = {}
        """By the simulated link's name, which stays when a cable is plugged in elsewhere."""
        self._boxes: dict[str, tuple[BoxSettings, ...]] = {}

    def state(self, impaired: ImpairedLink) -> LinkState:
        link = impaired.link
        simulated = self._links[link.first]
        states = []
        for direction, sender, receiver in directions_of(link):
            wire = simulated.forward if direction == FORWARD else simulated.backward
            counters = {field.name: getattr(wire.counters, field.name) for field in fields(wire.counters)}
            impairment = self._in_force(link, direction)
            states.append(
                DirectionState(sender, receiver, impairment, SIMULATED, counters, wire.frames_in_flight)
            )
        return LinkState(link, states[0], states[1], self._boxes.get(simulated.name, link.middlebox))

    def _in_force(self, link: Link, direction: str) -> Impairment:
        asked = link.forward if direction == FORWARD else link.backward
        return self._impairments.get((self._links[link.first].name, direction), asked)

    def put(self, impaired: ImpairedLink, wanted: Mapping[str, Impairment]) -> None:
        link = impaired.link
        simulated = self._links[link.first]
        wires = {FORWARD: simulated.forward, BACKWARD: simulated.backward}
        for direction, impairment in wanted.items():
            wires[direction].settings = wire_settings(impairment, link.mtu)
            self._impairments[simulated.name, direction] = impairment

    def put_boxes(self, impaired: ImpairedLink, boxes: Sequence[BoxSettings]) -> None:
        link = impaired.link
        put_middlebox(boxes, self._links[link.first], self._seed_of(link, FORWARD))
        self._boxes[self._links[link.first].name] = tuple(boxes)
