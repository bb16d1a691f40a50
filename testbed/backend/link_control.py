"""What the links of a lab do to packets right now, and how it is changed while the lab runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from mptcp_stack.device.link_model import LinkSettings
from testbed.backend.impaired_links import Built, ImpairedLink
from testbed.emulator.configuration import settings_from_object, settings_to_object
from testbed.emulator.control import EmulatorClient
from testbed.errors import UsageError
from testbed.middlebox.settings import BoxCounters, BoxSettings, boxes_from_objects, boxes_to_objects
from testbed.topology.impairments import (
    WORDS,
    combine,
    contradictions,
    default_limit_bytes,
    link_settings,
    parse_word,
    said_twice,
)
from testbed.topology.model import Impairment, Link, LinkEnd
from testbed.topology.problems import did_you_mean

if TYPE_CHECKING:
    from testbed.backend.link_shaping import Shaper

EMULATOR: Final = "link emulator"
"""What a link's realisation is called where people read it."""
FORWARD: Final = "->"
BACKWARD: Final = "<-"


@dataclass(frozen=True, slots=True)
class DirectionState:
    """What happens to packets from one end of a link to the other."""

    sender: LinkEnd
    receiver: LinkEnd
    impairment: Impairment
    """What is in force, read back from what enforces it."""
    realised_by: str = ""
    """Empty where nothing is impaired."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """Decisions since the lab is up, where they are counted."""
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class LinkState:
    """A link of a lab."""

    link: Link
    forward: DirectionState
    backward: DirectionState
    middlebox: tuple[BoxSettings, ...] = ()
    """The boxes that are switched on."""
    box_counters: tuple[BoxCounters, ...] = ()
    """What they have done since."""


class Realiser(Protocol):
    """What impairs the links that are cut: the emulator, or the kernel."""

    def state(self, impaired: ImpairedLink) -> LinkState:
        """Read back what is in force. Raises HostError or LabError."""
        ...

    def put(self, impaired: ImpairedLink, wanted: Mapping[str, Impairment]) -> None:
        """Direction → what is to be in force. Raises HostError or LabError."""
        ...

    def put_boxes(self, impaired: ImpairedLink, boxes: Sequence[BoxSettings]) -> None:
        """Boxes that take the place of those that were there. Raises HostError or UsageError."""
        ...


class LinkControl:
    """All links of a lab that is up."""

    def __init__(
        self,
        built: Built,
        links: Sequence[Link],
        shapers: Callable[[], Sequence[Shaper]],
        set_rate: Callable[[str, str, int], None],
        realiser: Realiser,
    ) -> None:
        self._built = built
        self._links = links
        self._shapers = shapers
        self._set_rate = set_rate
        self._realiser = realiser

    def link_at(self, end: str) -> Link:
        """The link with that end, written ``node:interface``. Raises UsageError."""
        for link in self._links:
            if end in (str(link.first), str(link.second)):
                return link
        ends = [str(each) for link in self._links for each in (link.first, link.second)]
        raise UsageError(f"no link ends at '{end}'; {did_you_mean(end, ends)}")

    def state(self, link: Link) -> LinkState:
        """Raises HostError when what impairs it does not answer."""
        impaired = self._built.link_at(link.first)
        if impaired is not None:
            return self._realiser.state(impaired)
        shapers = {shaper.sender: shaper for shaper in self._shapers()}
        return LinkState(
            link,
            _shaped_state(link.first, link.second, shapers.get(link.first)),
            _shaped_state(link.second, link.first, shapers.get(link.second)),
        )

    def capturer(self, link: Link) -> Callable[[Path | None], None] | None:
        """What writes all that a link carries, with what befalls it, into a file until it is told None.

        None for a link in whose middle nobody could.
        """
        impaired = self._built.link_at(link.first)
        realiser = self._realiser
        if impaired is None or not isinstance(realiser, EmulatorRealiser):
            return None
        return partial(realiser.capture, impaired)

    def states(self) -> list[LinkState]:
        return [self.state(link) for link in self._links]

    def box_counters(self) -> dict[LinkEnd, tuple[BoxCounters, ...]]:
        """What the boxes of each link have done since they are there, by the link's first end."""
        found = {}
        for impaired in self._built.links:
            if counters := self._realiser.state(impaired).box_counters:
                found[impaired.link.first] = counters
        return found

    def change(
        self, link: Link, words: Mapping[str, str], directions: Sequence[str] = (FORWARD, BACKWARD)
    ) -> LinkState:
        """Let the words take effect, in addition to what is in force; ``{}`` ends all impairments.

        Raises UsageError, before anything is changed, for words that make no sense or that this link's
        realisation cannot do.
        """
        state = self.state(link)
        current = {FORWARD: state.forward.impairment, BACKWARD: state.backward.impairment}
        return self._put(link, {direction: changed(current[direction], words) for direction in directions})

    def change_at(
        self, end: str, words: Mapping[str, str], *, sent: bool = True, received: bool = True
    ) -> LinkState:
        """:meth:`change` for a link with an end ``node:interface``: what it sends, what it receives."""
        link = self.link_at(end)
        outgoing, incoming = (FORWARD, BACKWARD) if str(link.first) == end else (BACKWARD, FORWARD)
        directions = [way for way, is_meant in ((outgoing, sent), (incoming, received)) if is_meant]
        return self.change(link, words, directions)

    def put(self, link: Link, forward: Impairment | None, backward: Impairment | None) -> LinkState:
        """Let these impairments take the place of what is in force; None leaves it. Raises UsageError."""
        both = {FORWARD: forward, BACKWARD: backward}
        return self._put(link, {way: each for way, each in both.items() if each is not None})

    def put_at(self, end: str, forward: Impairment | None, backward: Impairment | None) -> LinkState:
        """:meth:`put` for the link with an end ``node:interface``; forward is its own first end's way."""
        return self.put(self.link_at(end), forward, backward)

    def put_boxes(self, link: Link, boxes: Sequence[BoxSettings]) -> LinkState:
        """Let these boxes, new ones, take the place of those on the link; none switches all off.

        Raises UsageError where there is nothing that could be a box.
        """
        impaired = self._built.link_at(link.first)
        if impaired is None:
            raise UsageError(f"{_plain(link)}: nothing in it can be a middlebox; {_HOW_TO_EMULATE}")
        self._realiser.put_boxes(impaired, boxes)
        return self.state(link)

    def _put(self, link: Link, wanted: Mapping[str, Impairment]) -> LinkState:
        impaired = self._built.link_at(link.first)
        if impaired is not None:
            self._realiser.put(impaired, wanted)
        else:
            self._change_rates(link, wanted)
        return self.state(link)

    def _change_rates(self, link: Link, wanted: Mapping[str, Impairment]) -> None:
        has_rate = {shaper.sender for shaper in self._shapers()}
        for direction, impairment in wanted.items():
            sender = link.first if direction == FORWARD else link.second
            if not impairment.is_rate_only or impairment.rate_bit_s is None or sender not in has_rate:
                raise UsageError(f"{_plain(link)}: only a rate that it has can be changed; {_HOW_TO_EMULATE}")
        for direction, impairment in wanted.items():
            sender = link.first if direction == FORWARD else link.second
            if impairment.rate_bit_s is not None:
                self._set_rate(sender.node, sender.interface, impairment.rate_bit_s)


