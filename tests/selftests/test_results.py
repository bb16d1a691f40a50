"""Results survive the way from the worker to the report."""

from __future__ import annotations

import json

import pytest

from testbed.selftests.jobs import Job, job_from_json, job_to_json
from testbed.selftests.results import (
    Check,
    HostRecord,
    Outcome,
    RunResult,
    Totals,
    result_from_json,
    result_to_json,
)
from tests.selftests.fakes import make_run

FULL = RunResult(
    run=make_run(repetition=2),
    outcome=Outcome.FAIL,
    reason="it\nfailed",
    duration_ms=3,
    setup_ms=4,
    checks=(Check("a", "1", "2", Outcome.FAIL), Check("b", "", "", Outcome.SKIP, "absent")),
    hosts=(HostRecord("client", "kernel", {"x": 1}, {"x": 3, "y": 0, "z": 2}, ("ESTAB",)),),
    notes=("note",),
    captures=("file",),
)


def test_json_and_back() -> None:
    assert result_from_json(json.loads(json.dumps(result_to_json(FULL)))) == FULL


@pytest.mark.parametrize("key", ["run", "outcome", "checks", "hosts"])
def test_an_incomplete_document_is_refused(key: str) -> None:
    document = result_to_json(FULL)
    del document[key]
    with pytest.raises(KeyError):
        result_from_json(document)


def test_an_unknown_key_or_outcome_is_refused() -> None:
    with pytest.raises(TypeError):
        result_from_json({**result_to_json(FULL), "surplus": 1})
    with pytest.raises(ValueError, match="splendid"):
        result_from_json({**result_to_json(FULL), "outcome": "splendid"})


def test_a_job_survives_as_well() -> None:
    job = Job(make_run(), "lab-1", 60.0, "/tmp/captures")
    assert job_from_json(json.loads(json.dumps(job_to_json(job)))) == job


def test_deltas() -> None:
    (host,) = FULL.hosts
    assert host.counter_delta() == {"x": 2, "y": 0, "z": 2}
    assert host.moved_counters() == {"x": 2, "z": 2}


def test_checks_by_outcome() -> None:
    assert [check.subject for check in FULL.failed_checks()] == ["a"]
    assert [check.subject for check in FULL.skipped_checks()] == ["b"]


def test_totals() -> None:
    totals = Totals()
    for outcome in (Outcome.PASS, Outcome.PASS, Outcome.FAIL, Outcome.SKIP, Outcome.ERROR):
        totals = totals.plus(outcome)
    assert totals == Totals(passed=2, failed=1, skipped=1, errors=1)
    assert totals.all == 5
