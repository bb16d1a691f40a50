"""poll and epoll on the bundled stack; time-outs are moments of virtual time."""

from __future__ import annotations

import heapq
import select
from errno import EBADF, EEXIST, EINVAL, ENOENT

from testbed.packetdrill.stack_under_test import Value
from testbed.packetdrill.userspace_attempts import Done, Handler, Try, finished, number_argument
from testbed.packetdrill.userspace_descriptors import DescriptorTable, EpollInstance, Watch

EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD = 1, 2, 3
MILLISECOND_US = 1_000


class PollingCalls:
    def __init__(self, table: DescriptorTable) -> None:
        self._table = table
        self._deadlines_us: list[int] = []
        self._clock_us = 0
        self.handlers: dict[str, Handler] = {
            "poll": self._poll,
            "epoll_create": self._epoll_create,
            "epoll_create1": self._epoll_create,
            "epoll_ctl": self._epoll_ctl,
            "epoll_wait": self._epoll_wait,
            # Nothing here sends signals that a mask could keep off.
            "epoll_pwait": self._epoll_wait,
        }

    def add_deadline(self, duration_us: int, now_us: int) -> int:
        """Has waiting calls tried again after so long; returns the time of it."""
        heapq.heappush(self._deadlines_us, now_us + duration_us)
        return now_us + duration_us

    def next_deadline_us(self, now_us: int) -> int | None:
        """The earliest that is still to come."""
        while self._deadlines_us and self._deadlines_us[0] <= now_us:
            heapq.heappop(self._deadlines_us)
        return self._deadlines_us[0] if self._deadlines_us else None

    def _waiting(self, look: Try, timeout_ms: int) -> Try:
        """Tries until there is something, or until the time is up; a negative time-out is for ever."""
        deadline_us: int | None = None

        def attempt(now_us: int) -> Done | None:
            nonlocal deadline_us
            if timeout_ms >= 0 and deadline_us is None:
                deadline_us = self.add_deadline(timeout_ms * MILLISECOND_US, now_us)
            done = look(now_us)
            if done is None or done.value or (deadline_us is not None and now_us >= deadline_us):
                return done
            return None

        return attempt

    def _poll(self, arguments: list[Value]) -> Try:
        """poll([{fd=4, events=POLLIN, revents=…}], count, milliseconds)"""
        if not isinstance(arguments[0], list):
            raise ValueError("expected an array of pollfds, [{fd=4, events=POLLIN}]")
        count = number_argument(arguments[1], "count")
        wanted: list[tuple[int, int]] = []
        for entry in arguments[0][:count]:
            if not isinstance(entry, dict):
                raise ValueError("expected a pollfd, {fd=4, events=POLLIN}")
            wanted.append(
                (number_argument(entry.get("fd"), "fd"), number_argument(entry.get("events"), "events", 0))
            )

        def look(_now_us: int) -> Done:
            entries: list[Value] = []
            ready = 0
            for descriptor, events in wanted:
                found = self._events_of(descriptor, events)
                ready += bool(found)
                entries.append({"fd": descriptor, "events": events, "revents": found})
            return Done(ready, {0: entries})

        return self._waiting(look, number_argument(arguments[2], "timeout"))

    def _events_of(self, descriptor: int, events: int) -> int:
        if descriptor < 0:
            return 0
        endpoint = self._table.get(descriptor)
        if endpoint is None:
            return select.POLLNVAL
        return endpoint.readiness() & (events | select.POLLERR | select.POLLHUP)

    # --- epoll ---

    def _epoll_create(self, _arguments: list[Value]) -> Try:
        return finished(self._table.add(EpollInstance()))

    def _epoll(self, value: Value) -> EpollInstance:
        endpoint = self._table.endpoint(number_argument(value, "epoll descriptor"))
        if not isinstance(endpoint, EpollInstance):
            raise OSError(EINVAL, "no epoll instance")
        return endpoint

    def _epoll_ctl(self, arguments: list[Value]) -> Try:
        """epoll_ctl(epoll, operation, descriptor, {events=EPOLLIN, fd=4})"""
        instance = self._epoll(arguments[0])
        operation = number_argument(arguments[1], "operation")
        descriptor = number_argument(arguments[2], "descriptor")
        endpoint = self._table.endpoint(descriptor)
        if endpoint is instance:
            raise OSError(EINVAL, "an epoll instance cannot watch itself")
        if isinstance(endpoint, EpollInstance):
            raise ValueError("the bundled stack has no epoll instances within others")
        is_known = descriptor in instance.watches
        if operation == EPOLL_CTL_ADD and is_known:
            raise OSError(EEXIST, "watched already")
        if operation in (EPOLL_CTL_DEL, EPOLL_CTL_MOD) and not is_known:
            raise OSError(ENOENT, "not watched")
        if operation == EPOLL_CTL_DEL:
            del instance.watches[descriptor]
        elif operation in (EPOLL_CTL_ADD, EPOLL_CTL_MOD):
            event = arguments[3]
            if not isinstance(event, dict):
                raise ValueError("expected an event, {events=EPOLLIN, fd=4}")
            data = {name: number_argument(value, name) for name, value in event.items() if name != "events"}
            events = number_argument(event.get("events"), "events")
            instance.watches[descriptor] = Watch(endpoint, events, data)
        else:
            raise OSError(EINVAL, "operation")
        return finished(0)

    def _epoll_wait(self, arguments: list[Value]) -> Try:
        instance = self._epoll(arguments[0])
        limit = number_argument(arguments[2], "maxevents")
        if limit <= 0:
            raise OSError(EINVAL, "maxevents")

        def look(_now_us: int) -> Done:
            if instance not in self._table:
                raise OSError(EBADF, "closed")
            entries: list[Value] = []
            for events, data in instance.take_events(limit):
                entries.append({"events": events, **data})
            return Done(len(entries), {1: entries})

        return self._waiting(look, number_argument(arguments[3], "timeout"))
