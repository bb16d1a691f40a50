"""poll and epoll for a script on the kernel."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from errno import EINVAL

from testbed.packetdrill.kernel_descriptors import KernelDescriptors, OpenDescriptor
from testbed.packetdrill.kernel_values import number, structures
from testbed.packetdrill.stack_under_test import Value

_CTL_ADD, _CTL_DEL, _CTL_MOD = 1, 2, 3

Outcome = tuple[int, dict[int, Value]]
"""The result and the outputs by argument position."""


class PollingCalls:
    """``wake`` is a descriptor that becomes readable when waiting calls must return."""

    def __init__(self, descriptors: KernelDescriptors, wake: int) -> None:
        self._descriptors = descriptors
        self._wake = wake

    def prepare(self, name: str, arguments: list[Value]) -> Callable[[], Outcome]:
        """Raises ValueError for a call or an argument that can't be carried out, OSError."""
        match name:
            case "poll":
                return self._poll(arguments)
            case "epoll_create":
                return self._create(number(arguments[0], "size") > 0)
            case "epoll_create1":
                return self._create(True)
            case "epoll_ctl":
                return self._control(arguments)
            case "epoll_wait" | "epoll_pwait":
                return self._wait(arguments)
            case _:
                raise ValueError(f"scripts on the kernel have no system call {name}")

    def _poll(self, arguments: list[Value]) -> Callable[[], Outcome]:
        """poll([{fd=4, events=POLLIN, revents=…}], count, milliseconds)"""
        wanted: list[tuple[int, int, int]] = []
        for entry in structures(arguments[0], arguments[1], "pollfds, [{fd=4, events=POLLIN}]"):
            descriptor, events = number(entry.get("fd"), "fd"), number(entry.get("events"), "events", 0)
            wanted.append((descriptor, self._kernel_number(descriptor), events))
        timeout_ms = number(arguments[2], "timeout")

        def call() -> Outcome:
            poller = select.poll()
            for _, known, events in wanted:
                if known >= 0:
                    poller.register(known, events)
            poller.register(self._wake, select.POLLIN)
            has_dead = any(descriptor >= 0 > known for descriptor, known, _ in wanted)
            found = dict(poller.poll(0 if has_dead else timeout_ms))
            entries: list[Value] = []
            ready = 0
            for descriptor, known, events in wanted:
                got = select.POLLNVAL if descriptor >= 0 > known else found.get(known, 0)
                ready += bool(got)
                entries.append({"fd": descriptor, "events": events, "revents": got})
            return ready, {0: entries}

        return call

    def _kernel_number(self, descriptor: int) -> int:
        """-1 for one that is not open."""
        try:
            return self._descriptors.get(descriptor).number
        except OSError:
            return -1

    def _create(self, is_valid: bool) -> Callable[[], Outcome]:
        def call() -> Outcome:
            if not is_valid:
                raise OSError(EINVAL, os.strerror(EINVAL))
            instance = select.epoll()
            # Only at the end of the script: EPOLLIN of one that the script did not ask for.
            instance.register(self._wake, select.EPOLLIN)
            return self._descriptors.add(OpenDescriptor(instance.fileno(), epoll=instance)), {}

        return call

    def _instance(self, value: Value) -> tuple[OpenDescriptor, select.epoll]:
        opened = self._descriptors.get(number(value, "epoll descriptor"))
        if opened.epoll is None:
            raise OSError(EINVAL, os.strerror(EINVAL))
        return opened, opened.epoll

    def _control(self, arguments: list[Value]) -> Callable[[], Outcome]:
        """epoll_ctl(epoll, operation, descriptor, {events=EPOLLIN, fd=4})"""
        opened, instance = self._instance(arguments[0])
        operation = number(arguments[1], "operation")
        known = self._descriptors.get(number(arguments[2], "descriptor")).number
        event = arguments[3] if isinstance(arguments[3], dict) else {}
        if operation != _CTL_DEL and not event:
            raise ValueError("expected an event, {events=EPOLLIN, fd=4}")
        data = {name: number(value, name) for name, value in event.items() if name != "events"}
        events = number(event.get("events"), "events", 0)

        def call() -> Outcome:
            if operation == _CTL_ADD:
                instance.register(known, events)
            elif operation == _CTL_DEL:
                instance.unregister(known)
            elif operation == _CTL_MOD:
                instance.modify(known, events)
            else:
                raise OSError(EINVAL, os.strerror(EINVAL))
            opened.watches[known] = data
            return 0, {}

        return call

    def _wait(self, arguments: list[Value]) -> Callable[[], Outcome]:
        opened, instance = self._instance(arguments[0])
        limit, timeout_ms = number(arguments[2], "maxevents"), number(arguments[3], "timeout")

        def call() -> Outcome:
            if limit <= 0:
                raise OSError(EINVAL, os.strerror(EINVAL))
            found = instance.poll(timeout_ms / 1000 if timeout_ms >= 0 else None, limit)
            entries: list[Value] = [
                {"events": events, **opened.watches.get(known, {})}
                for known, events in found
                if known != self._wake
            ]
            return len(entries), {1: entries}

        return call
