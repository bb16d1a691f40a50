"""Measures one direction of a link with frames of its own, whatever kind of node is at its ends.

The frames are Ethernet's own, of an EtherType for local experiments, sent and received through packet sockets
in the namespaces of both ends: no address, no stack and no port is needed, and nothing of the lab is
disturbed. The sender writes the time into each frame; the receiving kernel notes the time of arrival.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from testbed.emulator.batch_receiver import BatchReceiver
from testbed.topology.model import LinkEnd

if TYPE_CHECKING:
    from testbed.backend.lab import Lab

PROBE_BYTES: Final = 130
"""A length that nothing else in a lab has as a rule; the whole frame."""
ETHERNET_HEADER_BYTES: Final = 14
_ETHER_TYPE: Final = 0x88B5
_HEADER: Final = struct.Struct("!6s6sH")
_CONTENT: Final = struct.Struct("!IQq")
"""The probe's token, its number, and when it was sent in nanoseconds since the epoch."""
_CHECKSUM: Final = struct.Struct("!I")
_SOL_PACKET: Final = 263
_PACKET_IGNORE_OUTGOING: Final = 23
_SO_TIMESTAMPNS: Final = 35
_SO_RCVBUFFORCE: Final = 33
_SO_SNDBUFFORCE: Final = 32
_BUFFER_BYTES: Final = 64 << 20
_ETH_P_ALL: Final = 0x0003
_QUIET_S: Final = 0.3
_BURST_S: Final = 0.001


@dataclass(slots=True)
class Arrivals:
    """What came of a number of frames."""

    sent: int = 0
    delays_us: list[float] = field(default_factory=list)
    """Of each intact frame, in the order of arrival."""
    numbers: list[int] = field(default_factory=list)
    corrupted: int = 0

    @property
    def duplicated(self) -> int:
        return len(self.numbers) - len(set(self.numbers))

    @property
    def lost(self) -> int:
        """Neither intact nor damaged did they come."""
        return max(0, self.sent - len(set(self.numbers)) - self.corrupted)


def gaps_us(count: int, spacing_us: float) -> Iterator[float]:
    """Between frames that are so far apart on average; varied, so that no turn of the link's is met."""
    stream = random.Random(count)
    for _ in range(count):
        yield spacing_us * stream.uniform(0.5, 1.5)


