"""JUnit XML: parsed again, it says what the results say."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from testbed.report.junit import junit_document
from testbed.selftests.results import HostRecord, Outcome, RunResult, SessionInformation
from tests.selftests.fakes import make_result, make_run

SESSION = SessionInformation(
    seed=99,
    kernel="Linux 6.18",
    python="3.11",
    testbed_version="0.1.0",
    command_line=("selftest",),
    started_at="2026-01-01T00:00:00+00:00",
    planned_runs=5,
)


def document(*results: RunResult) -> ElementTree.Element:
    return ElementTree.fromstring(junit_document(SESSION, results))


def test_one_suite_per_pair_of_stacks_and_family() -> None:
    root = document(
        make_result(run=make_run(family=4)),
        make_result(run=make_run(family=6)),
        make_result(run=make_run("join/other", family=4)),
        make_result(run=make_run(stacks="userspace-kernel")),
    )
    suites = {suite.get("name"): suite.get("tests") for suite in root.iter("testsuite")}
    assert suites == {"kernel-kernel, IPv4": "2", "kernel-kernel, IPv6": "1", "userspace-kernel, IPv4": "1"}
    assert root.get("tests") == "4"


def test_properties_say_how_it_was_run() -> None:
    root = document(make_result(run=make_run(family=6, stacks="userspace-kernel")))
    properties = {found.get("name"): found.get("value") for found in root.iter("property")}
    assert properties == {
        "seed": "99",
        "kernel": "Linux 6.18",
        "testbed": "0.1.0",
        "python": "3.11",
        "family": "6",
        "stacks": "userspace-kernel",
        "interrupted": "false",
    }


def test_every_outcome_has_its_element_and_count() -> None:
    root = document(
        make_result(Outcome.PASS, run=make_run("a/pass")),
        make_result(Outcome.FAIL, run=make_run("a/fail"), reason="it broke\nbadly"),
        make_result(Outcome.SKIP, run=make_run("a/skip"), reason="no MPTCP"),
        make_result(Outcome.ERROR, run=make_run("a/error"), reason="no lab"),
    )
    (suite,) = root.iter("testsuite")
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["4", "1", "1", "1"]
    cases = {case.get("name"): case for case in root.iter("testcase")}
    children = {name: [child.tag for child in case] for name, case in cases.items()}
    assert children == {
        "pass": ["system-out"],
        "fail": ["failure", "system-out"],
        "skip": ["skipped", "system-out"],
        "error": ["error", "system-out"],
    }
    failure = cases["fail"].find("failure")
    assert failure is not None
    assert failure.get("message") == "it broke"
    assert "badly" in (failure.text or "")
    assert "--seed 99" in (failure.text or "")
    assert cases["pass"].get("time") == "0.012"
    assert cases["pass"].get("classname") == "selftest.a.kernel-kernel.ipv4"


def test_counters_of_both_ends_are_in_the_output() -> None:
    hosts = (
        HostRecord("client", "kernel", {"A": 0}, {"A": 2}),
        HostRecord("server", "userspace", {"B": 5}, {"B": 5}),
    )
    root = document(RunResult(make_run(), Outcome.PASS, hosts=hosts))
    output = root.findtext(".//system-out") or ""
    assert "client (kernel) counters:\nA +2" in output
    assert "server (userspace) counters:\nnone moved" in output


@pytest.mark.parametrize("text", ["nul \x00", "escape \x1b[0m", "half \ud800", "<tag> & ]]>"])
def test_any_text_gives_well_formed_xml(text: str) -> None:
    root = document(make_result(Outcome.FAIL, reason=text))
    assert root.find(".//failure") is not None


def test_repetitions_have_names_of_their_own() -> None:
    root = document(make_result(run=make_run()), make_result(run=make_run(repetition=2)))
    assert [case.get("name") for case in root.iter("testcase")] == ["no-join", "no-join (repetition 2)"]


def test_no_results_at_all() -> None:
    assert document().get("tests") == "0"
