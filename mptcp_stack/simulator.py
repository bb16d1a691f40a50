"""Stacks, wires and a clock in virtual time: the same seed gives the same packets, byte for byte."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

from mptcp_stack.device.capture import CaptureWriter, Direction
from mptcp_stack.device.in_memory import Wire, WireSettings
from mptcp_stack.device.interface import LinkLayer
from mptcp_stack.driver import DrivenStack
from mptcp_stack.errors import ConfigurationError, StackError
from mptcp_stack.ip.interface import Interface, LinkType
from mptcp_stack.wire.frame import Frame

MAXIMUM_STEPS_PER_INSTANT = 100_000
"""With an ideal wire much may happen at one instant; what goes on for longer will never end."""

DEFAULT_LIMIT_US = 60_000_000


class SimulationError(StackError):
    """A simulation that cannot go on."""


class SimulationTimeoutError(SimulationError):
    """The awaited condition did not come true in time; the message says what is still pending."""


class SimulationLivelockError(SimulationError):
    """Events follow one another without time going on."""


Tap = Callable[[int, str, str, Frame], None]
"""Called with the time in microseconds, the wire's name ("<sender>-><receiver>"), a direction and a packet.

The direction is "sent" as a packet enters the wire (lost ones included), "delivered" as it comes out.
"""


@dataclass(frozen=True, slots=True)
class Link:
    """Both directions of a link: ``forward`` from the first stack to the second."""

    name: str
    forward: Wire
    backward: Wire

    def set_up(self, is_up: bool) -> None:
        """Down: what is sent from now on is lost, and what is on its way as well."""
        for wire in (self.forward, self.backward):
            wire.is_up = is_up
            if not is_up:
                wire.clear()


@dataclass(slots=True)
class _Attachment:
    """A wire, and where it leads."""

    wire: Wire
    stack: DrivenStack
    interface: Interface


class Simulator:
    """Owns the virtual clock and steps from event to event.

    Nothing here depends on real time or on the order of hashes: stacks and wires are served in the order
    in which they were added.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.now_us = 0
        self._streams: dict[str, random.Random] = {}
        self._stacks: dict[str, DrivenStack] = {}
        self._attachments: list[_Attachment] = []
        self._outgoing: dict[Interface, Wire] = {}
        self._links: dict[str, Link] = {}
        self._taps: list[Tap] = []
        self._calls: list[tuple[int, int, Callable[[], None]]] = []
        self._call_order = itertools.count()
        self._steps_at_instant = 0

    def random(self, name: str) -> random.Random:
        """The stream of this name, always the same object; independent of all others and of their use."""
        if name not in self._streams:
            digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
            self._streams[name] = random.Random(int.from_bytes(digest, "big"))
        return self._streams[name]

    def add_stack(self, name: str, stack: DrivenStack) -> None:
        """Raises ConfigurationError for a name that is taken."""
        if name in self._stacks:
            raise ConfigurationError(f"the simulation has a stack {name!r} already")
        self._stacks[name] = stack

    def link(
        self,
        first: str,
        first_interface: Interface,
        second: str,
        second_interface: Interface,
        settings: WireSettings | None = None,
        backward: WireSettings | None = None,
        *,
        name: str | None = None,
    ) -> Link:
        """Connect two interfaces of stacks that were added before.

        ``settings`` hold for both directions unless ``backward`` says otherwise for the way from ``second``
        to ``first``. Raises ConfigurationError.
        """
        ends = ((first, first_interface), (second, second_interface))
        name = name or "--".join(f"{stack}:{interface.name}" for stack, interface in ends)
        self._check_link(name, ends)
        settings = settings or WireSettings()
        link = Link(
            name,
            self._add_wire(name, ends[0], ends[1], settings),
            self._add_wire(name, ends[1], ends[0], backward or settings),
        )
        self._links[name] = link
        return link

    def _check_link(self, name: str, ends: tuple[tuple[str, Interface], tuple[str, Interface]]) -> None:
        problems = []
        if name in self._links:
            problems.append(f"the simulation has a link {name!r} already")
        for stack, interface in ends:
            if stack not in self._stacks:
                problems.append(f"no stack {stack!r}")
            if interface in self._outgoing:
                problems.append(f"interface {stack}:{interface.name} is linked already")
        (_, first), (_, second) = ends
        if first is second:
            problems.append("both ends are the same interface")
        if first.link_type is not second.link_type:
            problems.append("its ends have different link types")
        if problems:
            raise ConfigurationError(f"link {name}: " + "; ".join(problems))

    def _add_wire(
        self,
        link: str,
        sender: tuple[str, Interface],
        receiver: tuple[str, Interface],
        settings: WireSettings,
    ) -> Wire:
        name = f"{sender[0]}:{sender[1].name}->{receiver[0]}:{receiver[1].name}"
        wire = Wire(
            name,
            settings,
            self.random(f"wire {link} {name}"),
            link_layer=(LinkLayer.ETHERNET if sender[1].link_type is LinkType.ETHERNET else LinkLayer.RAW_IP),
            mtu=sender[1].mtu,
        )
        self._attachments.append(_Attachment(wire, self._stacks[receiver[0]], receiver[1]))
        self._outgoing[sender[1]] = wire
        return wire

    def links(self) -> dict[str, Link]:
        """By name."""
        return dict(self._links)

    def set_link(self, name: str, *, up: bool) -> None:
        """Cut or mend a link. Raises KeyError for an unknown name."""
        self._links[name].set_up(up)

    def replug(self, name: str, old: Interface, stack: str, new: Interface) -> None:
        """Pull the end of a link at ``old`` out and plug it into ``new``, an interface of ``stack``.

        What is on its way is lost. Raises KeyError for an unknown link, ConfigurationError for a taken end.
        """
        link = self._links[name]
        if new in self._outgoing or stack not in self._stacks:
            raise ConfigurationError(f"link {name}: nothing can be plugged into {stack}:{new.name}")
        outgoing = self._outgoing.pop(old)
        self._outgoing[new] = outgoing
        for attachment in self._attachments:
            if attachment.interface is old and attachment.wire in (link.forward, link.backward):
                attachment.stack, attachment.interface = self._stacks[stack], new
        for wire in (link.forward, link.backward):
            wire.clear()

    def add_tap(self, tap: Tap) -> None:
        """Call ``tap`` for every packet that enters or leaves a wire."""
        self._taps.append(tap)

    def capture(self, writer: CaptureWriter, *, epoch_ns: int = 0) -> None:
        """Write every packet that enters one of the wires linked so far; virtual time 0 is ``epoch_ns``."""
        numbers = {
            attachment.wire.name: writer.add_interface(attachment.wire.name, attachment.wire.link_layer)
            for attachment in self._attachments
        }

        def write(now_us: int, wire: str, direction: str, frame: Frame) -> None:
            if direction == "sent" and wire in numbers:
                writer.write(numbers[wire], frame, epoch_ns + now_us * 1000, Direction.OUTBOUND)

        self.add_tap(write)

    def call_at(self, when_us: int, callback: Callable[[], None]) -> None:
        """Run ``callback`` at a virtual time; one in the past runs at the next step."""
        heapq.heappush(self._calls, (when_us, next(self._call_order), callback))

    def run_until(self, condition: Callable[[], bool], limit_us: int = DEFAULT_LIMIT_US) -> None:
        """Go on until ``condition()`` holds; it is asked after every step and may use the sockets itself.

        Raises SimulationTimeoutError after ``limit_us`` more microseconds, or at once when nothing is left
        that could change anything.
        """
        end_us = self.now_us + limit_us
        while True:
            self._flush()
            holds = condition()
            # The condition may have given the stacks work.
            self._flush()
            if holds:
                return
            next_us = self.next_event_us()
            if next_us is None or next_us > end_us:
                if next_us is not None:
                    self._advance_to(end_us)
                raise SimulationTimeoutError(self._timeout_message(limit_us, next_us))
            self._step(next_us)

    def run_for(self, duration_us: int) -> None:
        """Let ``duration_us`` microseconds pass, whatever happens in them."""
        end_us = self.now_us + duration_us
        self._flush()
        while (next_us := self.next_event_us()) is not None and next_us <= end_us:
            self._step(next_us)
            self._flush()
        self._advance_to(end_us)

    def advance(self, end_us: int | None) -> bool:
        """Go on to the next event, at most to ``end_us``; the stacks send before it and after it.

        False, and no time passes, where nothing ever happens and there is no end.
        """
        self._flush()
        next_us = self.next_event_us()
        if next_us is not None and (end_us is None or next_us <= end_us):
            self._step(next_us)
            # What it is answered with goes out before an application can react, as with a run loop.
            self._flush()
        elif end_us is None:
            return False
        else:
            self._advance_to(end_us)
        return True

    def serve(self) -> None:
        """Let the stacks send what they have, and receive what they send to themselves; no time passes."""
        self._flush()

    def next_event_us(self) -> int | None:
        """When something happens next; None when nothing ever will."""
        times = [stack.next_deadline_us() for stack in self._stacks.values()]
        times += [attachment.wire.next_arrival_us() for attachment in self._attachments]
        if self._calls:
            times.append(self._calls[0][0])
        due = [time_us for time_us in times if time_us is not None]
        return max(min(due), self.now_us) if due else None

    def _advance_to(self, time_us: int) -> None:
        if time_us > self.now_us:
            self.now_us = time_us
            self._steps_at_instant = 0

    def _step(self, time_us: int) -> None:
        """Everything that is due at ``time_us``."""
        self._advance_to(time_us)
        self._steps_at_instant += 1
        if self._steps_at_instant > MAXIMUM_STEPS_PER_INSTANT:
            raise SimulationLivelockError(
                f"{MAXIMUM_STEPS_PER_INSTANT} steps at {self.now_us} µs and no end; "
                f"pending: {self._pending()}"
            )
        while self._calls and self._calls[0][0] <= time_us:
            heapq.heappop(self._calls)[2]()
        for attachment in self._attachments:
            for frame in attachment.wire.take_arrived(time_us):
                self._show(attachment.wire, "delivered", frame)
                attachment.stack.receive_frame(frame, attachment.interface, time_us)
        for stack in self._stacks.values():
            deadline_us = stack.next_deadline_us()
            if deadline_us is not None and deadline_us <= time_us:
                stack.handle_deadline(time_us)

    def _flush(self) -> None:
        """Put on the wires what the stacks have to send; what leaves an unconnected interface is lost."""
        for stack in self._stacks.values():
            for interface, frame in stack.frames_to_send(self.now_us):
                wire = self._outgoing.get(interface)
                if wire is None:
                    continue
                for packet in wire.send(frame, self.now_us):
                    self._show(wire, "sent", packet)

    def _show(self, wire: Wire, direction: str, frame: Frame) -> None:
        for tap in self._taps:
            tap(self.now_us, wire.name, direction, frame)

    def _timeout_message(self, limit_us: int, next_us: int | None) -> str:
        if next_us is None:
            return f"nothing is left to happen at {self.now_us} µs, and the condition does not hold"
        return (
            f"the condition does not hold after {limit_us} µs (now {self.now_us} µs); "
            f"pending: {self._pending()}"
        )

    def _pending(self) -> str:
        pending = []
        for name, stack in self._stacks.items():
            if (deadline_us := stack.next_deadline_us()) is not None:
                pending.append(f"{name} deadline at {deadline_us} µs")
        for attachment in self._attachments:
            if attachment.wire.frames_in_flight:
                pending.append(
                    f"{attachment.wire.name} {attachment.wire.frames_in_flight} frames, "
                    f"next at {attachment.wire.next_arrival_us()} µs"
                )
        if self._calls:
            pending.append(f"{len(self._calls)} calls, next at {self._calls[0][0]} µs")
        return ", ".join(pending) or "nothing"
