"""Wires in memory: one in virtual time for the simulator, one without time for the run loop."""

from __future__ import annotations

import random
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush

from mptcp_stack.device.interface import LARGEST_GSO_PAYLOAD, DeviceCounters, LinkLayer
from mptcp_stack.device.link_model import LinkCounters, LinkModel, LinkSettings, flip_bit
from mptcp_stack.device.segmentation import segment_frame
from mptcp_stack.errors import DeviceError, MalformedPacketError
from mptcp_stack.wire.frame import Frame

DropFilter = Callable[[bytes, int], bool]
"""Given a packet's bytes and its index on the wire (from 0), whether to drop it."""
Rewriter = Callable[[bytes, int], Iterable[bytes]]
"""Given a packet's bytes and its index on the wire, the packets that go on in its place."""
Corruptor = Callable[[bytes, int], bytes]
"""Given a packet's bytes and the number of a bit, the packet that goes on, damaged."""
Observer = Callable[[int, bytes, str], None]
"""Told of every packet: the time, its bytes as they were sent, and in words what becomes of it."""


@dataclass(frozen=True, slots=True)
class WireSettings(LinkSettings):
    """One direction of a wire. Raises ConfigurationError naming every impossible value at once."""

    split: bool = False
    """Cut super-segments into packets and complete checksums even where nothing else needs it."""

    @property
    def must_cut(self) -> bool:
        """Whether what happens, happens to packets as on a real wire."""
        return self.split or self.needs_packets


@dataclass(slots=True)
class WireCounters(LinkCounters):
    """Packets of one direction. A super-segment that passes whole counts once."""

    offered: int = 0
    delivered: int = 0
    filtered: int = 0
    """By ``drop_if``."""
    oversized: int = 0
    """Longer than the MTU."""
    malformed: int = 0
    """Super-segments that could not be cut."""
    sent_while_down: int = 0


class Wire:
    """One direction of a wire in virtual time: frames go in at one time and come out at a later one.

    Order is kept unless the settings ask for jitter or reordering. Every frame that comes out owns its
    bytes, in ``head``.
    """

    __slots__ = (
        "_in_flight",
        "_model",
        "_mtu",
        "_must_cut",
        "_order",
        "_settings",
        "corruptor",
        "counters",
        "drop_if",
        "is_up",
        "link_layer",
        "name",
        "observer",
        "rewrite",
    )

    def __init__(
        self,
        name: str,
        settings: WireSettings,
        random_stream: random.Random,
        *,
        link_layer: LinkLayer = LinkLayer.ETHERNET,
        mtu: int = 1500,
    ) -> None:
        self.name = name
        self.counters = WireCounters()
        self.drop_if: DropFilter | None = None
        self.rewrite: Rewriter | None = None
        """A middlebox. It sees packets as on a real wire and mends the checksums of what it changes."""
        self.corruptor: Corruptor = flip_bit
        """What ``corrupt`` does to a packet."""
        self.observer: Observer | None = None
        self.is_up = True
        self._settings = settings
        self._must_cut = settings.must_cut
        self._model = LinkModel(settings, random_stream, self.counters)
        self.link_layer = link_layer
        self._mtu = mtu
        self._order = 0
        self._in_flight: list[tuple[int, int, Frame]] = []

    @property
    def settings(self) -> WireSettings:
        """May be exchanged at any time; what is on its way already keeps its arrival time."""
        return self._settings

    @settings.setter
    def settings(self, settings: WireSettings) -> None:
        self._settings = self._model.settings = settings
        self._must_cut = settings.must_cut

    def send(self, frame: Frame, now_us: int) -> list[Frame]:
        """Put a frame on the wire and return the packets that it became, lost ones included."""
        if not self.is_up:
            self.counters.sent_while_down += 1
            self._tell(frame, now_us, "link down")
            return []
        packets = self._packets_of(frame)
        for packet in packets:
            self._send_packet(packet, now_us)
        return packets

    def _packets_of(self, frame: Frame) -> list[Frame]:
        if not self._must_cut and self.rewrite is None:
            return [replace(frame, head=frame.to_bytes(), payload=())]
        try:
            packets = segment_frame(frame, self.link_layer.header_length)
        except MalformedPacketError:
            self.counters.malformed += 1
            return []
        return [Frame(packet.to_bytes(), is_ipv6=packet.is_ipv6) for packet in packets]

    def _send_packet(self, packet: Frame, now_us: int) -> None:
        counters = self.counters
        index = counters.offered
        counters.offered += 1
        if self._is_oversized(packet):
            counters.oversized += 1
            self._tell(packet, now_us, "too long")
        elif self.drop_if is not None and self.drop_if(packet.to_bytes(), index):
            counters.filtered += 1
            self._tell(packet, now_us, "filtered")
        elif self.rewrite is None:
            self._enqueue(packet, now_us)
        else:
            for data in self.rewrite(packet.to_bytes(), index):
                self._enqueue(Frame(data), now_us)

    def pass_on(self, data: bytes, now_us: int) -> None:
        """A packet that ``rewrite`` had kept, and that goes on now."""
        self._enqueue(Frame(data), now_us)

    def _is_oversized(self, packet: Frame) -> bool:
        """A super-segment is measured by its segments."""
        length = len(packet) - self.link_layer.header_length
        if length <= self._mtu:
            return False
        return not packet.gso_size or packet.gso_size > self._mtu

    def _enqueue(self, packet: Frame, now_us: int) -> None:
        if self.observer is None:
            passages = self._model.carry(len(packet), now_us)
        else:
            passages, decisions = self._model.carry_and_tell(len(packet), now_us)
            arrivals = [f"arrives at {passage.arrival_us / 1_000_000:.6f}" for passage in passages]
            self._tell(packet, now_us, ", ".join([*decisions, *arrivals]))
        for arrival_us, flipped_bit in passages:
            frame = packet
            if flipped_bit is not None:
                frame = Frame(self.corruptor(packet.to_bytes(), flipped_bit), is_ipv6=packet.is_ipv6)
            self._order += 1
            heappush(self._in_flight, (arrival_us, self._order, frame))

    def _tell(self, packet: Frame, now_us: int, fate: str) -> None:
        if self.observer is not None:
            self.observer(now_us, packet.to_bytes(), fate)

    @property
    def frames_in_flight(self) -> int:
        return len(self._in_flight)

    def next_arrival_us(self) -> int | None:
        """When the next frame comes out; None while the wire is empty."""
        return self._in_flight[0][0] if self._in_flight else None

    def take_arrived(self, now_us: int) -> list[Frame]:
        """Everything that has come out by ``now_us``, in order."""
        arrived: list[Frame] = []
        in_flight = self._in_flight
        while in_flight and in_flight[0][0] <= now_us:
            arrived.append(heappop(in_flight)[2])
        self.counters.delivered += len(arrived)
        return arrived

    def clear(self) -> None:
        """Lose everything that is on its way, as when a cable is cut."""
        self.counters.lost += len(self._in_flight)
        self._in_flight.clear()
        self._model.clear()


