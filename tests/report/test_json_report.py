"""The JSON report holds everything: seeds, counters of both sides before and after, outcomes."""

from __future__ import annotations

import dataclasses
import json

from testbed.report.json_report import json_document
from testbed.selftests.results import Check, HostRecord, Outcome, RunResult
from tests.report.test_junit import SESSION
from tests.selftests.fakes import make_result, make_run

BEFORE = {"MPTcpExtAddAddr": 0, "TcpInSegs": 3, "TcpNever": 0}
AFTER = {"MPTcpExtAddAddr": 0, "TcpInSegs": 8, "TcpNever": 0}


def test_a_run_in_full() -> None:
    result = RunResult(
        run=make_run(family=6, stacks="userspace-kernel"),
        outcome=Outcome.FAIL,
        reason="why",
        duration_ms=5,
        setup_ms=6,
        checks=(Check("a", "1", "2", Outcome.FAIL),),
        hosts=(HostRecord("client", "userspace", BEFORE, AFTER, ("ESTAB",)), HostRecord("server", "kernel")),
        notes=("n",),
        captures=("c",),
    )
    (run,) = json.loads(json_document(SESSION, [result]))["runs"]
    assert run == {
        "id": "join/no-join[6,userspace-kernel]",
        "case": "join/no-join",
        "family": 6,
        "stacks": {"client": "userspace", "server": "kernel"},
        "repetition": 1,
        "seed": 7,
        "replay": "testbed selftest 'join/no-join[6,userspace-kernel]' --seed 99",
        "outcome": "fail",
        "reason": "why",
        "duration_ms": 5,
        "setup_ms": 6,
        "checks": [{"subject": "a", "expected": "1", "observed": "2", "outcome": "fail", "reason": ""}],
        "hosts": {
            "client": {
                "stack": "userspace",
                "counters": {
                    "before": {"MPTcpExtAddAddr": 0, "TcpInSegs": 3},
                    "after": {"MPTcpExtAddAddr": 0, "TcpInSegs": 8},
                    "delta": {"TcpInSegs": 5},
                },
                "sockets": ["ESTAB"],
            },
            "server": {
                "stack": "kernel",
                "counters": {"before": {}, "after": {}, "delta": {}},
                "sockets": [],
            },
        },
        "notes": ["n"],
        "captures": ["c"],
    }


def test_session_and_totals() -> None:
    results = [make_result(outcome, run=make_run(f"a/{outcome}")) for outcome in Outcome]
    document = json.loads(json_document(dataclasses.replace(SESSION, interrupted=True), results))
    assert document["version"] == 1
    assert document["session"]["seed"] == 99
    assert document["session"]["interrupted"] is True
    assert document["totals"] == {"pass": 1, "fail": 1, "skip": 1, "error": 1}
    assert [run["outcome"] for run in document["runs"]] == ["pass", "fail", "skip", "error"]
