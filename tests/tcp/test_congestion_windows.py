"""What all loss based controllers have in common, and NewReno's window."""

from __future__ import annotations

import pytest

from mptcp_stack.congestion.registry import CONTROLLERS
from mptcp_stack.settings import CONGESTION_CONTROLS
from tests.tcp.congestion_path import FixedPath

RTO_US = 300_000
every_controller = pytest.mark.parametrize("name", CONGESTION_CONTROLS)


def test_names_are_those_of_the_settings() -> None:
    assert tuple(CONTROLLERS) == CONGESTION_CONTROLS


@every_controller
def test_slow_start_doubles_in_a_round_trip(name: str) -> None:
    path = FixedPath(name)
    assert path.window == 10
    path.pass_round_trip()
    assert path.window == 20


@every_controller
def test_slow_start_ends_at_the_threshold(name: str) -> None:
    path = FixedPath(name)
    path.set_window(10, threshold=15)
    path.pass_round_trip()
    assert 15 <= path.window < 16.1


@every_controller
def test_an_unused_window_does_not_grow(name: str) -> None:
    path = FixedPath(name)
    path.pass_round_trip(5)
    assert path.window == 10
    path.pass_round_trip(6)
    # Linux's tcp_is_cwnd_limited: in slow start a window may be twice of what is used.
    assert path.window == 12
    path.set_window(20, threshold=10)
    path.pass_round_trip(19)
    assert path.window == 20


@every_controller
def test_restart_after_a_silence(name: str) -> None:
    path = FixedPath(name)
    path.set_window(100)
    path.pass_round_trip()
    path.congestion.on_loss()
    path.set_window(100, threshold=50)
    path.now_us += RTO_US
    path.congestion.on_transmission_start(path.now_us, 2 * RTO_US)
    assert path.window == 100
    path.now_us += RTO_US
    path.congestion.on_transmission_start(path.now_us, RTO_US)
    # RFC 2861 §3.1: halved for every RTO that passed, and slow start may go back to three quarters.
    assert path.window == 25
    assert path.congestion.slow_start_threshold == 75_000
    path.now_us += 100 * RTO_US
    path.congestion.on_transmission_start(path.now_us, RTO_US)
    assert path.window == 10


@every_controller
def test_timeout_starts_over_with_one_segment(name: str) -> None:
    path = FixedPath(name)
    path.set_window(16)
    path.congestion.on_timeout(is_first=True)
    threshold = path.congestion.slow_start_threshold
    assert path.window == 1
    assert 8_000 <= threshold <= 0.7 * 16_000
    # The same data again: RFC 5681 §3.1, equation 4, holds for the first time-out only.
    path.congestion.on_timeout(is_first=False)
    assert path.congestion.slow_start_threshold == threshold


@every_controller
def test_threshold_is_at_least_two_segments(name: str) -> None:
    path = FixedPath(name)
    path.set_window(1)
    path.congestion.on_loss()
    assert path.window == 2
    path.congestion.on_recovery_end()
    assert path.window == 2


@every_controller
def test_a_reduction_without_a_loss_is_undone(name: str) -> None:
    path = FixedPath(name)
    path.set_window(40, threshold=30)
    path.congestion.on_loss()
    assert path.window <= 28
    path.congestion.on_spurious_loss()
    assert (path.window, path.congestion.slow_start_threshold) == (40, 30_000)
    path.congestion.on_timeout(is_first=True)
    path.congestion.on_timeout(is_first=False)
    path.congestion.on_spurious_loss()
    assert (path.window, path.congestion.slow_start_threshold) == (40, 30_000)
    # Nothing is left to undo.
    path.set_window(5)
    path.congestion.on_spurious_loss()
    assert path.window == 5


@every_controller
def test_a_mark_reduces_like_a_loss(name: str) -> None:
    by_mark, by_loss = FixedPath(name), FixedPath(name)
    for path in (by_mark, by_loss):
        path.set_window(40)
    by_mark.congestion.on_congestion_notification()
    by_loss.congestion.on_loss()
    assert by_mark.window == by_loss.window < 40
    by_mark.congestion.on_spurious_loss()
    assert by_mark.window == by_loss.window


def test_reno_adds_a_segment_in_a_round_trip() -> None:
    path = FixedPath("reno")
    path.set_window(20)
    path.congestion.on_loss()
    assert (path.window, path.congestion.slow_start_threshold) == (10, 10_000)
    path.pass_round_trip()
    assert path.window == 11
    path.pass_round_trip()
    assert path.window == 12