class Probe:
    """A way from one end of a link to the other."""

    def __init__(self, sending: socket.socket, receiving: socket.socket, addresses: bytes) -> None:
        self._sending = sending
        self._receiving = receiving
        self._addresses = addresses
        self._receiver = BatchReceiver()
        self._token = 0

    def spaced(self, count: int, spacing_us: float, longest_delay_us: float) -> Arrivals:
        """Small frames so far apart that none waits for another, as a rule."""
        self._begin()
        arrivals = Arrivals()
        due = time.monotonic()
        for number, gap_us in enumerate(gaps_us(count, spacing_us)):
            # From when the last one really went: catching up would make queues of its own.
            due = max(due, time.monotonic() - gap_us / 1e6) + gap_us / 1e6
            while (left := due - time.monotonic()) > 0:
                if select.select([self._receiving], [], [], left)[0]:
                    self._collect(arrivals)
            self._send(number)
            arrivals.sent += 1
        self._wait(arrivals, longest_delay_us)
        return arrivals

    def flood(
        self, rate_bit_s: float, seconds: float, frame_bytes: int, longest_delay_us: float
    ) -> tuple[float, float]:
        """Frames at a rate beyond the link's. Returns the bits per second that went in and that came out."""
        self._begin()
        frame = self._addresses + bytes(frame_bytes - ETHERNET_HEADER_BYTES)
        start = time.monotonic()
        sent = 0
        stamps: list[int] = []
        while (elapsed := time.monotonic() - start) < seconds:
            for _ in range(max(1, int(elapsed * rate_bit_s / 8 / frame_bytes) - sent)):
                with contextlib.suppress(OSError):
                    self._sending.send(frame)
                sent += 1
                if not sent % 16:
                    self._collect_stamps(stamps, frame_bytes)
            pause = start + (sent + 1) * frame_bytes * 8 / rate_bit_s - time.monotonic()
            select.select([], [], [], min(max(pause, 0), _BURST_S))
            self._collect_stamps(stamps, frame_bytes)
        offered_bit_s = sent * frame_bytes * 8 / (time.monotonic() - start)
        deadline = time.monotonic() + longest_delay_us / 1e6 + seconds
        while time.monotonic() < deadline and select.select([self._receiving], [], [], _QUIET_S)[0]:
            self._collect_stamps(stamps, frame_bytes)
        # The first tenth fills the queue; the rate is what leaves it afterwards.
        settled = stamps[len(stamps) // 10 :]
        if len(settled) < 2 or settled[-1] <= settled[0]:
            return offered_bit_s, 0.0
        return offered_bit_s, (len(settled) - 1) * frame_bytes * 8 * 1e9 / (settled[-1] - settled[0])

    def _begin(self) -> None:
        """What earlier frames left behind is not counted."""
        self._token = (self._token + 1) & 0xFFFF_FFFF
        while select.select([self._receiving], [], [], 0)[0]:
            self._receiver.receive(self._receiving.fileno())

    def _send(self, number: int) -> None:
        room = PROBE_BYTES - ETHERNET_HEADER_BYTES - _CONTENT.size - _CHECKSUM.size
        body = _CONTENT.pack(self._token, number, time.time_ns()) + bytes(room)
        # A full queue of the kernel's loses the frame, as it would any other.
        with contextlib.suppress(OSError):
            self._sending.send(self._addresses + body + _CHECKSUM.pack(zlib.crc32(body)))

    def _collect(self, arrivals: Arrivals) -> None:
        for data, stamp_ns in self._frames(PROBE_BYTES):
            body, checksum = data[ETHERNET_HEADER_BYTES : -_CHECKSUM.size], data[-_CHECKSUM.size :]
            if bytes(data[:ETHERNET_HEADER_BYTES]) != self._addresses or _CHECKSUM.pack(
                zlib.crc32(body)
            ) != bytes(checksum):
                arrivals.corrupted += 1
                continue
            token, number, sent_ns = _CONTENT.unpack_from(body)
            if token == self._token:
                arrivals.numbers.append(number)
                arrivals.delays_us.append((stamp_ns - sent_ns) / 1000)

    def _collect_stamps(self, stamps: list[int], frame_bytes: int) -> None:
        stamps += [stamp_ns for _data, stamp_ns in self._frames(frame_bytes)]

    def _frames(self, length: int) -> Iterator[tuple[memoryview, int]]:
        """Those that are there and as long as the probe's."""
        while True:
            try:
                batch = self._receiver.receive(self._receiving.fileno())
            except (BlockingIOError, InterruptedError):
                return
            yield from ((data, stamp_ns) for data, stamp_ns in batch if len(data) == length)

    def _wait(self, arrivals: Arrivals, longest_delay_us: float) -> None:
        deadline = time.monotonic() + longest_delay_us / 1e6 + _QUIET_S
        while (left := deadline - time.monotonic()) > 0:
            select.select([self._receiving], [], [], left)
            self._collect(arrivals)


@contextlib.contextmanager
def probe(lab: Lab, sender: LinkEnd, receiver: LinkEnd) -> Iterator[Probe]:
    """Sockets at both ends of a link, for what ``sender`` sends."""
    with contextlib.ExitStack() as closing:
        sockets = []
        for end in (sender, receiver):
            with lab.inside(end.node):
                opened = closing.enter_context(
                    socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
                )
            sockets.append(opened)
        sending, receiving = sockets
        with contextlib.suppress(PermissionError):
            sending.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_BYTES)
            receiving.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        with lab.inside(sender.node):
            sending.bind((sender.interface, 0))
        receiving.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        receiving.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        with lab.inside(receiver.node):
            receiving.bind((receiver.interface, _ETH_P_ALL))
        macs = [
            bytes.fromhex(lab.topology.node(end.node).interface(end.interface).mac.replace(":", ""))
            for end in (receiver, sender)
        ]
        closing.enter_context(_in_a_hurry())
        yield Probe(sending, receiving, _HEADER.pack(macs[0], macs[1], _ETHER_TYPE))


@contextlib.contextmanager
def _in_a_hurry() -> Iterator[None]:
    """It is the link that is measured, not how busy the machine is: run before ordinary processes."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
