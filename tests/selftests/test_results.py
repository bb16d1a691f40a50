"""Results survive the way from the worker to the report."""

from __future__ import annotations

import json

import pytest

from testbed.host.messages import MessageError
from testbed.host.protocol import SubflowSeries, TrafficSeries
from testbed.selftests.jobs import Job, job_from_json, job_to_json
from testbed.selftests.observations import (
    LinkRecord,
    NodeRecord,
    TimelineEvent,
    TopologyRecord,
    TransferRecord,
)
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

TRAFFIC = TrafficSeries((1, 2), (0, 5), (0, 6), (SubflowSeries("a 1", "b 2", (0, 5), (0, 6)),))
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
    started_at="2026-01-01T00:00:00+00:00",
    transfers=(TransferRecord("client", "10.0.0.2 4000", "10.0.0.1 80", 5, 6, 7, True, "", TRAFFIC),),
    events=(TimelineEvent(12, "link down"),),
    topology=TopologyRecord(
        "t", (NodeRecord("client", "host", "kernel", (("eth0", ("10.0.0.2/24",)),)),), (LinkRecord("a", "b"),)
    ),
    logs=("client: hello",),
)


def test_json_and_back() -> None:
    assert result_from_json(json.loads(json.dumps(result_to_json(FULL)))) == FULL


@pytest.mark.parametrize("key", ["run", "outcome"])
def test_an_incomplete_document_is_refused(key: str) -> None:
    document = result_to_json(FULL)
    del document[key]
    with pytest.raises(MessageError, match=f"{key}: missing"):
        result_from_json(document)


def test_an_unknown_key_or_outcome_is_refused() -> None:
    with pytest.raises(MessageError, match="surplus: unknown"):
        result_from_json({**result_to_json(FULL), "surplus": 1})
    with pytest.raises(MessageError, match="splendid"):
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
