"""What a person sees: one status line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io

import pytest

from testbed.report.progress import Progress, wants_colour
from testbed.selftests.results import Outcome
from tests.selftests.fakes import make_result, make_run


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    def __init__(
        self, *, is_terminal: bool, has_colour: bool = False, with_results: bool = True, verbosity: int = 0
    ) -> None:
        self.stream = io.StringIO()
        self.clock = Clock()
        self.progress = Progress(
            self.stream,
            planned=3,
            session_seed=99,
            is_terminal=is_terminal,
            has_colour=has_colour,
            with_results=with_results,
            verbosity=verbosity,
            clock=self.clock,
        )

    @property
    def text(self) -> str:
        return self.stream.getvalue()


def test_plain_lines_without_a_terminal() -> None:
    bench = Bench(is_terminal=False)
    bench.progress.start()
    bench.progress.started(make_run())
    bench.progress.tick()
    bench.progress.finished(make_result())
    bench.progress.finished(make_result(Outcome.SKIP, reason="no MPTCP"))
    bench.progress.finished(make_result(Outcome.FAIL, reason="broke"))
    bench.progress.finish(interrupted=False, duration_s=1.25)
    lines = bench.text.splitlines()
    assert lines[:4] == [
        "3 runs, seed 99",
        "pass  join/no-join[4,kernel-kernel] 12 ms",
        "skip  join/no-join[4,kernel-kernel] (no MPTCP)",
        "fail  join/no-join[4,kernel-kernel] 12 ms",
    ]
    assert "      broke" in lines
    assert lines[-1] == "1 passed, 1 failed, 1 skipped, 0 could not be judged, in 1.2 s"
    assert "\x1b" not in bench.text
    assert "\r" not in bench.text


def test_a_terminal_gets_one_line_that_is_redrawn_at_most_ten_times_a_second() -> None:
    bench = Bench(is_terminal=True)
    bench.progress.started(make_run())
    for _ in range(1000):
        bench.clock.now += 0.001
        bench.progress.tick()
    assert 9 <= bench.text.count("\r") <= 11
    assert "\n" not in bench.text
    assert "[0/3] 0 passed; now join/no-join[4,kernel-kernel]" in bench.text


def test_on_a_terminal_passes_are_counted_and_failures_stay() -> None:
    bench = Bench(is_terminal=True)
    bench.progress.finished(make_result())
    assert "no-join" not in bench.text
    bench.clock.now += 1
    bench.progress.finished(make_result(Outcome.FAIL, reason="broke"))
    assert "fail  join/no-join" in bench.text
    assert "[2/3] 1 passed, 1 failed" in bench.text


def test_the_status_line_is_gone_before_anything_else_is_written() -> None:
    bench = Bench(is_terminal=True)
    bench.progress.tick()
    bench.progress.finish(interrupted=True, duration_s=0)
    last = bench.text.rpartition("\r\x1b[K")[2]
    assert last.startswith("interrupted after 0 of 3 runs: 0 passed, ")
    assert last.endswith(", in 0.0 s\n")


def test_beside_tap_results_are_not_written_twice() -> None:
    bench = Bench(is_terminal=True, with_results=False)
    bench.progress.finished(make_result(Outcome.FAIL, reason="broke"))
    assert "broke" not in bench.text


@pytest.mark.parametrize(
    ("is_terminal", "verbosity", "shown", "explained"),
    [
        (False, -1, False, False),
        (False, 0, True, False),
        (False, 1, True, True),
        (True, 0, False, False),
        (True, 1, True, True),
    ],
)
def test_how_much_is_said_of_what_passed(
    is_terminal: bool, verbosity: int, shown: bool, explained: bool
) -> None:
    bench = Bench(is_terminal=is_terminal, verbosity=verbosity)
    bench.progress.finished(make_result(run=make_run("a/fine")))
    bench.progress.finished(make_result(Outcome.FAIL, run=make_run("a/broken")))
    assert ("pass  a/fine" in bench.text) is shown
    assert ("repeat with: testbed selftest 'a/fine" in bench.text) is explained
    assert "fail  a/broken" in bench.text


def test_colour_marks_the_outcome_only() -> None:
    bench = Bench(is_terminal=True, has_colour=True)
    bench.progress.finished(make_result(Outcome.FAIL))
    assert "\x1b[31mfail \x1b[0m join" in bench.text


@pytest.mark.parametrize(
    ("is_terminal", "environment", "expected"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": ""}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
    ],
)
def test_when_there_is_colour(is_terminal: bool, environment: dict[str, str], expected: bool) -> None:
    assert wants_colour(is_terminal, environment) is expected
