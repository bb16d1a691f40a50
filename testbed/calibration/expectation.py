"""What an impairment means in numbers: mean and spread of the delay, shares with their intervals.

The link model itself is asked, with many packets and a random stream of its own; so every word counts, also
where they act together (slots, bursts, the time that a rate takes).
"""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import dataclass

from mptcp_stack.device.link_model import LinkCounters, LinkModel, LinkSettings
from testbed.calibration.probe import PROBE_BYTES, gaps_us

CONFIDENCE = 0.99
_PACKETS = 10_000
_REPETITIONS = 300


@dataclass(frozen=True, slots=True)
class Expectation:
    """Of small frames that do not wait for each other."""

    mean_delay_us: float
    """Of those that are not sent ahead."""
    deviation_us: float
    longest_delay_us: float
    loss: float
    duplicate: float
    corrupt: float
    reorder: float


def expect(settings: LinkSettings, spacing_us: float, seed: int = 1) -> Expectation:
    """What the model does to frames of the probe."""
    model = LinkModel(settings, random.Random(seed), LinkCounters())
    delays_us: list[int] = []
    copies = 0
    at_us = 0.0
    for gap_us in gaps_us(_PACKETS, spacing_us):
        at_us += gap_us
        sent_us = round(at_us)
        reordered = model.counters.reordered
        passages = model.carry(PROBE_BYTES, sent_us)
        copies += len(passages)
        if model.counters.reordered == reordered:
            delays_us += [passage.arrival_us - sent_us for passage in passages]
    counters = model.counters
    delays_us = delays_us or [settings.delay_us]
    return Expectation(
        mean_delay_us=statistics.fmean(delays_us),
        deviation_us=statistics.pstdev(delays_us),
        longest_delay_us=max(delays_us),
        loss=settings.loss if _is_independent(settings) else counters.lost / _PACKETS,
        duplicate=settings.duplicate or counters.duplicated / _PACKETS,
        corrupt=settings.corrupt or counters.corrupted / max(copies, 1),
        reorder=settings.reorder if settings.gap == 1 else counters.reordered / max(copies, 1),
    )


def _is_independent(settings: LinkSettings) -> bool:
    return settings.loss_model is None and not settings.loss_correlation


def loss_interval(settings: LinkSettings, packets: int) -> tuple[int, int]:
    """Between which numbers of losses chance alone leads, but for one time in a hundred."""
    if _is_independent(settings):
        return binomial_interval(packets, settings.loss)
    losses = sorted(_losses(settings, packets, seed) for seed in range(_REPETITIONS))
    tail = max(0, math.floor(len(losses) * (1 - CONFIDENCE) / 2))
    return losses[tail], losses[-1 - tail]


def _losses(settings: LinkSettings, packets: int, seed: int) -> int:
    model = LinkModel(settings, random.Random(seed), LinkCounters())
    for number in range(packets):
        model.carry(PROBE_BYTES, number * 1_000_000)
    return model.counters.lost


def binomial_interval(trials: int, probability: float, confidence: float = CONFIDENCE) -> tuple[int, int]:
    """The smallest interval with at most half of the rest on either side of it."""
    if probability <= 0.0:
        return 0, 0
    if probability >= 1.0:
        return trials, trials
    tail = (1.0 - confidence) / 2
    logarithms = math.log(probability), math.log1p(-probability)
    cumulated = 0.0
    lowest: int | None = None
    for successes in range(trials + 1):
        ways = math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
        cumulated += math.exp(ways + successes * logarithms[0] + (trials - successes) * logarithms[1])
        if lowest is None and cumulated > tail:
            lowest = successes
        if cumulated >= 1.0 - tail:
            return lowest or 0, successes
    return lowest or 0, trials
