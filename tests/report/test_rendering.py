"""``testbed report`` and the choice of what ``testbed replay`` plays."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from testbed.errors import ExitCode, UsageError
from testbed.report.records import RunRecord, Software, record_line
from testbed.report.rendering import Outputs, render
from testbed.selftests.replay import chosen_runs
from testbed.selftests.results import Outcome
from tests.selftests.fakes import make_result, make_run


def record(case: str, outcome: Outcome = Outcome.PASS, seed: int = 5) -> RunRecord:
    return RunRecord(seed, Software("0.1", "3.11", "Linux 6.18"), make_result(outcome, run=make_run(case)))


GOOD = [record("join/no-join"), record("join/single-subflow", Outcome.SKIP)]
BAD = [record("join/no-join", Outcome.FAIL), *GOOD[1:]]


def file_of(path: Path, records: list[RunRecord]) -> Path:
    path.write_text("".join(map(record_line, records)))
    return path


def rendered(outputs: Outputs, *files: Path, is_merged: bool = False) -> tuple[ExitCode, str]:
    stdout = io.StringIO()
    return render(files, outputs, stdout, is_merged=is_merged), stdout.getvalue()


def test_text(tmp_path: Path) -> None:
    code, text = rendered(Outputs(), file_of(tmp_path / "good", GOOD))
    assert code is ExitCode.PASS
    assert text.splitlines()[0] == "pass  join/no-join[4,kernel-kernel] 12 ms"
    assert "skip  join/single-subflow" in text
    assert text.splitlines()[-1].startswith("1 passed, 0 failed, 1 skipped")
    code, text = rendered(Outputs(verbosity=-1), file_of(tmp_path / "bad", BAD))
    assert code is ExitCode.FAIL
    assert "repeat with: testbed selftest 'join/no-join[4,kernel-kernel]' --seed 5" in text


def test_every_form_from_the_same_lines(tmp_path: Path) -> None:
    outputs = Outputs(tap=True, junit=tmp_path / "out.xml", json=tmp_path / "out.json")
    _code, text = rendered(outputs, file_of(tmp_path / "bad", BAD))
    assert text.splitlines()[:2] == ["KTAP version 1", "1..2"]
    assert "not ok 1 - selftest: join/no-join[4,kernel-kernel]" in text
    assert (tmp_path / "out.xml").read_text().count("<testcase") == 2
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["session"]["kernel"] == "Linux 6.18"
    assert document["totals"]["fail"] == 1


def test_two_files_are_compared_and_more_are_merged(tmp_path: Path) -> None:
    good, bad = file_of(tmp_path / "good", GOOD), file_of(tmp_path / "bad", BAD)
    code, text = rendered(Outputs(), good, bad)
    assert (code, text.splitlines()[0]) == (ExitCode.FAIL, "worse (1):")
    code, text = rendered(Outputs(), bad, good)
    assert (code, text.splitlines()[0]) == (ExitCode.PASS, "better (1):")
    _code, text = rendered(Outputs(), good, bad, good, is_merged=True)
    assert text.splitlines()[-1].startswith("2 passed, 1 failed, 3 skipped")
    with pytest.raises(UsageError, match="--merge"):
        rendered(Outputs(), good, bad, good)


def test_replaying_takes_what_failed_or_what_is_named() -> None:
    seed, runs = chosen_runs(BAD, None)
    assert (seed, runs) == (5, (BAD[0].result.run,))
    assert chosen_runs(BAD, ["2"])[1] == (BAD[1].result.run,)
    assert chosen_runs(GOOD, ["join/no-join[4,kernel-kernel]", "1"])[1] == (GOOD[0].result.run,)
    assert chosen_runs(GOOD[:1], None)[1] == (GOOD[0].result.run,)


def test_what_cannot_be_replayed() -> None:
    with pytest.raises(UsageError, match="none of the 2 runs failed"):
        chosen_runs(GOOD, None)
    with pytest.raises(UsageError) as caught:
        chosen_runs(GOOD, ["0", "3", "join/no-joni[4,kernel-kernel]"])
    lines = str(caught.value).splitlines()
    assert lines[:2] == ["--run 0: there are runs 1 to 2", "--run 3: there are runs 1 to 2"]
    assert "not recorded" in lines[2]
    with pytest.raises(UsageError, match="several sessions"):
        chosen_runs([*GOOD[:1], record("join/single-subflow", seed=6)], ["1", "2"])
    with pytest.raises(UsageError, match="there is no case 'join/gone' any more"):
        chosen_runs([record("join/gone", Outcome.FAIL)], None)
