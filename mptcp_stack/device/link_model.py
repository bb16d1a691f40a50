"""One direction of an impaired link, in the words of tc-netem(8): what becomes of each packet, and when.

The model holds no packets, reads no clock and draws only from the random stream that it is given. So it
serves virtual time and real time alike, and the same seed does the same to the same packets.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import Enum, auto
from statistics import NormalDist
from typing import Final, NamedTuple, Protocol

from mptcp_stack.errors import ConfigurationError

DISTRIBUTIONS = ("uniform", "normal", "pareto", "paretonormal")
_LARGEST_DEVIATION = 4.0
"""tc's tables end at four times the jitter."""


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """Loss in bursts: ``loss gemodel P R 1-H 1-K``. Good turns bad with ``p``, bad good with ``r``."""

    p: float
    r: float
    loss_in_bad: float = 1.0
    loss_in_good: float = 0.0

    def start(self) -> LossProcess:
        return _GilbertElliottProcess(self)


@dataclass(frozen=True, slots=True)
class FourStates:
    """``loss state P13 P31 P32 P23 P14`` of netem: single losses in gaps, and bursts with gains in them."""

    p13: float
    p31: float
    p32: float = 0.0
    p23: float = 1.0
    p14: float = 0.0

    def start(self) -> LossProcess:
        return _FourStateProcess(self)


class LossProcess(Protocol):
    """A loss model with the state that it is in."""

    def loses(self, stream: random.Random) -> bool: ...


class _GilbertElliottProcess:
    def __init__(self, model: GilbertElliott) -> None:
        self._model = model
        self._is_bad = False

    def loses(self, stream: random.Random) -> bool:
        model = self._model
        if self._is_bad:
            lost = stream.random() < model.loss_in_bad
            self._is_bad = stream.random() >= model.r
        else:
            lost = stream.random() < model.loss_in_good
            self._is_bad = stream.random() < model.p
        return lost


class _Period(Enum):
    GAP = auto()
    BURST = auto()
    """Received within a burst."""
    LOST_IN_BURST = auto()
    LOST_IN_GAP = auto()


class _FourStateProcess:
    def __init__(self, model: FourStates) -> None:
        self._model = model
        self._period = _Period.GAP

    def loses(self, stream: random.Random) -> bool:
        self._period = self._following(stream.random())
        return self._period in (_Period.LOST_IN_BURST, _Period.LOST_IN_GAP)

    def _following(self, draw: float) -> _Period:
        model = self._model
        match self._period:
            case _Period.GAP:
                if draw < model.p14:
                    return _Period.LOST_IN_GAP
                return _Period.LOST_IN_BURST if draw < model.p14 + model.p13 else _Period.GAP
            case _Period.BURST:
                return _Period.LOST_IN_BURST if draw < model.p23 else _Period.BURST
            case _Period.LOST_IN_BURST:
                if draw < model.p32:
                    return _Period.BURST
                return _Period.GAP if draw < model.p32 + model.p31 else _Period.LOST_IN_BURST
            case _Period.LOST_IN_GAP:
                return _Period.GAP


