"""What a case does to the network while its data flows: at once, or at a time of the case.

A link or an interface is named by a node and an interface of it, impairments and boxes in the words of
topology files. Everything goes into the run's timeline at the moment when it happens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address, ip_interface

from testbed.errors import UsageError
from testbed.middlebox.settings import BoxSettings, box_text, counters_text
from testbed.selftests.clock import Clock, RealClock
from testbed.selftests.host_view import NetworkControl
from testbed.selftests.observations import TimelineEvent
from testbed.topology import changes
from testbed.topology.events import event_text, topology_after
from testbed.topology.impairments import split_words
from testbed.topology.model import BoxesChanged, Event, LinkEnd, LinkImpaired, LinkSet, Topology

MAXIMUM_EVENTS = 1000
"""In the timeline of a run."""
NO_IMPAIRMENT = "none"


class CaseNetwork:
    """The network of a case's lab, its clock and its timeline."""

    def __init__(self, topology: Topology, network: NetworkControl, clock: Clock) -> None:
        self.topology = topology
        self.events: list[TimelineEvent] = []
        self.notes: list[str] = []
        self._network = network
        self._clock = clock
        self._began_us = clock.now_us()
        self._failed: list[Exception] = []
        # What is scheduled may be carried out by another thread.
        self._reconfiguring = threading.Lock()
        self.is_changed = False
        """Whether the links are no longer as the topology asks for."""

    @property
    def is_virtual(self) -> bool:
        """Whether time passes only when something waits for it."""
        return not isinstance(self._clock, RealClock)

    def now(self) -> float:
        """Seconds since the case began, by the clock of its lab: cases ask no other."""
        return self._elapsed_us() / 1_000_000

    def _elapsed_us(self) -> int:
        return self._clock.now_us() - self._began_us

    def tell(self, text: str) -> None:
        """Put something into the run's timeline, as happening now."""
        if len(self.events) < MAXIMUM_EVENTS:
            self.events.append(TimelineEvent(self._elapsed_us(), text))

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        """Carry out ``action`` so long after the case began, whatever the case is waiting for then.

        It may call what changes the network, nothing that waits. What it raises ends the case. What is not
        due when the case ends does not happen.
        """

        def act() -> None:
            try:
                action()
            except Exception as error:
                self._failed.append(error)

        self._network.schedule(max(0.0, seconds - self.now()), act)

    def raise_failed(self) -> None:
        """Raises what the first of the scheduled actions that failed has raised."""
        if self._failed:
            raise self._failed[0]

    def filter(self, router: str, *rules: str, hook: str = "forward") -> None:
        """What a router does with some packets, in the words of nftables; no rules let everything pass.

        ``hook`` is "prerouting" for packets that the router may know no way for. Raises CapabilityError,
        which makes the run a SKIP, where there is no filter.
        """
        self._network.filter(router, rules, hook)
        self.tell(f"{router}: {'; '.join(rules) or 'lets everything pass'}")

    def filtered(self, node: str) -> list[int]:
        """How many packets each rule has counted that says "counter". Raises CapabilityError."""
        return self._network.filtered(node)

    def intercept(self, host: str, port: int) -> None:
        """What comes to a host for this port, whoever it is for, goes to its transparent listener.

        Raises CapabilityError, which makes the run a SKIP, where the kernel cannot do that.
        """
        self._network.intercept(host, port)
        self.tell(f"{host} intercepts what is for port {port}")

    def set_link(self, node: str, interface: str, *, up: bool) -> None:
        """Raise or cut a link at one of its ends."""
        self.is_changed = True
        self._network.set_link(node, interface, up)
        self.tell(f"link {node}:{interface} {'up' if up else 'down'}")

    def link_down(self, node: str, interface: str) -> None:
        """Cut a link: what is on its way is lost, and both ends lose their carrier."""
        self.set_link(node, interface, up=False)

    def link_up(self, node: str, interface: str) -> None:
        self.set_link(node, interface, up=True)

    def impair(
        self, node: str, interface: str, words: str, *, sent: bool = True, received: bool = True
    ) -> None:
        """Let words like ``delay 80ms loss 5%`` take effect in addition to what is in force; "none" ends all.

        ``sent`` and ``received`` are seen from that end. A link that had no impairment needs
        ``emulated: true`` in its topology. Raises UsageError.
        """
        try:
            said = {} if words == NO_IMPAIRMENT else split_words(words)
        except ValueError as error:
            raise UsageError(f"{words}: {error}") from None
        self.is_changed = True
        self._network.impair(node, interface, said, sent=sent, received=received)
        which = "" if sent and received else " sent" if sent else " received"
        self.tell(f"link {node}:{interface}{which}: {words if said else 'no impairment'}")

    def set_middlebox(self, node: str, interface: str, *boxes: BoxSettings) -> None:
        """Switch these boxes on, the first nearest to the link's first end, and all others off.

        They know nothing of connections that began before. A link that had no box needs ``emulated: true``
        in its topology. Raises UsageError.
        """
        self.is_changed = True
        self._network.set_middlebox(node, interface, boxes)
        shown = ", ".join(map(box_text, boxes)) or "switched off"
        self.tell(f"middlebox on {node}:{interface}: {shown}")

    def boxes_changed(self, kind: str) -> int:
        """How many packets the boxes of one kind have changed: stripped, translated, joined, …"""
        counted = self._network.box_counters().values()
        return sum(each.changed for counters in counted for each in counters if each.kind == kind)

    def note_boxes(self) -> None:
        """Keep what the boxes have done in the reports."""
        for end, counters in self._network.box_counters().items():
            self.notes += [f"middlebox on {end}: {counters_text(each)}" for each in counters]

    def add_address(self, node: str, interface: str, address: str) -> None:
        """Give an interface one more address, ``10.0.1.7/24``, of its network. Raises UsageError."""
        end = LinkEnd(node, interface)
        self._reconfigure(lambda topology: changes.with_address(topology, end, ip_interface(address)))
        self.tell(f"{end}: address {address} added")

    def remove_address(self, node: str, interface: str, address: str) -> None:
        """Take an address, ``10.0.1.7``, from an interface. Raises UsageError."""
        end = LinkEnd(node, interface)
        self._reconfigure(lambda topology: changes.without_address(topology, end, ip_address(address)))
        self.tell(f"{end}: address {address} removed")

    def move(self, node: str, interface: str, switch: str, *addresses: str) -> None:
        """Plug the cable of an interface, which is in a switch, into another one, and change its addresses.

        Unless they are said it gets the lowest free one of each family. Raises UsageError.
        """
        end = LinkEnd(node, interface)
        said = [ip_interface(address) for address in addresses] or None
        self._reconfigure(lambda topology: changes.moved(topology, end, switch, said))
        shown = ", ".join(str(each) for each in changes.interface_at(self.topology, end).addresses)
        self.tell(f"{end} moved to {switch}: {shown}")

    def play_events(self) -> None:
        """From now on let happen what the topology says, each event when it is due."""
        for event in self.topology.events:
            self.at(event.at_us / 1_000_000, partial(self.play, event))

    def play(self, event: Event) -> None:
        """Let an event happen now. Raises UsageError where it cannot."""
        self.is_changed = True
        node, interface = event.end.node, event.end.interface
        match event:
            case LinkSet():
                self._network.set_link(node, interface, event.up)
            case LinkImpaired():
                self._network.put_impairments(node, interface, event.forward, event.backward)
            case BoxesChanged():
                self._network.set_middlebox(node, interface, event.boxes)
            case _:
                self._reconfigure(lambda topology: topology_after(topology, event))
        self.tell(f"{event_text(event)} (due at {event.at_us / 1_000_000:.3f} s)")

    def _reconfigure(self, change: Callable[[Topology], Topology]) -> None:
        self.is_changed = True
        with self._reconfiguring:
            try:
                topology = change(self.topology)
            except ValueError as error:
                raise UsageError(str(error)) from None
            self._network.reconfigure(topology)
            self.topology = topology
            self._changed()

    def _changed(self) -> None:
        """The topology is another one now."""
