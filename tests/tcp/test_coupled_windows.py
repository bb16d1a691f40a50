"""LIA, OLIA and BALIA against the formulas of their papers; fairness is shown in ``tests/congestion``."""

from __future__ import annotations

import pytest

from tests.tcp.congestion_path import SEGMENT, FixedPath, FixedRoundTrip

COUPLED = ("lia", "olia", "balia")


def couple(name: str, *paths: tuple[int, int]) -> list[FixedPath]:
    """Paths of one connection in congestion avoidance, each with its window and its round trip in ms."""
    members = []
    for window, round_trip_ms in paths:
        path = FixedPath(name, FixedRoundTrip(round_trip_ms * 1000, round_trip_ms * 1000))
        path.set_window(window, threshold=2)
        members.append(path)
    for path in members:
        path.siblings = [other for other in members if other is not path]
    return members


def increase_of(path: FixedPath) -> float:
    """In segments, by the acknowledgement of one window of data; the window itself is held."""
    window = int(path.window)
    path.send(window)
    grown = 0
    for _ in range(window):
        path.acknowledge(1)
        grown += path.congestion.congestion_window - window * SEGMENT
        path.set_window(window)
    return grown / SEGMENT


@pytest.mark.parametrize("name", COUPLED)
def test_a_single_path_grows_like_reno(name: str) -> None:
    (path,) = couple(name, (100, 100))
    assert increase_of(path) == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("name", COUPLED)
def test_a_path_that_cannot_send_does_not_count(name: str) -> None:
    path, closing, unknown = couple(name, (100, 100), (100, 100), (100, 100))
    closing.can_send = False
    unknown.round_trip.srtt_us = None
    assert increase_of(path) == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        # Equal paths: alpha is 1/2, so that both together grow as one TCP.
        (((100, 100), (100, 100)), 0.25),
        # RFC 6356 §3 by hand: rate 100/10 + 50/20 per ms, the larger pull is 100/10².
        (((100, 10), (50, 20)), 100 / 10**2 / (100 / 10 + 50 / 20) ** 2 * 100),
    ],
)
def test_lia(paths: tuple[tuple[int, int], ...], expected: float) -> None:
    assert increase_of(couple("lia", *paths)[0]) == pytest.approx(expected, rel=0.02)


def test_lia_is_never_more_aggressive_than_tcp() -> None:
    """RFC 6356 §3: the minimum in the formula. The small window alone would grow by more than one segment."""
    small, _ = couple("lia", (10, 100), (1000, 100))
    assert increase_of(small) <= 1


def test_olia_of_equal_paths() -> None:
    for path in couple("olia", (100, 100), (100, 100)):
        assert increase_of(path) == pytest.approx(0.25, rel=0.02)


def test_olia_moves_to_the_path_with_fewer_losses() -> None:
    """The better path has the smaller window: it gains half of 1/2, which the other one loses."""
    good, bad = couple("olia", (50, 100), (100, 100))
    bad.congestion.on_loss()
    bad.set_window(100, threshold=2)
    good.set_window(50)
    good.send(1000)
    good.acknowledge(1000)
    good.set_window(50)
    assert increase_of(good) == pytest.approx((50 / 150) ** 2 + 0.5, rel=0.05)
    assert increase_of(bad) == pytest.approx((100 / 150) ** 2 - 0.5, rel=0.15)


def test_olia_keeps_a_segment_on_the_worse_path() -> None:
    good, bad = couple("olia", (1, 100), (2, 100))
    good.send(1000)
    good.acknowledge(1000)
    good.set_window(1)
    for _ in range(20):
        bad.send(2)
        bad.acknowledge(2)
        good.set_window(1)
        assert bad.window >= 1


def test_balia_of_unequal_paths() -> None:
    """a = 2 on the smaller path: x/(rtt·(Σx)²) · 3/2 · 6/5."""
    small, large = couple("balia", (50, 100), (100, 100))
    assert increase_of(small) == pytest.approx((50 / 150) ** 2 * 1.5 * 1.2, rel=0.02)
    assert increase_of(large) == pytest.approx((100 / 150) ** 2, rel=0.02)


def test_balia_reduces_a_minor_path_by_more_than_half() -> None:
    small, large = couple("balia", (50, 100), (100, 100))
    small.congestion.on_loss()
    assert small.window == 50 - 25 * 1.5
    large.congestion.on_loss()
    assert large.window == 50


def test_olia_may_give_up_a_path_that_others_replace() -> None:
    path, _ = couple("olia", (2, 100), (100, 100))
    path.congestion.on_loss()
    assert path.window == 1
