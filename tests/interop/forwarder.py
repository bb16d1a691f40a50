"""A bad link in real time: forwards frames between interfaces under the simulator's link model."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence

from mptcp_stack.device.in_memory import Wire, WireSettings
from mptcp_stack.device.packet_socket import PacketSocket

FRAMES_AT_ONCE = 64
SPARED_PACKETS = 16
"""Of each direction: what is lost or overtaken in a handshake may be a reason to fall back, for Linux too."""


class Direction:
    """From one interface to another."""

    def __init__(
        self, source: PacketSocket, sink: PacketSocket, settings: WireSettings, stream: random.Random
    ) -> None:
        self.source, self.sink = source, sink
        self._impaired = settings
        gentle = WireSettings(delay_us=settings.delay_us, rate_bit_s=settings.rate_bit_s, split=True)
        self.wire = Wire(f"{source.name}->{sink.name}", gentle, stream, mtu=source.mtu)

    def take(self, now_us: int) -> None:
        for frame in self.source.receive(FRAMES_AT_ONCE):
            if self.wire.counters.offered >= SPARED_PACKETS and self.wire.settings is not self._impaired:
                self.wire.settings = self._impaired
            self.wire.send(frame, now_us)

    def release(self, now_us: int) -> None:
        if frames := self.wire.take_arrived(now_us):
            self.sink.transmit(frames)


class Forwarder:
    """All directions, on a thread of their own until the block ends."""

    def __init__(self, directions: Sequence[Direction]) -> None:
        self.directions = directions
        self._wake, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)

    def __enter__(self) -> Forwarder:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.send(b"\0")
        self._thread.join()
        self._wake.close()
        self._stop.close()

    def _run(self) -> None:
        sources = {direction.source.fileno(): direction for direction in self.directions}
        poll = select.poll()
        poll.register(self._wake.fileno(), select.POLLIN)
        for descriptor in sources:
            poll.register(descriptor, select.POLLIN)
        while True:
            ready = poll.poll(self._wait_ms())
            now_us = time.monotonic_ns() // 1000
            for descriptor, _ in ready:
                if descriptor not in sources:
                    return
                sources[descriptor].take(now_us)
            for direction in self.directions:
                direction.release(now_us)

    def _wait_ms(self) -> float | None:
        arrivals = [direction.wire.next_arrival_us() for direction in self.directions]
        next_us = min((arrival for arrival in arrivals if arrival is not None), default=None)
        if next_us is None:
            return None
        return max(0.0, (next_us - time.monotonic_ns() // 1000) / 1000)


@contextlib.contextmanager
def forwarded(
    links: Sequence[tuple[PacketSocket, PacketSocket]], settings: WireSettings, seed: int
) -> Iterator[Forwarder]:
    """Both directions of each pair of interfaces."""
    directions = []
    for number, (one, other) in enumerate(links):
        for source, sink in ((one, other), (other, one)):
            stream = random.Random(f"{seed} {number} {source.name}")
            directions.append(Direction(source, sink, settings, stream))
    with Forwarder(directions) as forwarder:
        yield forwarder
