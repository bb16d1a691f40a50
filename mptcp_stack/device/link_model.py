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
from typing import NamedTuple, Protocol

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
    queue_limit_packets: int = 1000
    """Packets that may wait for, or be in, serialisation; more are dropped at the tail."""
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

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigurationError("wire: " + "; ".join(problems))

    def _problems(self) -> Iterator[str]:
        for name in ("delay_us", "jitter_us"):
            if getattr(self, name) < 0:
                yield f"{name} {getattr(self, name)} is negative"
        if self.rate_bit_s is not None and self.rate_bit_s <= 0:
            yield f"rate_bit_s {self.rate_bit_s} is not positive"
        for name in _PROBABILITIES:
            if not 0.0 <= getattr(self, name) <= 1.0:
                yield f"{name} {getattr(self, name)} is not a probability"
        yield from self._model_problems()
        if self.queue_limit_packets < 1:
            yield f"queue_limit_packets {self.queue_limit_packets} lets nothing through"
        if self.gap < 1:
            yield f"gap {self.gap} is not positive"
        if self.distribution not in DISTRIBUTIONS:
            yield f"distribution {self.distribution!r} is none of {', '.join(DISTRIBUTIONS)}"

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


class Passage(NamedTuple):
    """A packet, or one copy of it, that comes out at the other end."""

    arrival_us: int
    flipped_bit: int | None
    """Counted from the first bit of the packet; None: it comes out as it went in."""


class _Dice:
    """Draws that resemble the one before, as netem's do."""

    __slots__ = ("_last", "_stream")

    def __init__(self, stream: random.Random) -> None:
        self._stream = stream
        self._last: dict[str, float] = {}

    def draw(self, name: str, correlation: float) -> float:
        value = self._stream.random()
        if correlation:
            value = value * (1.0 - correlation) + self._last.get(name, value) * correlation
            self._last[name] = value
        return value


class LinkModel:
    """Decides on one packet after the other, in the order in which they are sent."""

    __slots__ = (
        "_busy_until_ns",
        "_departures_us",
        "_dice",
        "_last_arrival_us",
        "_loss_process",
        "_settings",
        "_since_reordering",
        "_stream",
        "counters",
    )

    def __init__(
        self, settings: LinkSettings, stream: random.Random, counters: LinkCounters | None = None
    ) -> None:
        self._stream = stream
        self._dice = _Dice(stream)
        self.counters = counters if counters is not None else LinkCounters()
        self._busy_until_ns = 0
        self._departures_us: deque[int] = deque()
        self._last_arrival_us = 0
        self._since_reordering = 0
        self._settings = settings
        self._loss_process = settings.loss_model.start() if settings.loss_model is not None else None

    @property
    def settings(self) -> LinkSettings:
        """May be exchanged at any time; what was decided stays."""
        return self._settings

    @settings.setter
    def settings(self, settings: LinkSettings) -> None:
        if settings.loss_model != self._settings.loss_model:
            self._loss_process = settings.loss_model.start() if settings.loss_model is not None else None
        self._settings = settings

    def carry(self, length: int, now_us: int) -> list[Passage]:
        """What comes out of a packet of ``length`` bytes that is sent now: nothing, it, or it twice."""
        settings = self._settings
        copies = 1
        if settings.duplicate and self._happens("duplicate", settings.duplicate):
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
            passages.append(Passage(self._arrival_us(departure_us), self._flipped_bit(length)))
        return passages

    def clear(self) -> None:
        """As when a cable is cut: nothing waits any more."""
        self._departures_us.clear()
        self._busy_until_ns = 0
        self._last_arrival_us = 0

    def _happens(self, name: str, probability: float) -> bool:
        correlation: float = getattr(self._settings, name + "_correlation")
        return self._dice.draw(name, correlation) < probability

    def _is_lost(self) -> bool:
        settings = self._settings
        if settings.loss and self._happens("loss", settings.loss):
            return True
        return self._loss_process is not None and self._loss_process.loses(self._stream)

    def _flipped_bit(self, length: int) -> int | None:
        settings = self._settings
        if not settings.corrupt or not length or not self._happens("corrupt", settings.corrupt):
            return None
        self.counters.corrupted += 1
        return self._stream.randrange(length * 8)

    def _departure_us(self, length: int, now_us: int) -> int | None:
        """When the last bit has been sent; None when the queue is full."""
        rate_bit_s = self._settings.rate_bit_s
        if rate_bit_s is None:
            return now_us
        departures = self._departures_us
        while departures and departures[0] <= now_us:
            departures.popleft()
        if len(departures) >= self._settings.queue_limit_packets:
            return None
        # Kept in nanoseconds, so that rounding to microseconds does not change the rate.
        start_ns = max(self._busy_until_ns, now_us * 1000)
        self._busy_until_ns = start_ns + length * 8 * 1_000_000_000 // rate_bit_s
        departure_us = -(-self._busy_until_ns // 1000)
        departures.append(departure_us)
        return departure_us

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
        if not self._happens("reorder", self._settings.reorder):
            return False
        self._since_reordering = 0
        return True

    def _deviation(self) -> float:
        """In units of the jitter, about zero on average."""
        draw = self._dice.draw("delay", self._settings.delay_correlation)
        match self._settings.distribution:
            case "uniform":
                return 2.0 * draw - 1.0
            case "normal":
                return _normal(draw)
            case "pareto":
                return _pareto(draw)
            case _:
                return 0.25 * _normal(draw) + 0.75 * _pareto(draw)


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
