"""NewReno's window, in segments of 1000 bytes."""

from __future__ import annotations

from mptcp_stack.congestion.reno import Reno

SEGMENT = 1000


def filled(reno: Reno) -> int:
    return reno.congestion_window


def test_slow_start_doubles_in_a_round_trip() -> None:
    reno = Reno(SEGMENT)
    assert reno.congestion_window == 10 * SEGMENT
    for _ in range(10):
        reno.on_acknowledged(SEGMENT, filled(reno))
    assert reno.congestion_window == 20 * SEGMENT


def test_an_unused_window_does_not_grow() -> None:
    reno = Reno(SEGMENT)
    reno.on_acknowledged(SEGMENT, SEGMENT)
    assert reno.congestion_window == 10 * SEGMENT


def test_congestion_avoidance_adds_a_segment_in_a_round_trip() -> None:
    reno = Reno(SEGMENT)
    reno.on_loss(20 * SEGMENT)
    assert reno.congestion_window == reno.slow_start_threshold == 10 * SEGMENT
    for _ in range(10):
        reno.on_acknowledged(SEGMENT, filled(reno))
    assert reno.congestion_window == 11 * SEGMENT


def test_timeout_starts_over_with_one_segment() -> None:
    reno = Reno(SEGMENT)
    reno.on_timeout(16 * SEGMENT, is_first=True)
    assert (reno.congestion_window, reno.slow_start_threshold) == (SEGMENT, 8 * SEGMENT)
    # The same data again: RFC 5681 §3.1, equation 4, holds for the first time-out only.
    reno.on_timeout(SEGMENT, is_first=False)
    assert reno.slow_start_threshold == 8 * SEGMENT


def test_threshold_is_at_least_two_segments() -> None:
    reno = Reno(SEGMENT)
    reno.on_loss(SEGMENT)
    assert reno.congestion_window == 2 * SEGMENT
    reno.on_recovery_end()
    assert reno.congestion_window == 2 * SEGMENT
