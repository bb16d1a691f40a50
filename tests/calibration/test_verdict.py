"""Asked against achieved: what is met and what is missed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mptcp_stack.device.link_model import LinkSettings
from testbed.calibration.expectation import expect
from testbed.calibration.probe import Arrivals
from testbed.calibration.verdict import Comparison, compare

FRAME_BYTES = 1514


def judged(
    settings: LinkSettings,
    delays_us: Sequence[float],
    rate_bit_s: float | None = None,
    sent: int | None = None,
) -> dict[str, Comparison]:
    arrivals = Arrivals(sent or len(delays_us), list(delays_us), list(range(len(delays_us))))
    comparisons = compare(settings, expect(settings, 500), arrivals, rate_bit_s, FRAME_BYTES)
    return {each.quantity: each for each in comparisons}


@pytest.mark.parametrize(
    ("asked_us", "achieved_us", "is_met"),
    [
        (10_000, 10_290, True),
        (10_000, 10_310, False),
        (10_000, 9_690, False),
        (100_000, 100_990, True),
        (100_000, 101_010, False),
    ],
)
def test_a_delay_is_met_within_a_hundredth_or_three_tenths_of_a_millisecond(
    asked_us: int, achieved_us: float, is_met: bool
) -> None:
    assert judged(LinkSettings(delay_us=asked_us), [achieved_us] * 100)["delay"].is_met is is_met


@pytest.mark.parametrize(
    ("achieved", "is_met"), [(0.989, False), (0.991, True), (1.009, True), (1.011, False)]
)
def test_a_rate_is_met_within_a_hundredth(achieved: float, is_met: bool) -> None:
    rate = judged(LinkSettings(rate_bit_s=10**7), [104.0] * 10, achieved * 10**7)["rate"]
    assert rate.is_met is is_met


def test_what_the_link_adds_to_each_frame_is_taken_off_its_rate() -> None:
    settings = LinkSettings(rate_bit_s=10**7, packet_overhead_bytes=FRAME_BYTES)
    assert judged(settings, [104.0] * 10, 5 * 10**6)["rate"].is_met


def test_losses_beyond_chance_are_missed() -> None:
    settings = LinkSettings(loss=0.01)
    assert judged(settings, [50.0] * 1980, sent=2000)["loss"].is_met
    assert not judged(settings, [50.0] * 1950, sent=2000)["loss"].is_met
    assert not judged(settings, [50.0] * 2000, sent=2000)["loss"].is_met
    assert not judged(LinkSettings(), [50.0] * 1999, sent=2000)["loss"].is_met


def test_packets_sent_ahead_are_no_short_delays() -> None:
    settings = LinkSettings(delay_us=10_000, reorder=0.25)
    found = judged(settings, [50.0] * 250 + [10_050.0] * 750)
    assert found["delay"].is_met
    assert found["reorder"].achieved == 25.0
    assert found["reorder"].is_met
    assert not judged(settings, [50.0] * 400 + [10_050.0] * 600)["reorder"].is_met


def test_spread_is_judged_where_there_is_one() -> None:
    settings = LinkSettings(delay_us=10_000, jitter_us=5_000)
    steady = judged(settings, [10_000.0] * 1000)
    assert steady["delay"].is_met
    assert not steady["deviation"].is_met
    spread = judged(settings, [5_000.0 + 10 * number for number in range(1000)])
    assert spread["deviation"].is_met


def test_duplicates_and_damage_that_nobody_asked_for_are_missed() -> None:
    arrivals = Arrivals(100, [50.0] * 101, [*range(100), 5], corrupted=1)
    found = {
        each.quantity: each
        for each in compare(LinkSettings(), expect(LinkSettings(), 500), arrivals, None, FRAME_BYTES)
    }
    assert not found["duplicate"].is_met
    assert not found["corrupt"].is_met


def test_counts_of_arrivals() -> None:
    arrivals = Arrivals(10, [1.0] * 8, [0, 1, 2, 3, 3, 4, 5, 6], corrupted=1)
    assert (arrivals.duplicated, arrivals.lost) == (1, 2)
