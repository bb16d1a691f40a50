"""What a link of a topology is in a simulation, and how it changes while time passes there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial

from mptcp_stack.device.in_memory import Wire, WireSettings
from mptcp_stack.device.link_model import LinkSettings
from mptcp_stack.simulator import Link as SimulatedLink
from mptcp_stack.simulator import Simulator
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


class LinkBoxes:
    """Boxes in the middle of a simulated link, in the place of those that were there."""

    def __init__(
        self, boxes: Sequence[BoxSettings], simulated: SimulatedLink, seed: int, simulator: Simulator
    ) -> None:
        self.settings = tuple(boxes)
        self.middlebox = Middlebox(boxes, seed)
        self._simulator = simulator
        self._awaited_us: dict[str, int] = {}
        for direction, wire in ((FORWARD, simulated.forward), (BACKWARD, simulated.backward)):
            wire.rewrite = partial(self._pass, direction, wire) if boxes else None

    def _pass(self, direction: str, wire: Wire, frame: bytes, _index: int) -> list[bytes]:
        change = self.middlebox.forward if direction == FORWARD else self.middlebox.backward
        passing = change(frame, self._simulator.now_us)
        self._await_release(direction, wire)
        return passing

    def _await_release(self, direction: str, wire: Wire) -> None:
        at_us = self.middlebox.next_release_us(direction)
        if at_us is not None and at_us != self._awaited_us.get(direction):
            self._awaited_us[direction] = at_us
            self._simulator.call_at(at_us, partial(self._release, direction, wire))

    def _release(self, direction: str, wire: Wire) -> None:
        self._awaited_us.pop(direction, None)
        now_us = self._simulator.now_us
        for frame in self.middlebox.release(direction, now_us):
            wire.pass_on(frame, now_us)
        self._await_release(direction, wire)


class SimulatedRealiser:
    """See :class:`testbed.backend.link_control.Realiser`: every link of a simulation can be changed."""

    def __init__(
        self,
        links: Mapping[LinkEnd, SimulatedLink],
        simulator: Simulator,
        seed_of: Callable[[Link], int],
        boxes_changed: Callable[[], None],
    ) -> None:
        self._links = links
        self._simulator = simulator
        self._seed_of = seed_of
        self._boxes_changed = boxes_changed
        self._impairments: dict[tuple[str, str], Impairment] = {}
        """By the simulated link's name, which stays when a cable is plugged in elsewhere."""
        self._boxes: dict[str, LinkBoxes] = {}

    def boxes_on(self, link: Link) -> tuple[BoxSettings, ...]:
        boxes = self._boxes.get(self._links[link.first].name)
        return boxes.settings if boxes is not None else ()

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
        boxes = self._boxes.get(simulated.name)
        done = tuple(replace(each) for each in boxes.middlebox.counters) if boxes is not None else ()
        return LinkState(link, states[0], states[1], self.boxes_on(link), done)

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
        simulated = self._links[link.first]
        self._boxes[simulated.name] = LinkBoxes(boxes, simulated, self._seed_of(link), self._simulator)
        self._boxes_changed()
