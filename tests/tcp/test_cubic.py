"""CUBIC's window against the formulas of RFC 9438, and HyStart++ against RFC 9406."""

from __future__ import annotations

from math import cbrt

import pytest

from mptcp_stack.congestion.loss_based import UNLIMITED
from tests.tcp.congestion_path import SEGMENT, FixedPath, FixedRoundTrip


def path_after_loss(segments: int, round_trip_us: int) -> FixedPath:
    path = FixedPath("cubic", FixedRoundTrip(round_trip_us, round_trip_us))
    path.set_window(segments)
    path.congestion.on_loss()
    return path


def test_a_loss_leaves_seven_tenths() -> None:
    path = path_after_loss(1000, 100_000)
    assert path.window == 700
    assert path.congestion.slow_start_threshold == 700 * SEGMENT


@pytest.mark.parametrize("segments", [400, 2000])
@pytest.mark.parametrize("round_trip_us", [50_000, 100_000])
def test_window_follows_the_formula(segments: int, round_trip_us: int) -> None:
    """RFC 9438 §4.2: concave up to W_max, flat there, and convex beyond."""
    path = path_after_loss(segments, round_trip_us)
    start_us = path.now_us + round_trip_us
    time_to_plateau_s = cbrt(segments * 0.3 / 0.4)
    while (path.now_us - start_us) / 1e6 < 2 * time_to_plateau_s:
        path.pass_round_trip()
        elapsed_s = (path.now_us - start_us) / 1e6
        expected = 0.4 * (elapsed_s + round_trip_us / 1e6 - time_to_plateau_s) ** 3 + segments
        if elapsed_s > 0.5:
            assert path.window == pytest.approx(expected, rel=0.03)
    assert path.window > 1.2 * segments


def test_a_short_path_gets_what_reno_would_get() -> None:
    """RFC 9438 §4.3: between losses W_est grows by alpha = 0.53 segments a round trip."""
    path = path_after_loss(60, 10_000)
    for _ in range(20):
        path.pass_round_trip()
    assert path.window == pytest.approx(42 + 20 * 0.529, abs=0.6)
    for _ in range(40):
        path.pass_round_trip()
    # From the window of the loss on as Reno itself, by a segment a round trip.
    assert path.window == pytest.approx(60 + (60 - 18 / 0.529), abs=1.5)


def test_fast_convergence_makes_room_for_others() -> None:
    """RFC 9438 §4.7: a loss below the last maximum; the plateau is lower than the window was."""
    path = path_after_loss(1000, 100_000)
    path.set_window(800)
    path.congestion.on_loss()
    assert path.window == 560
    while path.now_us < 1_000_000 + int(1e6 * cbrt((680 - 560) / 0.4)):
        path.pass_round_trip()
    assert path.window == pytest.approx(680, rel=0.01)


def test_a_spurious_loss_leaves_no_trace() -> None:
    """RFC 9438 §4.9."""
    disturbed, calm = path_after_loss(1000, 100_000), path_after_loss(1000, 100_000)
    for path in (disturbed, calm):
        for _ in range(20):
            path.pass_round_trip()
    disturbed.congestion.on_loss()
    disturbed.congestion.on_spurious_loss()
    for path in (disturbed, calm):
        for _ in range(20):
            path.pass_round_trip()
    assert disturbed.window == calm.window


def test_silence_does_not_count_as_probing() -> None:
    """RFC 9438 §5.8: without this the window would jump by half after each pause."""
    path = path_after_loss(1000, 100_000)
    for _ in range(10):
        path.pass_round_trip()
    before = path.window
    path.now_us += 60_000_000
    path.congestion.on_transmission_start(path.now_us, 100_000_000)
    path.pass_round_trip()
    assert before <= path.window < 1.1 * before


# --- HyStart++ ---


def grow_with_queue(path: FixedPath, bottleneck_segments: int, rounds: int) -> None:
    """What exceeds the path's capacity waits in a queue and lengthens the round trip."""
    base_us = path.round_trip.srtt_us or 0
    for _ in range(rounds):
        excess = max(0.0, path.window - bottleneck_segments)
        path.round_trip.latest_us = int(base_us * (1 + excess / bottleneck_segments))
        path.pass_round_trip()


def test_rising_round_trips_end_slow_start_before_a_loss() -> None:
    path = FixedPath("cubic")
    grow_with_queue(path, 100, 5)
    assert path.congestion.slow_start_threshold == UNLIMITED
    assert 150 < path.window < 250
    grow_with_queue(path, 100, 8)
    assert path.congestion.slow_start_threshold < 600 * SEGMENT
    assert path.counted["TcpExtTCPHystartDelayDetect"] == 1


def test_without_hystart_the_window_would_be_far_larger() -> None:
    path = FixedPath("reno")
    grow_with_queue(path, 100, 10)
    assert path.window == 10 * 2**10


def test_jitter_only_slows_for_a_round() -> None:
    """RFC 9406 §4.3: from conservative slow start back to slow start when round trips are short again."""
    path = FixedPath("cubic")
    path.pass_round_trip()
    path.pass_round_trip()
    path.round_trip.latest_us = 150_000
    path.pass_round_trip()
    path.round_trip.latest_us = 100_000
    slowed = path.window
    assert 40 < slowed < 80
    path.pass_round_trip()
    path.pass_round_trip()
    assert path.window > 3 * slowed
    assert path.congestion.slow_start_threshold == UNLIMITED
    assert not path.counted
