"""Records: written in the order of the plan, read back as they were, refused with file and line."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest

from testbed.report.records import (
    RecordError,
    RecordWriter,
    RunRecord,
    Software,
    read_records,
    record_line,
    session_of,
)
from testbed.selftests.results import HostRecord
from tests.selftests.fakes import make_result, make_run
from tests.selftests.test_results import FULL

RUNS = tuple(make_run(f"join/case-{number}") for number in range(1, 5))
RECORD = RunRecord(5, Software("0.1", "3.11", "Linux 6.18"), FULL)


def file_of(folder: Path, *lines: str) -> Path:
    path = folder / "runs.jsonl"
    path.write_text("".join(lines))
    return path


def test_there_and_back(tmp_path: Path) -> None:
    path = file_of(tmp_path, record_line(RECORD), "\n", record_line(RECORD))
    assert read_records([path, path]) == [RECORD] * 4


def test_a_line_names_its_schema_and_its_run() -> None:
    document = json.loads(record_line(RECORD))
    assert document["schema"] == "mptcp-testbed-run"
    assert document["version"] == 1
    assert document["id"] == FULL.run.identifier


def test_the_order_is_the_plans() -> None:
    stream = io.StringIO()
    writer = RecordWriter(stream, RUNS, 5)
    identifiers = []
    for number in (1, 0, 3):
        writer.add(make_result(run=RUNS[number]))
        identifiers.append(stream.getvalue().count("\n"))
    # the second waits for the first, the fourth for a third that never comes
    assert identifiers == [0, 2, 2]
    writer.finish()
    ids = [json.loads(line)["id"] for line in stream.getvalue().splitlines()]
    assert ids == [RUNS[number].identifier for number in (0, 1, 3)]


@pytest.mark.parametrize(("all_counters", "names"), [(False, {"b"}), (True, {"a", "b"})])
def test_counters_that_did_not_move_are_left_out_unless_wanted(
    tmp_path: Path, all_counters: bool, names: set[str]
) -> None:
    host = HostRecord("client", "kernel", {"a": 1}, {"a": 1, "b": 2})
    stream = io.StringIO()
    RecordWriter(stream, RUNS, 5, all_counters=all_counters).add(
        dataclasses.replace(make_result(run=RUNS[0]), hosts=(host,))
    )
    (record,) = read_records([file_of(tmp_path, stream.getvalue())])
    assert set(record.result.hosts[0].counters_after) == names
    assert record.result.hosts[0].moved_counters() == {"b": 2}


def test_every_problem_is_named_with_its_line(tmp_path: Path) -> None:
    good = record_line(RECORD)
    document = json.loads(good)
    document["result"]["run"]["family"] = "4"
    document["result"]["surprise"] = 1
    path = file_of(
        tmp_path,
        good,
        "{\n",
        "[1]\n",
        good.replace('"version":1', '"version":7'),
        good.replace("mptcp-testbed-run", "something"),
        json.dumps(document) + "\n",
        good[: len(good) // 2],
    )
    with pytest.raises(RecordError) as caught:
        read_records([path, tmp_path / "missing"])
    lines = str(caught.value).splitlines()
    numbers = [line.removeprefix(f"{path}:").partition(":")[0] for line in lines[:-1]]
    assert numbers == ["2", "3", "4", "5", "6", "7"]
    assert "version 7 of the schema" in lines[2]
    assert "no run record" in lines[3]
    assert "surprise: unknown" in lines[4]
    assert "family: must be int" in lines[4]
    assert lines[-1] == f"{tmp_path / 'missing'}: No such file or directory"


def test_an_empty_file_and_endless_problems(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="holds no records"):
        read_records([file_of(tmp_path, "\n")])
    with pytest.raises(RecordError, match="and 80 more problems"):
        read_records([file_of(tmp_path, "nonsense\n" * 100)])


def test_a_session_from_its_records() -> None:
    session = session_of([RECORD, RECORD])
    assert (session.seed, session.kernel, session.planned_runs) == (5, "Linux 6.18", 2)
    assert session.started_at == FULL.started_at
    assert session.duration_ms == 2 * FULL.duration_ms
