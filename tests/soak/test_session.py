"""Sessions: exit codes, progress, what a failure says, and replays."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from testbed import cli
from testbed.errors import ExitCode, UsageError
from testbed.soak import session
from testbed.soak.run import SeedResult
from testbed.soak.session import Progress, SoakOptions, failure_text, replay, run_session


def fake_results(monkeypatch: pytest.MonkeyPatch, failing: frozenset[int] = frozenset()) -> None:
    def run_seed(seed: int) -> SeedResult:
        return SeedResult(seed, ("it broke\nhere",) if seed in failing else (), 2, 1000, 5_000_000)

    monkeypatch.setattr(session, "run_seed", run_seed)


@pytest.mark.parametrize("jobs", [1, 2])
def test_seeds_run_in_processes(jobs: int) -> None:
    output = io.StringIO()
    code = run_session(SoakOptions(30, first_seed=0, jobs=jobs), output, is_terminal=False)
    assert code == ExitCode.PASS
    lines = output.getvalue().splitlines()
    assert lines[0] == "seeds 0 to 29"
    assert lines[1] == "3 of 30 runs, 0 failed"
    assert lines[-1].startswith("30 runs, 0 failed: ")


def test_a_failing_seed_is_printed_with_its_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_results(monkeypatch, frozenset({12, 17}))
    output = io.StringIO()
    assert run_session(SoakOptions(10, first_seed=10), output, is_terminal=False) == ExitCode.FAIL
    text = output.getvalue()
    for seed in (12, 17):
        assert f"seed {seed} failed:\n  it broke\n  here\n" in text
        assert f"testbed soak --replay {seed} --trace" in text
    assert "10 runs, 2 failed: 20 connections, 0.0 MB" in text


def test_without_a_seed_each_session_has_others(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_results(monkeypatch)
    first, second = io.StringIO(), io.StringIO()
    run_session(SoakOptions(1), first, is_terminal=False)
    run_session(SoakOptions(1), second, is_terminal=False)
    assert first.getvalue().splitlines()[0] != second.getvalue().splitlines()[0]


def test_bar_on_a_terminal() -> None:
    output = io.StringIO()
    now = 0.0
    progress = Progress(output, 4, is_terminal=True, clock=lambda: now)
    for seed in range(4):
        now += 0.5
        progress.add(SeedResult(seed, ("broken",) if seed == 1 else ()))
    progress.finish()
    text = output.getvalue()
    assert "2/4, 1 failed" in text
    assert re.search(r"█{30} 4/4, 1 failed", text)
    # The bar goes before anything else is written.
    assert "\r\x1b[K" + failure_text(SeedResult(1, ("broken",))) in text
    assert text.endswith("(2 runs/s)\n")


def test_a_seed_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def never_end(seed: int) -> SeedResult:
        while True:
            pass

    monkeypatch.setattr(session, "run_seed", never_end)
    monkeypatch.setattr(session, "PROCESSOR_TIME_LIMIT_S", 0.05)
    with pytest.raises(session.TooLongError):
        session.run_seeds([1])


def test_replay_prints_scenario_and_packets_in_the_scripts_language(tmp_path: Path) -> None:
    output, pcap = io.StringIO(), tmp_path / "seed.pcapng"
    assert replay(8, output, trace=True, pcap=pcap) == ExitCode.PASS
    text = output.getvalue()
    assert text.startswith("seed 8: ")
    assert re.search(
        r"^0\.\d{6} > S 0:0\(0\) win \d+ <mss .*> // path 0, conversation 0: ", text, re.MULTILINE
    )
    assert re.search(r"^\d+\.\d{6} < F?\.? ?.*ack \d+ .*arrives at", text, re.MULTILINE)
    assert text.splitlines()[-1].startswith("pass: ")
    assert pcap.stat().st_size > 1000


def test_replay_of_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "run_seed", lambda seed, prepare: SeedResult(seed, ("it broke",)))
    output = io.StringIO()
    assert replay(8, output, trace=False, pcap=None) == ExitCode.FAIL
    assert output.getvalue().endswith("FAIL it broke\n")


def test_a_capture_that_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        replay(8, io.StringIO(), trace=False, pcap=tmp_path / "missing" / "file")


@pytest.mark.parametrize("words", [["--trace"], ["--pcap", "x"], ["--runs", "0"], ["--jobs", "0"]])
def test_wrong_use(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["soak", *words]) == ExitCode.USAGE
    assert "testbed: --" in capsys.readouterr().err


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["soak", "--runs", "3", "--seed", "5", "--jobs", "1"]) == ExitCode.PASS
    assert "seeds 5 to 7" in capsys.readouterr().out
    assert cli.run(["soak", "--replay", "8"]) == ExitCode.PASS
    assert capsys.readouterr().out.startswith("seed 8: ")
