"""Every case runs in virtual time as it does on namespaces, and twice the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from testbed.report.records import RunRecord, this_software
from testbed.selftests import executor
from testbed.selftests.axes import Axes
from testbed.selftests.case import SIMULATED, Case, all_cases
from testbed.selftests.executor import BuiltLab, execute
from testbed.selftests.lab_view import CaseLab
from testbed.selftests.matrix import expand
from testbed.selftests.results import Outcome, Run, RunResult
from testbed.selftests.simulated_labs import open_simulated_lab

LACKING = ("no limits of 64: server: set_limits: limit subflows: expected 0 to 8, got 64",)
"""Of what cases may ask."""
RUNS = expand(all_cases(), Axes(backends=(SIMULATED,)), seed=4)


def record(result: RunResult) -> RunRecord:
    return RunRecord(4, this_software(), result)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.identifier)
def test_every_case(run: Run) -> None:
    result = execute(run, open_simulated_lab, 60.0)
    if result.outcome is Outcome.SKIP and result.reason in LACKING:
        pytest.skip(result.reason)
    assert (result.outcome, result.reason, result.failed_checks()) == (Outcome.PASS, "", ())
    # no trace of real time
    assert (result.started_at, result.setup_ms) == ("", 0)


@pytest.mark.parametrize("name", ["connect/bulk-both-ways", "paths/path-killed-during-transfer"])
def test_the_same_seed_gives_the_same_record(name: str) -> None:
    run = next(run for run in RUNS if run.case == name)
    first, second = (record(execute(run, open_simulated_lab, 60.0)) for _ in range(2))
    assert first == second
    other = record(execute(dataclasses.replace(run, seed=run.seed + 1), open_simulated_lab, 60.0))
    assert other != first


def test_only_pairs_of_the_bundled_stack() -> None:
    assert {run.stacks for run in RUNS} == {"userspace-userspace"}


def test_the_watchdog_gets_through_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(lab: CaseLab) -> None:
        """Virtual time goes on and on."""
        lab.wait_for("the end of days", lambda: False, timeout_s=1e9)

    case = Case("endless", ("made-up",), "one-path", endless, "made up")
    monkeypatch.setattr(executor, "find_case", lambda _name: case)

    @contextmanager
    def opener(_case: Case, run: Run) -> Iterator[BuiltLab]:
        with open_simulated_lab(case, run) as built:
            yield built

    result = execute(RUNS[0], opener, 0.5)
    assert (result.outcome, result.reason) == (Outcome.FAIL, "did not end within 0.5 s")
    assert result.hosts[0].host == "client"


def test_a_failed_run_tells_what_was_carried_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    def impatient(lab: CaseLab) -> None:
        """The path dies, and with it all hope."""
        with lab.start_transfer(4 << 20, 0) as transfer:
            transfer.wait_until_part_arrived(0.2)
            lab.set_link("r1", "eth1", up=False)
            lab.wait_for("a miracle", lambda: False, timeout_s=3.0)

    case = Case("impatient", ("made-up",), "two-paths", impatient, "made up", {"rate": "20mbit"})
    monkeypatch.setattr(executor, "find_case", lambda _name: case)

    @contextmanager
    def opener(_case: Case, run: Run) -> Iterator[BuiltLab]:
        with open_simulated_lab(case, run) as built:
            yield built

    result = execute(RUNS[0], opener, 60.0)
    assert (result.outcome, result.reason) == (Outcome.FAIL, "a miracle: did not happen within 3 s")
    client, server = result.transfers
    assert (client.error, server.error) == ("stopped", "stopped")
    assert server.bytes_received > 800_000
    assert server.traffic is not None
    assert max(server.traffic.subflows[0].received) > 800_000
    assert any("link r1:eth1 down" in event.text for event in result.events)
    # as it was found, before it was ended
    assert any("ESTABLISHED" in line for line in result.hosts[1].sockets)