@dataclass(frozen=True, slots=True)
class Slot:
    """``slot MIN MAX packets N bytes N``: what has accumulated comes out at once, at most so much of it.

    As on media with turns (Wi-Fi, LTE, cable). The time from one slot to the next is drawn evenly.
    """

    shortest_us: int
    longest_us: int
    packets: int | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """One direction of a link. Raises ConfigurationError naming every impossible value at once.

    Probabilities are from 0 to 1. A correlation says how much of the last draw the next one repeats.
    """

    delay_us: int = 0
    """Propagation delay."""
    rate_bit_s: int | None = None
    """Serialisation rate over whole frames, link header included; None: infinitely fast."""
    loss: float = 0.0
    """Probability that a packet is lost, each on its own unless ``loss_correlation`` says otherwise."""
    queue_limit_packets: int | None = 1000
    """Packets that may wait for, or be in, serialisation; more are dropped at the tail."""
    queue_limit_bytes: int | None = None
    """The same in bytes of whole frames. A packet finds room where both limits have it."""
    packet_overhead_bytes: int = 0
    """What the link adds to each packet before it is serialised; negative: what it leaves away."""
    cell_bytes: int = 0
    """Packets are serialised in cells of this payload, the last one padded (ATM: 48); 0: as they are."""
    cell_overhead_bytes: int = 0
    """Of each cell (ATM: 5)."""
    jitter_us: int = 0
    """What the delay deviates by; packets may overtake each other."""
    delay_correlation: float = 0.0
    distribution: str = "uniform"
    """Of the jitter: one of DISTRIBUTIONS."""
    loss_correlation: float = 0.0
    loss_model: GilbertElliott | FourStates | None = None
    """Loss in bursts, beside ``loss``."""
    duplicate: float = 0.0
    duplicate_correlation: float = 0.0
    corrupt: float = 0.0
    """Probability that one bit of a packet is flipped."""
    corrupt_correlation: float = 0.0
    reorder: float = 0.0
    """Probability that a packet goes without delay and so overtakes others."""
    reorder_correlation: float = 0.0
    gap: int = 1
    """Only each packet of this number is a candidate for reordering."""
    slot: Slot | None = None
    """Packets come out in bunches."""

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigurationError("wire: " + "; ".join(problems))

    @property
    def needs_packets(self) -> bool:
        """Whether what happens, happens to packets as on a real wire, so that super-segments must be cut."""
        return bool(
            self.loss
            or self.rate_bit_s
            or self.loss_model
            or self.duplicate
            or self.corrupt
            or self.reorder
            or self.jitter_us
            or self.slot
        )

    def length_on_the_link(self, length: int) -> int:
        """The bytes that a frame of ``length`` bytes is serialised as."""
        length += self.packet_overhead_bytes
        if self.cell_bytes:
            length = -(-length // self.cell_bytes) * (self.cell_bytes + self.cell_overhead_bytes)
        return max(length, 0)

    def _problems(self) -> Iterator[str]:
        for name in ("delay_us", "jitter_us", "cell_bytes", "cell_overhead_bytes"):
            if getattr(self, name) < 0:
                yield f"{name} {getattr(self, name)} is negative"
        if self.rate_bit_s is not None and self.rate_bit_s <= 0:
            yield f"rate_bit_s {self.rate_bit_s} is not positive"
        for name in _PROBABILITIES:
            if not 0.0 <= getattr(self, name) <= 1.0:
                yield f"{name} {getattr(self, name)} is not a probability"
        yield from self._model_problems()
        yield from self._limit_problems()
        yield from self._slot_problems()
        if self.gap < 1:
            yield f"gap {self.gap} is not positive"
        if self.distribution not in DISTRIBUTIONS:
            yield f"distribution {self.distribution!r} is none of {', '.join(DISTRIBUTIONS)}"

    def _limit_problems(self) -> Iterator[str]:
        for name in ("queue_limit_packets", "queue_limit_bytes"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                yield f"{name} {limit} lets nothing through"

    def _slot_problems(self) -> Iterator[str]:
        slot = self.slot
        if slot is None:
            return
        if not 0 < slot.shortest_us <= slot.longest_us:
            yield f"slots of {slot.shortest_us} to {slot.longest_us} us are impossible"
        for limit in (slot.packets, slot.bytes):
            if limit is not None and limit < 1:
                yield f"slots of {limit} let nothing through"

    def _model_problems(self) -> Iterator[str]:
        if self.loss_model is None:
            return
        for field in fields(self.loss_model):
            value = getattr(self.loss_model, field.name)
            if not 0.0 <= value <= 1.0:
                yield f"loss_model {field.name} {value} is not a probability"


_PROBABILITIES = (
    "loss",
    "loss_correlation",
    "duplicate",
    "duplicate_correlation",
    "corrupt",
    "corrupt_correlation",
    "reorder",
    "reorder_correlation",
    "delay_correlation",
)


@dataclass(slots=True)
class LinkCounters:
    """Packets that a model did something to."""

    lost: int = 0
    """By the loss probability or the loss model."""
    overflowed: int = 0
    """Found the queue full."""
    duplicated: int = 0
    corrupted: int = 0
    reordered: int = 0
    """Sent ahead of others on purpose; overtaking by jitter is not counted."""


OVERFLOWED: Final = "dropped by a full queue"
_DECISIONS: Final = {
    "lost": "lost",
    "overflowed": OVERFLOWED,
    "duplicated": "duplicated",
    "reordered": "sent ahead of others",
}
"""Counters of decisions, and how people are told of each."""


class Passage(NamedTuple):
    """A packet, or one copy of it, that comes out at the other end."""

    arrival_us: int
    flipped_bit: int | None
    """Counted from the first bit of the packet; None: it comes out as it went in."""


class _Chance:
    """A random stream for one kind of decision, whose draws may resemble the one before as netem's do.

    Each kind has a stream of its own. So which packets are lost does not depend on how many were dropped
    by a full queue, which in real time is never the same twice.
    """

    __slots__ = ("_last", "stream")

    def __init__(self, seed: int, name: str) -> None:
        self.stream = random.Random(f"{seed}:{name}")
        self._last: float | None = None

    def draw(self, correlation: float) -> float:
        value = self.stream.random()
        if correlation:
            if self._last is not None:
                value = value * (1.0 - correlation) + self._last * correlation
            self._last = value
        return value


class LinkModel:
    """Decides on one packet after the other, in the order in which they are sent."""

    __slots__ = (
        "_busy_until_ns",
        "_chances",
        "_last_arrival_us",
        "_loss_process",
        "_queue",
        "_queued_bytes",
        "_seed",
        "_settings",
        "_since_reordering",
        "_slots",
        "counters",
    )

    def __init__(
        self, settings: LinkSettings, stream: random.Random, counters: LinkCounters | None = None
    ) -> None:
        self._seed = stream.getrandbits(64)
        self._chances: dict[str, _Chance] = {}
        self.counters = counters if counters is not None else LinkCounters()
        self._busy_until_ns = 0
        self._queue: deque[tuple[int, int]] = deque()
        """When each packet will have been serialised, and its length."""
        self._queued_bytes = 0
        self._last_arrival_us = 0
        self._since_reordering = 0
        self._settings = settings
        self._loss_process = settings.loss_model.start() if settings.loss_model is not None else None
        self._slots = _Slots(settings.slot) if settings.slot is not None else None

    @property
    def settings(self) -> LinkSettings:
        """May be exchanged at any time; what was decided stays."""
        return self._settings

    @settings.setter
    def settings(self, settings: LinkSettings) -> None:
        if settings.loss_model != self._settings.loss_model:
            self._loss_process = settings.loss_model.start() if settings.loss_model is not None else None
        if settings.slot != self._settings.slot:
            self._slots = _Slots(settings.slot) if settings.slot is not None else None
        self._settings = settings

    def carry(self, length: int, now_us: int) -> list[Passage]:
        """What comes out of a packet of ``length`` bytes that is sent now: nothing, it, or it twice."""
        settings = self._settings
        copies = 1
        if settings.duplicate and self._is_duplicated():
            self.counters.duplicated += 1
            copies = 2
        if self._is_lost():
            self.counters.lost += 1
            copies -= 1
        passages = []
        for _ in range(copies):
            departure_us = self._departure_us(length, now_us)
            if departure_us is None:
                self.counters.overflowed += 1
                continue
            arrival_us = self._arrival_us(departure_us)
            if self._slots is not None:
                arrival_us = self._slots.release_us(arrival_us, length, self._chance("slot").stream)
            passages.append(Passage(arrival_us, self._flipped_bit(length)))
        return passages

    def carry_and_tell(self, length: int, now_us: int) -> tuple[list[Passage], list[str]]:
        """:meth:`carry`, and in words what was decided; none where the packet just goes on."""
        counters = self.counters
        before = [getattr(counters, name) for name in _DECISIONS]
        passages = self.carry(length, now_us)
        decisions = []
        for (name, words), earlier in zip(_DECISIONS.items(), before, strict=True):
            times = getattr(counters, name) - earlier
            if times:
                # Of a packet and its copy.
                decisions.append(words if times == 1 else f"{words} twice")
        bits = [str(passage.flipped_bit) for passage in passages if passage.flipped_bit is not None]
        if bits:
            decisions.append(f"bit {' and '.join(bits)} flipped")
        return passages, decisions

    def clear(self) -> None:
        """As when a cable is cut: nothing waits any more."""
        self._slots = _Slots(self._settings.slot) if self._settings.slot is not None else None
        self._queue.clear()
        self._queued_bytes = 0
        self._busy_until_ns = 0
        self._last_arrival_us = 0

    def _chance(self, name: str) -> _Chance:
        chance = self._chances.get(name)
        if chance is None:
            chance = self._chances[name] = _Chance(self._seed, name)
        return chance

    def _is_duplicated(self) -> bool:
        settings = self._settings
        return self._chance("duplicate").draw(settings.duplicate_correlation) < settings.duplicate

    def _is_lost(self) -> bool:
        settings = self._settings
        if settings.loss and self._chance("loss").draw(settings.loss_correlation) < settings.loss:
            return True
        return self._loss_process is not None and self._loss_process.loses(self._chance("states").stream)

    def _flipped_bit(self, length: int) -> int | None:
        settings = self._settings
        if not settings.corrupt or not length:
            return None
        chance = self._chance("corrupt")
        if chance.draw(settings.corrupt_correlation) >= settings.corrupt:
            return None
        self.counters.corrupted += 1
        return chance.stream.randrange(length * 8)

    def _departure_us(self, length: int, now_us: int) -> int | None:
        """When the last bit has been sent; None when the queue is full."""
        settings = self._settings
        rate_bit_s = settings.rate_bit_s
        if rate_bit_s is None:
            return now_us
        queue = self._queue
        while queue and queue[0][0] <= now_us:
            self._queued_bytes -= queue.popleft()[1]
        if queue and self._is_full(length):
            return None
        # Kept in nanoseconds, so that rounding to microseconds does not change the rate.
        start_ns = max(self._busy_until_ns, now_us * 1000)
        self._busy_until_ns = start_ns + settings.length_on_the_link(length) * 8 * 1_000_000_000 // rate_bit_s
        departure_us = -(-self._busy_until_ns // 1000)
        queue.append((departure_us, length))
        self._queued_bytes += length
        return departure_us

    def _is_full(self, length: int) -> bool:
        packets, octets = self._settings.queue_limit_packets, self._settings.queue_limit_bytes
        if packets is not None and len(self._queue) >= packets:
            return True
        return octets is not None and self._queued_bytes + length > octets

    def _arrival_us(self, departure_us: int) -> int:
        settings = self._settings
        if settings.reorder and self._overtakes():
            self.counters.reordered += 1
            return departure_us
        if settings.jitter_us:
            return departure_us + max(0, settings.delay_us + round(self._deviation() * settings.jitter_us))
        # A wire that became shorter lets nobody overtake.
        self._last_arrival_us = max(self._last_arrival_us, departure_us + settings.delay_us)
        return self._last_arrival_us

    def _overtakes(self) -> bool:
        self._since_reordering += 1
        if self._since_reordering < self._settings.gap:
            return False
        settings = self._settings
        if self._chance("reorder").draw(settings.reorder_correlation) >= settings.reorder:
            return False
        self._since_reordering = 0
        return True

    def _deviation(self) -> float:
        """In units of the jitter, about zero on average."""
        settings = self._settings
        return deviation(settings.distribution, self._chance("delay").draw(settings.delay_correlation))


def deviation(distribution: str, draw: float) -> float:
    """What a draw from 0 to 1 is in a distribution, in units of the jitter and about zero on average."""
    match distribution:
        case "uniform":
            return 2.0 * draw - 1.0
        case "normal":
            return _normal(draw)
        case "pareto":
            return _pareto(draw)
        case _:
            return 0.25 * _normal(draw) + 0.75 * _pareto(draw)


class _Slots:
    """When the turns come, and how much of the next one is taken already."""

    __slots__ = ("_bytes_left", "_next_us", "_packets_left", "_slot")

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._next_us = -1
        self._packets_left = 0
        self._bytes_left = 0

    def release_us(self, ready_us: int, length: int, stream: random.Random) -> int:
        """When a packet that is ready at ``ready_us`` comes out; they are asked about in their order."""
        if self._next_us < ready_us:
            self._open(ready_us, stream)
        elif self._packets_left <= 0 or self._bytes_left <= 0:
            self._open(self._next_us, stream)
        self._packets_left -= 1
        self._bytes_left -= length
        return self._next_us

    def _open(self, after_us: int, stream: random.Random) -> None:
        slot = self._slot
        self._next_us = after_us + stream.randint(slot.shortest_us, slot.longest_us)
        self._packets_left = slot.packets if slot.packets is not None else _WITHOUT_LIMIT
        self._bytes_left = slot.bytes if slot.bytes is not None else _WITHOUT_LIMIT


_WITHOUT_LIMIT = 1 << 62


def _normal(draw: float) -> float:
    deviation = NormalDist().inv_cdf(min(max(draw, 1e-9), 1.0 - 1e-9))
    return min(max(deviation, -_LARGEST_DEVIATION), _LARGEST_DEVIATION)


def _pareto(draw: float) -> float:
    """With the shape 3 of tc's table, moved to a mean of zero and scaled as there."""
    value = math.pow(max(1.0 - draw, 1e-9), -1.0 / 3.0)
    return min((value - 1.5) * 4.0 / 3.0, _LARGEST_DEVIATION)


def flip_bit(packet: bytes, bit: int) -> bytes:
    """The packet with one bit the other way."""
    changed = bytearray(packet)
    changed[bit // 8] ^= 0x80 >> bit % 8
    return bytes(changed)
