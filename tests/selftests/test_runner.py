"""The runner with scripted workers: results, deaths, silence and interrupts."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testbed.selftests import runner as runner_module
from testbed.selftests.results import Outcome, Run, RunResult
from testbed.selftests.runner import RUNS_ASIDE, Observer, Place, Runner
from tests.selftests.fakes import make_run


def _place(run: Run) -> Place:
    name = run.case.rpartition("/")[2]
    return Place.ALONE if name == "alone" else Place.ASIDE if name.startswith("aside") else Place.ORDINARY


@dataclass
class Bench:
    """A runner, and everything that it told anyone."""

    directory: Path
    jobs: int = 2
    timeout_s: float = 20.0
    maximum_failures: int | None = None
    interrupt_after: int | None = None
    """Send SIGINT to this process when this many runs have been started."""
    alongside: dict[str, int] = field(default_factory=dict)
    """Last part of a case's name → with how many others it ever began."""
    started: list[str] = field(default_factory=list)
    finished: list[RunResult] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def play(self, *cases: str) -> list[RunResult]:
        self.runner = Runner(
            jobs=self.jobs,
            timeout_s=self.timeout_s,
            observer=Observer(self._start, self.finished.append, self._tick),
            remove_lab=self.removed.append,
            place=_place,
            maximum_failures=self.maximum_failures,
            worker_command=(sys.executable, "-m", "tests.selftests.scripted_worker", str(self.diary_path)),
        )
        return self.runner.play([make_run(f"made-up/{number}/{name}") for number, name in enumerate(cases)])

    @property
    def diary_path(self) -> Path:
        return self.directory / "diary"

    def diary(self) -> list[str]:
        return self.diary_path.read_text().splitlines()

    def _start(self, run: Run) -> None:
        name = run.case.rpartition("/")[2]
        running = len(self.started) - len(self.finished)
        self.alongside[name] = max(self.alongside.get(name, 0), running)
        self.started.append(run.identifier)

    def _tick(self) -> None:
        # only when a worker has begun: a process that is still starting cannot be asked to end in order
        begun = len(self.diary()) if self.diary_path.exists() else 0
        if self.interrupt_after is not None and begun >= self.interrupt_after:
            self.interrupt_after = None
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_who_runs_alone_comes_last_and_with_nobody_beside(bench: Bench) -> None:
    bench.jobs = 3
    results = bench.play("alone", "passes", "passes", "alone", "passes")
    assert len(results) == 5
    begun = [name.rpartition("/")[2].partition("[")[0] for name in bench.started]
    assert begun == ["passes", "passes", "passes", "alone", "alone"]
    # no one is started while another one that must be alone has no result
    assert bench.alongside == {"passes": 2, "alone": 0}


def test_who_mostly_waits_takes_nobodys_place(bench: Bench) -> None:
    """All four have to be under way at once before any of them goes on."""
    assert RUNS_ASIDE == 2
    results = bench.play("meets", "meets", "aside-meets", "aside-meets", "passes", "aside", "alone")
    assert [result.outcome for result in results] == [Outcome.PASS] * 7
    assert max(bench.alongside.values()) == 3
    assert bench.alongside["alone"] == 0


def test_a_single_job_is_one_run_at_a_time(bench: Bench) -> None:
    bench.jobs = 1
    bench.play("aside", "passes", "aside", "alone")
    assert set(bench.alongside.values()) == {0}
    begun = [name.rpartition("/")[2].partition("[")[0] for name in bench.started]
    assert begun == ["aside", "passes", "aside", "alone"]


def test_enough_failures_end_the_session(bench: Bench) -> None:
    bench.jobs = 1
    bench.maximum_failures = 2
    results = bench.play("passes", "dies", "passes", "dies", "passes", "passes")
    assert len(results) == 4
    assert bench.runner.interrupts == 0


def outcomes(results: list[RunResult]) -> dict[str, Outcome]:
    return {result.run.case.rpartition("/")[2]: result.outcome for result in results}


def test_every_run_has_its_result_and_its_own_lab(bench: Bench) -> None:
    results = bench.play(*["passes"] * 6)
    assert [result.outcome for result in results] == [Outcome.PASS] * 6
    assert len({result.run.identifier for result in results}) == 6
    assert len({result.reason for result in results}) == 6
    assert len(bench.started) == len(bench.finished) == 6
    assert bench.removed == []


def test_workers_are_used_again(bench: Bench) -> None:
    bench.play(*["passes"] * 6)
    assert len({line.split()[0] for line in bench.diary()}) <= 2


def test_no_more_workers_than_jobs_and_no_worker_without_a_run(bench: Bench) -> None:
    bench.jobs = 1
    bench.play("passes", "passes")
    assert len({line.split()[0] for line in bench.diary()}) == 1


def test_a_worker_that_dies_is_an_error_with_its_last_words_and_the_rest_goes_on(bench: Bench) -> None:
    results = bench.play("passes", "dies", "passes", "passes")
    assert sorted(result.outcome for result in results) == ["error", "pass", "pass", "pass"]
    (dead,) = [result for result in results if result.outcome is Outcome.ERROR]
    assert dead.run.case.endswith("dies")
    assert "its worker process died (exit status -9)" in dead.reason
    assert "last words" in dead.reason
    assert len(bench.removed) == 1


def test_a_worker_that_stays_silent_is_killed_and_its_lab_undone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "LAST_RESORT_S", 0.5)
    bench.timeout_s = 0.5
    (result,) = bench.play("hangs")
    assert result.outcome is Outcome.ERROR
    assert "did not answer and was killed" in result.reason
    assert len(bench.removed) == 1


def test_an_answer_that_is_none(bench: Bench) -> None:
    results = bench.play("babbles", "passes")
    assert outcomes(results) == {"babbles": Outcome.ERROR, "passes": Outcome.PASS}


def test_an_interrupt_lets_workers_undo_their_labs_and_keeps_what_is_done(bench: Bench) -> None:
    bench.jobs = 1
    bench.interrupt_after = 2
    results = bench.play("passes", "waits", "passes")
    assert outcomes(results) == {"passes": Outcome.PASS}
    assert bench.runner.interrupts == 1
    assert bench.diary()[-1] == "asked to end"
    assert len(bench.started) == 2
    # the worker ended in order; looking whether its lab is gone costs nothing
    assert len(bench.removed) == 1


def test_a_worker_that_ignores_an_interrupt_is_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "TEARDOWN_LIMIT_S", 0.3)
    bench.interrupt_after = 1
    assert bench.play("hangs") == []
    assert len(bench.removed) == 1
    pid = int(bench.diary()[0].split()[0])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_signals_mean_afterwards_what_they_meant_before(bench: Bench) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    bench.play("passes")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
