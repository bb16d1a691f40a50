"""The emulator's loop: frames in, frames out when their time has come, and requests in between."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush

from testbed.emulator.batch_receiver import BatchReceiver
from testbed.emulator.configuration import LinkConfiguration
from testbed.emulator.direction import LinkDirection
from testbed.emulator.link_box import LinkBox
from testbed.emulator.port import LINK_IS_DOWN, Port
from testbed.emulator.timer import Timer
from testbed.middlebox.chain import Middlebox
from testbed.middlebox.settings import BoxCounters, BoxSettings


class EmulatedLink:
    """Two ports and the two directions between them."""

    def __init__(self, configuration: LinkConfiguration, emulator: Emulator) -> None:
        """Raises HostError."""
        self.name = configuration.name
        self.mtu = configuration.mtu
        self.near = Port(configuration.near)
        self.far = Port(configuration.far)
        self.forward = LinkDirection("->", configuration.forward, self.far.send, emulator.schedule)
        self.backward = LinkDirection("<-", configuration.backward, self.near.send, emulator.schedule)
        self.boxes: tuple[BoxSettings, ...] = ()
        self._seed = configuration.forward.seed
        self.put_boxes(configuration.middlebox)

    def put_boxes(self, boxes: Sequence[BoxSettings]) -> None:
        """In the place of those that were there. They know nothing of what passed before."""
        self.boxes = tuple(boxes)
        self._middlebox = Middlebox(self.boxes, self._seed) if boxes else None
        for direction in (self.forward, self.backward):
            box = LinkBox(self._middlebox, direction.name) if self._middlebox is not None else None
            direction.function = direction.holder = box

    @property
    def box_counters(self) -> list[BoxCounters]:
        """What the boxes have done since they are there."""
        return self._middlebox.counters if self._middlebox is not None else []

    def direction(self, name: str) -> LinkDirection:
        """``->`` or ``<-``. Raises KeyError."""
        return {"->": self.forward, "<-": self.backward}[name]


class Emulator:
    """All links of one process, in the network namespace that it is in."""

    def __init__(self) -> None:
        self.links: dict[str, EmulatedLink] = {}
        self._receiver = BatchReceiver()
        self._timer = Timer()
        self._poller = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._in_flight: list[tuple[int, int, LinkDirection, bytes]] = []
        self._order = 0
        self._armed_for_us: int | None = None
        self._is_expired = False
        self._is_running = True
        self.watch(self._timer.fileno(), self._timer_expired)

    def add(self, configuration: LinkConfiguration) -> None:
        """Raises HostError."""
        link = EmulatedLink(configuration, self)
        self.links[link.name] = link
        self.watch(link.near.fileno(), lambda: self._receive(link, link.near, link.forward))
        self.watch(link.far.fileno(), lambda: self._receive(link, link.far, link.backward))

    def watch(self, descriptor: int, handler: Callable[[], None]) -> None:
        """Call ``handler`` whenever the descriptor is readable."""
        self._handlers[descriptor] = handler
        self._poller.register(descriptor, select.EPOLLIN)

    def forget(self, descriptor: int) -> None:
        del self._handlers[descriptor]
        self._poller.unregister(descriptor)

    def schedule(self, at_us: int, direction: LinkDirection, data: bytes) -> None:
        """Frames with the same time go on in the order in which they were scheduled."""
        self._order += 1
        heappush(self._in_flight, (at_us, self._order, direction, data))

    def run(self) -> None:
        """Until :meth:`stop`."""
        handlers, poll = self._handlers, self._poller.poll
        while self._is_running:
            now_us = self.pass_on_what_is_due()
            for descriptor, _events in poll(self._timeout(now_us)):
                handler = handlers.get(descriptor)
                if handler is not None:
                    handler()

    def pass_on_what_is_due(self) -> int:
        """Frames whose time has come, or comes soon enough for their direction. Returns the time in us."""
        in_flight = self._in_flight
        now_us = time.monotonic_ns() // 1000
        while in_flight and in_flight[0][0] <= now_us + in_flight[0][2].early_us:
            due_us, _order, direction, data = heappop(in_flight)
            direction.arrive(data, max(0, now_us - due_us))
            now_us = time.monotonic_ns() // 1000
        return now_us

    def stop(self) -> None:
        self._is_running = False

    def close(self) -> None:
        for link in self.links.values():
            link.near.close()
            link.far.close()
        self._timer.close()
        self._poller.close()

    def _timeout(self, now_us: int) -> float:
        """How long to wait for descriptors; the timer is one of them."""
        if not self._in_flight:
            if self._is_expired:
                self._timer.clear()
                self._is_expired = False
            return -1
        due_us = self._in_flight[0][0]
        if due_us <= now_us:
            return 0
        if due_us != self._armed_for_us:
            self._timer.set(due_us)
            self._armed_for_us = due_us
            self._is_expired = False
        return -1

    def _timer_expired(self) -> None:
        # To set it clears it as well: mostly it is set again at once, and nobody has to read it.
        self._is_expired = True
        self._armed_for_us = None

    def _receive(self, link: EmulatedLink, port: Port, direction: LinkDirection) -> None:
        try:
            received = self._receiver.receive(port.fileno())
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if error.errno in LINK_IS_DOWN:
                self.cut_off(link)
            return
        now_ns = time.monotonic_ns()
        epoch_ns = time.time_ns() - now_ns
        now_us = now_ns // 1000
        for data, stamp_ns in received:
            # What waited for this process has come earlier. A clock that was set meanwhile tells nonsense.
            arrival_us = (stamp_ns - epoch_ns) // 1000
            if not now_us - 1_000_000 < arrival_us <= now_us:
                arrival_us = now_us
            direction.offer(data, arrival_us)

    def cut_off(self, link: EmulatedLink) -> None:
        """As when a cable is cut: what is on its way is lost."""
        gone = (link.forward, link.backward)
        self._in_flight[:] = [entry for entry in self._in_flight if entry[2] not in gone]
        heapify(self._in_flight)
        for direction in gone:
            direction.cut_off()