_HOW_TO_EMULATE: Final = "write 'emulated: true' at the link in the topology"


def _plain(link: Link) -> str:
    return f"{link.first} - {link.second} was built without a link emulator"


class EmulatorRealiser:
    """The emulator's process, asked over its socket."""

    def __init__(self, control_socket: Path) -> None:
        self._control_socket = control_socket

    def state(self, impaired: ImpairedLink) -> LinkState:
        with self._emulator() as emulator:
            shown = emulator.request(method="show", link=impaired.name)
        link = impaired.link
        states = [
            DirectionState(
                sender,
                receiver,
                impairment_in_force(settings_from_object(shown[direction]["settings"]), link.mtu),
                EMULATOR,
                shown[direction]["counters"] | {"overrun": shown[direction]["overrun"]},
                shown[direction]["in_flight"],
            )
            for direction, sender, receiver in directions_of(link)
        ]
        counters = tuple(BoxCounters(**each) for each in shown["box_counters"])
        return LinkState(link, states[0], states[1], boxes_from_objects(shown["middlebox"]), counters)

    def put_boxes(self, impaired: ImpairedLink, boxes: Sequence[BoxSettings]) -> None:
        with self._emulator() as emulator:
            emulator.request(method="set_boxes", link=impaired.name, boxes=boxes_to_objects(boxes))

    def capture(self, impaired: ImpairedLink, path: Path | None) -> None:
        """Write what a link carries into a pcapng file from now on; None ends it. Raises HostError."""
        where = {"path": str(path.absolute()), "interface": str(impaired.link.first)} if path else {}
        with self._emulator() as emulator:
            emulator.request(method="capture", link=impaired.name, **where)

    def put(self, impaired: ImpairedLink, wanted: Mapping[str, Impairment]) -> None:
        with self._emulator() as emulator:
            for direction, impairment in wanted.items():
                seed = {"seed": impairment.seed} if impairment.seed is not None else {}
                emulator.request(
                    method="set",
                    link=impaired.name,
                    direction=direction,
                    settings=settings_to_object(link_settings(impairment, impaired.link.mtu)),
                    **seed,
                )

    @contextlib.contextmanager
    def _emulator(self) -> Iterator[EmulatorClient]:
        with contextlib.closing(EmulatorClient(self._control_socket)) as client:
            yield client


