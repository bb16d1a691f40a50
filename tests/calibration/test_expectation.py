"""What an impairment means in numbers, and what chance allows."""

from __future__ import annotations

import math
import random

import pytest

from mptcp_stack.device.link_model import GilbertElliott, LinkSettings, Slot
from testbed.calibration.expectation import binomial_interval, expect, loss_interval
from testbed.calibration.probe import PROBE_BYTES


@pytest.mark.parametrize(("trials", "probability"), [(10, 0.5), (900, 0.01), (900, 0.001), (500, 0.9)])
def test_the_interval_has_its_confidence_and_no_smaller_one_has(trials: int, probability: float) -> None:
    lowest, highest = binomial_interval(trials, probability)

    def share(first: int, last: int) -> float:
        return sum(
            math.comb(trials, successes) * probability**successes * (1 - probability) ** (trials - successes)
            for successes in range(first, last + 1)
        )

    assert share(lowest, highest) >= 0.99
    assert share(0, lowest - 1) <= 0.005 or lowest == 0
    assert share(highest + 1, trials) <= 0.005
    assert share(0, lowest) > 0.005
    assert share(highest, trials) > 0.005


def test_certainty_leaves_nothing_to_chance() -> None:
    assert binomial_interval(100, 0.0) == (0, 0)
    assert binomial_interval(100, 1.0) == (100, 100)


def test_bursts_allow_more_than_single_losses_do() -> None:
    burst = LinkSettings(loss_model=GilbertElliott(0.01, 0.1))
    single = LinkSettings(loss=0.01 / 0.11)
    lowest, highest = loss_interval(burst, 1000)
    alone = loss_interval(single, 1000)
    assert lowest < alone[0] < alone[1] < highest


def test_plain_words_mean_what_they_say() -> None:
    expectation = expect(LinkSettings(delay_us=20_000, loss=0.02, reorder=0.1, duplicate=0.03), 500)
    assert expectation.mean_delay_us == 20_000
    assert expectation.deviation_us == 0
    assert (expectation.loss, expectation.duplicate, expectation.reorder) == (0.02, 0.03, 0.1)


def test_words_act_together() -> None:
    rate_bit_s = 1_000_000
    expectation = expect(LinkSettings(delay_us=20_000, jitter_us=3_000, rate_bit_s=rate_bit_s), 5_000)
    assert expectation.mean_delay_us == pytest.approx(20_000 + PROBE_BYTES * 8, abs=100)
    assert expectation.deviation_us == pytest.approx(3_000 / math.sqrt(3), rel=0.05)
    assert 22_000 < expectation.longest_delay_us < 24_100
    slots = expect(LinkSettings(slot=Slot(4_000, 4_000)), 500)
    assert slots.mean_delay_us == pytest.approx(2_200, rel=0.1)


def test_bursts_are_expected_at_their_stationary_share() -> None:
    expectation = expect(LinkSettings(loss_model=GilbertElliott(0.05, 0.2)), 500)
    assert expectation.loss == pytest.approx(0.2, rel=0.2)


def test_intervals_are_the_same_each_time() -> None:
    settings = LinkSettings(loss_model=GilbertElliott(0.01, 0.1))
    assert loss_interval(settings, 500) == loss_interval(settings, 500)
    random.seed(1)
    assert loss_interval(settings, 500) == loss_interval(settings, 500)
