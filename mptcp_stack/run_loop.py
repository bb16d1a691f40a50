"""Drives a stack with real devices in real time: the only file of the stack that reads a clock or waits.

Send all, receive a bounded batch, re-arm one timer, nothing else. Everything happens on one asyncio event
loop; nothing here may be called from another thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import select
import time
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from types import TracebackType
from typing import Generic, Self, TypeVar

from mptcp_stack.device.interface import Device
from mptcp_stack.driver import SocketStack
from mptcp_stack.errors import DeviceError
from mptcp_stack.ip.interface import Interface
from mptcp_stack.settings import StackSettings
from mptcp_stack.stack import Stack
from mptcp_stack.wire.frame import Frame

RECEIVE_BATCH_FRAMES = 64
"""Per device and wake-up, so that a busy device starves neither its neighbours nor the applications."""

TRANSMIT_BATCH_FRAMES = 64
"""Of what waited for a full device, at each time that it can take more."""

TRANSMIT_QUEUE_FRAMES = 1024
"""What waits per device while the device is full; more is dropped, as a queueing discipline would."""

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


AnyStack = TypeVar("AnyStack", bound=SocketStack)


def monotonic_us() -> int:
    """The stack's time: microseconds of the monotonic clock."""
    return time.monotonic_ns() // 1000


def create_stack(settings: StackSettings | None = None) -> Stack:
    """A stack whose keys, nonces and sequence numbers come from the operating system's randomness."""
    return Stack(settings or StackSettings(), random_bytes=os.urandom)