class InMemoryDevice:
    """One end of a wire without delay between two run loops of one process.

    Frames pass whole, with their offload metadata; a socket pair carries one byte for each, so that both
    ends can be waited for. See :class:`mptcp_stack.device.interface.Device`.
    """

    checksum_offload = True
    gso_max_size = LARGEST_GSO_PAYLOAD

    __slots__ = ("_incoming", "_outgoing", "_socket", "counters", "link_layer", "mac", "mtu", "name")

    def __init__(
        self,
        name: str,
        signal_socket: socket.socket,
        incoming: deque[Frame],
        outgoing: deque[Frame],
        *,
        mac: bytes,
        mtu: int,
        link_layer: LinkLayer,
    ) -> None:
        self.name = name
        self.mac = mac
        self.mtu = mtu
        self.link_layer = link_layer
        self.counters = DeviceCounters()
        self._socket = signal_socket
        self._incoming = incoming
        self._outgoing = outgoing

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self, limit: int) -> list[Frame]:
        try:
            signals = len(self._socket.recv(limit))
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            raise DeviceError(f"device {self.name}: {error.strerror}") from error
        if not signals:
            raise DeviceError(f"device {self.name}: the other end is closed")
        frames = [self._incoming.popleft() for _ in range(signals)]
        self.counters.received_frames += signals
        self.counters.received_bytes += sum(map(len, frames))
        return frames

    def transmit(self, frames: Sequence[Frame]) -> int:
        for index, frame in enumerate(frames):
            # First the frame, then its signal: the other end may be served by another thread.
            self._outgoing.append(replace(frame, head=frame.to_bytes(), payload=()))
            try:
                self._socket.send(b"\0")
            except (BlockingIOError, InterruptedError):
                self._outgoing.pop()
                return index
            except OSError:
                self._outgoing.pop()
                self.counters.send_errors += 1
                continue
            self.counters.sent_frames += 1
            self.counters.sent_bytes += len(frame)
        return len(frames)

    def close(self) -> None:
        self._socket.close()


def in_memory_pair(
    names: tuple[str, str],
    macs: tuple[bytes, bytes] = (b"", b""),
    *,
    mtu: int = 1500,
    link_layer: LinkLayer = LinkLayer.ETHERNET,
) -> tuple[InMemoryDevice, InMemoryDevice]:
    """Two devices that are the ends of one wire; a few hundred frames fit into it each way."""
    queues: tuple[deque[Frame], deque[Frame]] = (deque(), deque())
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    first.setblocking(False)
    second.setblocking(False)
    return (
        InMemoryDevice(names[0], first, queues[0], queues[1], mac=macs[0], mtu=mtu, link_layer=link_layer),
        InMemoryDevice(names[1], second, queues[1], queues[0], mac=macs[1], mtu=mtu, link_layer=link_layer),
    )
