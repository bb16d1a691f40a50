"""The JSON report: everything known about every run, for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from testbed.report.diagnostics import replay_command
from testbed.selftests.results import HostRecord, RunResult, SessionInformation, Totals

FORMAT_VERSION = 1


def json_document(session: SessionInformation, results: Sequence[RunResult]) -> str:
    """The whole report. Keys: ``version``, ``session``, ``totals``, ``runs``."""
    totals = Totals()
    for result in results:
        totals = totals.plus(result.outcome)
    document = {
        "version": FORMAT_VERSION,
        "session": dataclasses.asdict(session),
        "totals": {
            "pass": totals.passed,
            "fail": totals.failed,
            "skip": totals.skipped,
            "error": totals.errors,
        },
        "runs": [_run(session, result) for result in results],
    }
    return json.dumps(document, indent=1) + "\n"


def _run(session: SessionInformation, result: RunResult) -> dict[str, Any]:
    run = result.run
    return {
        "id": run.identifier,
        "case": run.case,
        "family": run.family,
        "stacks": {"client": run.client_stack, "server": run.server_stack},
        "repetition": run.repetition,
        "seed": run.seed,
        "replay": replay_command(result, session.seed),
        "outcome": result.outcome,
        "reason": result.reason,
        "duration_ms": result.duration_ms,
        "setup_ms": result.setup_ms,
        "checks": [dataclasses.asdict(check) for check in result.checks],
        "hosts": {host.host: _host(host) for host in result.hosts},
        "notes": list(result.notes),
        "captures": list(result.captures),
    }


def _host(host: HostRecord) -> dict[str, Any]:
    return {
        "stack": host.stack,
        "counters": {
            "before": _telling(host, host.counters_before),
            "after": _telling(host, host.counters_after),
            "delta": host.moved_counters(),
        },
        "sockets": list(host.sockets),
    }


def _telling(host: HostRecord, counters: dict[str, int]) -> dict[str, int]:
    """MPTCP's counters, and of the hundreds of others those that were ever moved."""
    return {
        name: value
        for name, value in counters.items()
        if name.startswith("MPTcpExt") or value or host.counters_after.get(name)
    }
