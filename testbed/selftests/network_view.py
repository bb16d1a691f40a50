"""What a case does to the network while its data flows: at once, or at a time of the case.

A link or an interface is named by a node and an interface of it, impairments and boxes in the words of
topology files. Everything goes into the run's timeline at the moment when it happens.
"""

from __future__ import annotations

from collections.abc import Callable

from testbed.errors import UsageError
from testbed.middlebox.settings import BoxSettings, box_text
from testbed.selftests.clock import Clock, RealClock
from testbed.selftests.host_view import NetworkControl
from testbed.selftests.observations import TimelineEvent
from testbed.topology.impairments import split_words

MAXIMUM_EVENTS = 1000
"""In the timeline of a run."""
NO_IMPAIRMENT = "none"


class CaseNetwork:
    """The network of a case's lab, its clock and its timeline."""

    def __init__(self, network: NetworkControl, clock: Clock) -> None:
        self.events: list[TimelineEvent] = []
        self._network = network
        self._clock = clock
        self._began_us = clock.now_us()
        self._failed: list[Exception] = []

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

    def set_link(self, node: str, interface: str, *, up: bool) -> None:
        """Raise or cut a link at one of its ends."""
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
        self._network.impair(node, interface, said, sent=sent, received=received)
        which = "" if sent and received else " sent" if sent else " received"
        self.tell(f"link {node}:{interface}{which}: {words if said else 'no impairment'}")

    def set_middlebox(self, node: str, interface: str, *boxes: BoxSettings) -> None:
        """Switch these boxes on, the first nearest to the link's first end, and all others off.

        They know nothing of connections that began before. A link that had no box needs ``emulated: true``
        in its topology. Raises UsageError.
        """
        self._network.set_middlebox(node, interface, boxes)
        shown = ", ".join(map(box_text, boxes)) or "switched off"
        self.tell(f"middlebox on {node}:{interface}: {shown}")
