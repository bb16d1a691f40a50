"""A session from options to exit code, with scripted workers."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from testbed.errors import ExitCode, UsageError
from testbed.report.files import ReportError
from testbed.report.records import read_records
from testbed.selftests import session as session_module
from testbed.selftests.axes import Axes
from testbed.selftests.results import Outcome
from testbed.selftests.runner import Runner
from testbed.selftests.session import SessionOptions, exit_code, plan, run_session
from tests.selftests.fakes import make_result

OPTIONS = SessionOptions(
    axes=Axes(("no-join",), ("4", "6"), ("kernel-kernel",)), jobs=2, timeout_s=10.0, seed=5
)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ("pass", ExitCode.PASS),
        ("pass skip", ExitCode.PASS),
        ("skip skip", ExitCode.SKIP),
        ("pass skip fail", ExitCode.FAIL),
        ("pass error", ExitCode.FAIL),
        ("skip error", ExitCode.FAIL),
    ],
)
def test_exit_codes(outcomes: str, code: ExitCode) -> None:
    results = [make_result(Outcome(word)) for word in outcomes.split()]
    assert exit_code(results, interrupted=False) is code
    assert exit_code(results, interrupted=True) is ExitCode.INTERRUPTED


def test_the_same_seed_gives_the_same_plan_and_no_seed_a_new_one() -> None:
    assert plan(OPTIONS) == plan(OPTIONS)
    unseeded = replace(OPTIONS, seed=None)
    seeds = {plan(unseeded)[0] for _ in range(4)}
    assert len(seeds) == 4


def test_all_nonsense_is_named_at_once() -> None:
    options = replace(
        OPTIONS, axes=replace(OPTIONS.axes, select=("nojoin",)), jobs=0, timeout_s=-1.0, seed=-5
    )
    with pytest.raises(UsageError) as caught:
        plan(options)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert "did you mean 'no-join'" in lines[0]
    assert ["--jobs 0" in lines[1], "--timeout -1" in lines[2], "--seed -5" in lines[3]] == [True] * 3


@pytest.mark.parametrize("timeout_s", [float("nan"), float("inf"), 0.0])
def test_timeouts_that_are_none(timeout_s: float) -> None:
    with pytest.raises(UsageError, match="--timeout"):
        plan(replace(OPTIONS, timeout_s=timeout_s))


Play = Callable[[SessionOptions], tuple[ExitCode, str, str]]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Play:
    """Plays a session with workers that pass everything; returns code, standard output and error."""
    command = (sys.executable, "-m", "tests.selftests.scripted_worker", str(tmp_path / "diary"))
    monkeypatch.setattr(session_module, "Runner", partial(Runner, worker_command=command))

    def play(options: SessionOptions) -> tuple[ExitCode, str, str]:
        stdout, stderr = io.StringIO(), io.StringIO()
        return run_session(options, stdout, stderr, lambda _lab: None), stdout.getvalue(), stderr.getvalue()

    return play


def test_plain_output_and_both_reports(play: Play, tmp_path: Path) -> None:
    junit, report = tmp_path / "out.xml", tmp_path / "out.json"
    code, stdout, stderr = play(replace(OPTIONS, junit=junit, json=report))
    assert code is ExitCode.PASS
    assert stdout.startswith("2 runs, seed 5\n")
    assert "2 passed, 0 failed" in stdout
    assert stderr == ""
    document = json.loads(report.read_text())
    assert [run["id"] for run in document["runs"]] == [
        "join/no-join[4,kernel-kernel]",
        "join/no-join[6,kernel-kernel]",
    ]
    assert document["session"]["seed"] == 5
    assert junit.read_text().count("<testcase") == 2


def test_tap_owns_standard_output(play: Play) -> None:
    code, stdout, stderr = play(replace(OPTIONS, tap=True))
    assert code is ExitCode.PASS
    assert stdout.splitlines()[0] == "KTAP version 1"
    assert stdout.splitlines()[-1] == "# Totals: pass:2 fail:0 xfail:0 xpass:0 skip:0 error:0"
    assert stderr == ""


def test_an_unwritable_report_stops_the_session_before_its_first_run(play: Play, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="cannot write the report"):
        play(replace(OPTIONS, json=tmp_path / "missing" / "out.json"))
    assert not (tmp_path / "diary").exists()


def test_a_report_that_fails_does_not_take_the_other_with_it(play: Play, tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    with pytest.raises(ReportError, match="/dev/full: No space left on device"):
        play(replace(OPTIONS, junit=Path("/dev/full"), json=report))
    assert len(json.loads(report.read_text())["runs"]) == 2


def test_a_directory_for_captures_is_made(play: Play, tmp_path: Path) -> None:
    play(replace(OPTIONS, capture=tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()
    with pytest.raises(ReportError, match="cannot make the directory"):
        play(replace(OPTIONS, capture=tmp_path / "diary"))


def test_records_go_to_a_file_or_into_a_folder(play: Play, tmp_path: Path) -> None:
    first = tmp_path / "runs.jsonl"
    play(replace(OPTIONS, record=first))
    play(replace(OPTIONS, record=tmp_path))
    records = read_records([first])
    assert [record.result.run.family for record in records] == [4, 6]
    assert {record.session_seed for record in records} == {5}
    assert (tmp_path / "selftest-5.jsonl").read_text().count("\n") == 2
    with pytest.raises(ReportError, match="cannot write the report"):
        play(replace(OPTIONS, record=tmp_path / "missing" / "runs.jsonl"))


def test_a_failed_run_leaves_a_folder_whose_path_is_printed(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = tmp_path / "bundles"
    play(replace(OPTIONS, bundles=bundles))
    assert not bundles.exists()
    monkeypatch.setattr(session_module, "needs_bundle", lambda _result: True)
    record = tmp_path / "runs.jsonl"
    play(replace(OPTIONS, bundles=bundles, record=record))
    assert len(list(bundles.glob("*/record.jsonl"))) == 2
    # a record does not know where its bundle is: it would differ from session to session
    assert "bundle" not in record.read_text()