def keep_freed_memory(byte_count: int = 16 << 20) -> bool:
    """Tell the C library to keep up to ``byte_count`` of freed memory for this process (mallopt(3)).

    Without it glibc gives the memory of each batch of 64 KB frames back and faults it in again for the next
    one, which costs several times as much as the frame itself. False where the C library has no mallopt.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_M_TRIM_THRESHOLD, byte_count) and mallopt(_M_MMAP_THRESHOLD, 4 << 20))
    return False


class _Port:
    """A device at its interface, with what waits to be sent."""

    __slots__ = ("device", "interface", "is_watching_write", "queue")

    def __init__(self, interface: Interface, device: Device) -> None:
        self.interface = interface
        self.device = device
        self.queue: deque[Frame] = deque()
        self.is_watching_write = False


class RunLoop(Generic[AnyStack]):
    """One stack, its devices and the running asyncio event loop.

    Use as an async context manager, or call ``start`` and ``close``. The devices stay the caller's to close.
    """

    def __init__(self, stack: AnyStack, devices: Mapping[Interface, Device] | None = None) -> None:
        self.stack = stack
        self.on_device_failure: Callable[[Interface, DeviceError], None] | None = None
        """Called when a device is gone for good; it has been taken off the loop by then."""
        self._ports: dict[Interface, _Port] = {}
        self._watched: dict[int, _Port] = {}
        self._poller: select.epoll | None = None
        """Watches the devices for the event loop, so that it asks once for all of them."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed_us = 0
        self._is_wake_pending = False
        for interface, device in (devices or {}).items():
            self.add_device(interface, device)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Begin to serve. Must be called while an asyncio event loop runs; see ``keep_freed_memory``."""
        keep_freed_memory()
        self._loop = asyncio.get_running_loop()
        self._poller = select.epoll()
        self._loop.add_reader(self._poller.fileno(), self._on_readable)
        for port in self._ports.values():
            self._watch(port)
        self.wake()

    def close(self) -> None:
        """Stop serving; what waits to be sent is offered to the devices once more."""
        if self._loop is None:
            return
        self._service(monotonic_us())
        for port in list(self._ports.values()):
            self._unwatch(port)
        if self._poller is not None:
            self._loop.remove_reader(self._poller.fileno())
            self._poller.close()
            self._poller = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop = None

    def add_device(self, interface: Interface, device: Device) -> None:
        """Serve one more device, also while running."""
        port = _Port(interface, device)
        self._ports[interface] = port
        self._watch(port)

    def remove_device(self, interface: Interface) -> Device | None:
        """Serve a device no longer and return it; None when ``interface`` has none."""
        port = self._ports.pop(interface, None)
        if port is None:
            return None
        self._unwatch(port)
        return port.device

    def now_us(self) -> int:
        """The stack's time."""
        return monotonic_us()

    def wake(self) -> None:
        """The application gave the stack work: see to it soon, once for any number of calls."""
        if self._is_wake_pending or self._loop is None:
            return
        self._is_wake_pending = True
        self._loop.call_soon(self._on_wake)

    def _on_wake(self) -> None:
        self._is_wake_pending = False
        if self._loop is not None:
            self._service(monotonic_us())

    def _on_readable(self) -> None:
        """What came on several devices is answered once."""
        if self._poller is None:
            return
        for descriptor, _events in self._poller.poll(0):
            port = self._watched.get(descriptor)
            if port is not None:
                self._receive(port)
        self._service(monotonic_us())

    def _receive(self, port: _Port) -> None:
        try:
            frames = port.device.receive(RECEIVE_BATCH_FRAMES)
        except DeviceError as error:
            self._fail(port, error)
            return
        self.stack.receive_frames(frames, port.interface, monotonic_us())

    def _on_timer(self) -> None:
        self._timer = None
        self._service(monotonic_us())

    def _service(self, now_us: int) -> None:
        """Handle what is due, send what is to be sent, arm the timer."""
        stack = self.stack
        deadline_us = stack.next_deadline_us()
        if deadline_us is not None and deadline_us <= now_us:
            # On a busy host what the timer waits for may have arrived on any device meanwhile.
            for port in list(self._ports.values()):
                if port.device.fileno() >= 0:
                    self._receive(port)
            now_us = monotonic_us()
            stack.handle_deadline(now_us)
        outgoing = stack.frames_to_send(now_us)
        if outgoing:
            self._send(outgoing)
        deadline_us = stack.next_deadline_us()
        if deadline_us is not None:
            self._arm(deadline_us)

    def _arm(self, deadline_us: int) -> None:
        """An earlier timer stays: it finds nothing due and arms again, cheaper than moving it each time."""
        if self._loop is None or (self._timer is not None and self._armed_us <= deadline_us):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed_us = deadline_us
        self._timer = self._loop.call_at(deadline_us / 1_000_000, self._on_timer)

    def _send(self, outgoing: list[tuple[Interface, Frame]]) -> None:
        batches: dict[Interface, list[Frame]] = {}
        for interface, frame in outgoing:
            batch = batches.get(interface)
            if batch is None:
                batches[interface] = [frame]
            else:
                batch.append(frame)
        for interface, batch in batches.items():
            port = self._ports.get(interface)
            if port is None:
                self.stack.counters.increment("StackDropDeviceFull", len(batch))
            else:
                self._transmit(port, batch)

    def _transmit(self, port: _Port, frames: list[Frame]) -> None:
        """Hand frames to the device, behind those that wait already."""
        if not port.queue:
            try:
                accepted = port.device.transmit(frames)
            except DeviceError as error:
                self._fail(port, error)
                return
            if accepted == len(frames):
                return
            frames = frames[accepted:]
        room = TRANSMIT_QUEUE_FRAMES - len(port.queue)
        if len(frames) > room:
            self.stack.counters.increment("StackDropDeviceFull", len(frames) - room)
            frames = frames[:room]
        port.queue.extend(frames)
        if not port.is_watching_write and self._loop is not None:
            port.is_watching_write = True
            self._loop.add_writer(port.device.fileno(), self._on_writable, port)

    def _on_writable(self, port: _Port) -> None:
        try:
            accepted = port.device.transmit(list(islice(port.queue, TRANSMIT_BATCH_FRAMES)))
        except DeviceError as error:
            self._fail(port, error)
            return
        for _ in range(accepted):
            port.queue.popleft()
        if not port.queue:
            self._stop_writing(port)

    def _fail(self, port: _Port, error: DeviceError) -> None:
        self.stack.counters.increment("StackDropDeviceFull", len(port.queue))
        port.queue.clear()
        self.remove_device(port.interface)
        if self.on_device_failure is not None:
            self.on_device_failure(port.interface, error)

    def _watch(self, port: _Port) -> None:
        if self._poller is not None:
            self._watched[port.device.fileno()] = port
            self._poller.register(port.device.fileno(), select.EPOLLIN)

    def _unwatch(self, port: _Port) -> None:
        """A device that was closed already has no descriptor to look for any more."""
        self._watched = {number: watched for number, watched in self._watched.items() if watched is not port}
        if self._poller is not None and port.device.fileno() >= 0:
            self._stop_writing(port)
            self._poller.unregister(port.device.fileno())

    def _stop_writing(self, port: _Port) -> None:
        if port.is_watching_write and self._loop is not None:
            port.is_watching_write = False
            self._loop.remove_writer(port.device.fileno())
