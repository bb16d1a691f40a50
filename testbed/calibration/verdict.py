"""Asked against achieved: each quantity of a direction with what was allowed, and whether it was met."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from mptcp_stack.device.link_model import LinkSettings
from testbed.calibration.expectation import Expectation, binomial_interval, loss_interval
from testbed.calibration.probe import Arrivals

DELAY_SHARE, DELAY_US = 0.01, 300.0
"""The mean delay is met within the larger of both."""
DEVIATION_SHARE, DEVIATION_US = 0.10, 300.0
RATE_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Comparison:
    """One quantity. ``lowest`` and ``highest`` are what is allowed."""

    quantity: str
    unit: str
    asked: float
    achieved: float
    lowest: float
    highest: float

    @property
    def is_met(self) -> bool:
        return self.lowest <= self.achieved <= self.highest


def compare(
    settings: LinkSettings,
    expectation: Expectation,
    arrivals: Arrivals,
    rate_bit_s: float | None,
    frame_bytes: int,
) -> list[Comparison]:
    """All that was asked of one direction; delay and loss always.

    ``rate_bit_s`` was reached with frames of ``frame_bytes``.
    """
    return [
        *_delays(settings, expectation, arrivals),
        *_shares(settings, expectation, arrivals),
        *_rates(settings, rate_bit_s, frame_bytes),
    ]


def _delays(settings: LinkSettings, expectation: Expectation, arrivals: Arrivals) -> Iterator[Comparison]:
    delays_us = [delay_us for delay_us in arrivals.delays_us if not is_ahead(settings, delay_us)]
    if not delays_us:
        return
    asked_us = expectation.mean_delay_us
    allowed_us = max(DELAY_SHARE * asked_us, DELAY_US)
    # The mean of a few packets deviates by chance: 2.58 standard errors are the 99 % interval.
    allowed_us += 2.58 * expectation.deviation_us / len(delays_us) ** 0.5
    mean_us = statistics.fmean(delays_us)
    yield Comparison(
        "delay",
        "ms",
        asked_us / 1e3,
        mean_us / 1e3,
        (asked_us - allowed_us) / 1e3,
        (asked_us + allowed_us) / 1e3,
    )
    if settings.jitter_us or settings.slot is not None:
        asked_us = expectation.deviation_us
        allowed_us = max(DEVIATION_SHARE * asked_us, DEVIATION_US)
        achieved_us = statistics.pstdev(delays_us)
        yield Comparison(
            "deviation",
            "ms",
            asked_us / 1e3,
            achieved_us / 1e3,
            (asked_us - allowed_us) / 1e3,
            (asked_us + allowed_us) / 1e3,
        )


def is_ahead(settings: LinkSettings, delay_us: float) -> bool:
    """Whether a packet went without the delay, as those that are to be reordered do."""
    return bool(settings.reorder) and delay_us < settings.delay_us / 2


def _shares(settings: LinkSettings, expectation: Expectation, arrivals: Arrivals) -> Iterator[Comparison]:
    sent, came = arrivals.sent, len(arrivals.delays_us) + arrivals.corrupted
    # With duplication a loss takes one of two copies: it cannot be told apart from outside.
    if not settings.duplicate:
        yield _share("loss", expectation.loss, arrivals.lost, sent, loss_interval(settings, sent))
    for quantity, asked, counted, trials in (
        ("duplicate", expectation.duplicate, arrivals.duplicated, sent),
        ("corrupt", expectation.corrupt, arrivals.corrupted, came),
        (
            "reorder",
            expectation.reorder,
            sum(is_ahead(settings, delay_us) for delay_us in arrivals.delays_us),
            len(arrivals.delays_us),
        ),
    ):
        if asked or counted:
            yield _share(quantity, asked, counted, trials, binomial_interval(trials, asked))


def _share(quantity: str, asked: float, counted: int, trials: int, interval: tuple[int, int]) -> Comparison:
    of_trials = 100.0 / max(trials, 1)
    return Comparison(
        quantity, "%", 100 * asked, counted * of_trials, interval[0] * of_trials, interval[1] * of_trials
    )


def _rates(settings: LinkSettings, rate_bit_s: float | None, frame_bytes: int) -> Iterator[Comparison]:
    if rate_bit_s is None or settings.rate_bit_s is None:
        return
    # What the link adds to each frame is not seen in what arrives.
    asked = settings.rate_bit_s / 1e6 * frame_bytes / settings.length_on_the_link(frame_bytes)
    yield Comparison(
        "rate", "Mbit/s", asked, rate_bit_s / 1e6, asked * (1 - RATE_SHARE), asked * (1 + RATE_SHARE)
    )