def directions_of(link: Link) -> Sequence[tuple[str, LinkEnd, LinkEnd]]:
    """Direction, sender and receiver, forward first."""
    return (FORWARD, link.first, link.second), (BACKWARD, link.second, link.first)


def _shaped_state(sender: LinkEnd, receiver: LinkEnd, shaper: Shaper | None) -> DirectionState:
    if shaper is None:
        return DirectionState(sender, receiver, Impairment())
    return DirectionState(
        sender, receiver, Impairment(rate_bit_s=shaper.rate_bit_s), f"tbf on the {shaper.place}"
    )


def changed(impairment: Impairment, words: Mapping[str, str]) -> Impairment:
    """What the words make of an impairment; none of them: nothing is left of it. Raises UsageError."""
    if not words:
        return Impairment()
    problems: list[str] = []
    said = {}
    for word, value in words.items():
        if word not in WORDS:
            problems.append(f"{word}: no such impairment; {did_you_mean(word, WORDS)}")
            continue
        try:
            said[word] = parse_word(word, value)
        except ValueError as error:
            problems.append(f"{word}={value}: {error}")
    wanted = combine(said, impairment)
    found = (*said_twice(said), *contradictions(wanted))
    problems += [f"{each.message} — {each.hint}" for each in found]
    if problems:
        raise UsageError("\n".join(problems))
    return wanted


def impairment_in_force(settings: LinkSettings, mtu: int) -> Impairment:
    """The impairment that made the settings. A limit that suits the rate counts as not said."""
    limit_bytes = settings.queue_limit_bytes
    rate_bit_s = settings.rate_bit_s
    if rate_bit_s is None or limit_bytes == default_limit_bytes(rate_bit_s, mtu):
        limit_bytes = None
    return Impairment(
        rate_bit_s=rate_bit_s,
        packet_overhead_bytes=settings.packet_overhead_bytes,
        cell_bytes=settings.cell_bytes,
        cell_overhead_bytes=settings.cell_overhead_bytes,
        limit_packets=settings.queue_limit_packets,
        limit_bytes=limit_bytes,
        delay_us=settings.delay_us,
        jitter_us=settings.jitter_us,
        delay_correlation=settings.delay_correlation,
        distribution=settings.distribution,
        loss=settings.loss,
        loss_correlation=settings.loss_correlation,
        loss_model=settings.loss_model,
        duplicate=settings.duplicate,
        duplicate_correlation=settings.duplicate_correlation,
        corrupt=settings.corrupt,
        corrupt_correlation=settings.corrupt_correlation,
        reorder=settings.reorder,
        reorder_correlation=settings.reorder_correlation,
        gap=settings.gap,
        slot=settings.slot,
    )
