"""The list of cases that are known to be flaky is empty; were it not, a failure would be told as a SKIP."""

from __future__ import annotations

from dataclasses import replace

from testbed.selftests.known_flaky import KNOWN_FLAKY, excused
from testbed.selftests.results import Check, Outcome
from tests.selftests.fakes import make_result

KNOWN = {"join/no-join": "the timer of a join is being looked into"}


def test_no_case_is_known_to_be_flaky() -> None:
    assert KNOWN_FLAKY == {}


def test_a_failure_of_such_a_case_is_a_skip_that_says_what_failed() -> None:
    failed = replace(
        make_result(Outcome.FAIL), reason="too late", checks=(Check("bytes", "1", "2", Outcome.FAIL),)
    )
    result = excused(failed, KNOWN)
    assert result.outcome is Outcome.SKIP
    assert result.reason == (
        "known to be flaky, the timer of a join is being looked into;"
        " this time: too late; bytes: expected 1, observed 2"
    )
    assert excused(failed) is failed


def test_nothing_else_is_excused() -> None:
    for outcome in (Outcome.PASS, Outcome.SKIP, Outcome.ERROR):
        result = make_result(outcome)
        assert excused(result, KNOWN) is result
