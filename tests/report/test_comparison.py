"""Two sets of records: what got worse, better, is new or missing, and what is only noise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.report.comparison import Comparison, compare, comparison_text, goodput_bit_s, rate_in_words
from testbed.report.records import RunRecord, Software
from testbed.selftests.observations import TransferRecord
from testbed.selftests.results import Check, Outcome
from tests.selftests.fakes import make_result, make_run


def record(
    name: str = "a",
    outcome: Outcome = Outcome.PASS,
    *,
    duration_ms: int = 1000,
    transfer_us: int = 1_000_000,
    repetition: int = 1,
    reason: str = "",
) -> RunRecord:
    result = replace(
        make_result(outcome, run=make_run(f"join/{name}", repetition=repetition), duration_ms=duration_ms),
        transfers=(TransferRecord("server", "", "", 0, 1_250_000, transfer_us, True),),
        reason=reason,
    )
    return RunRecord(1, Software("", "", ""), result)


def repeated(durations_ms: list[int]) -> list[RunRecord]:
    return [
        record(duration_ms=duration_ms, repetition=number)
        for number, duration_ms in enumerate(durations_ms, 1)
    ]


def whats(comparison: Comparison) -> tuple[list[str], list[str]]:
    return [change.what for change in comparison.worse], [change.what for change in comparison.better]


def test_the_same_is_the_same() -> None:
    comparison = compare([record("a"), record("b")], [record("b"), record("a")])
    assert comparison == Comparison((), (), (), (), 2)
    assert not comparison.has_regressions


def test_a_failure_is_worse_and_says_why() -> None:
    comparison = compare([record()], [record(outcome=Outcome.FAIL, reason="too late\nby far")])
    assert comparison.has_regressions
    assert str(comparison.worse[0]) == "join/a[4,kernel-kernel]: outcome pass → fail (too late)"
    failed = record(outcome=Outcome.FAIL)
    failed = replace(failed, result=replace(failed.result, checks=(Check("bytes", "1", "2", Outcome.FAIL),)))
    assert compare([record()], [failed]).worse[0].reason == "bytes: expected 1, observed 2"


def test_a_repair_is_better() -> None:
    comparison = compare([record(outcome=Outcome.ERROR)], [record()])
    assert whats(comparison) == ([], ["outcome"])
    assert not comparison.has_regressions


def test_a_run_that_is_skipped_now_is_worse() -> None:
    assert compare([record()], [record(outcome=Outcome.SKIP)]).has_regressions


def test_new_and_missing_runs() -> None:
    comparison = compare([record("a"), record("b")], [record("b"), record("c")])
    assert comparison.new == ("join/c[4,kernel-kernel]",)
    assert comparison.missing == ("join/a[4,kernel-kernel]",)
    assert comparison.has_regressions
    text = comparison_text(comparison)
    assert "missing (1):\n  join/a[4,kernel-kernel]\n" in text
    assert text.endswith("0 worse, 0 better, 1 missing, 1 new, 1 unchanged\n")


@pytest.mark.parametrize(
    ("before_ms", "after_ms", "expected"),
    [
        (1000, 1200, (["duration"], [])),
        (1200, 1000, ([], ["duration"])),
        (1000, 1090, ([], [])),
        # a tenth, but less than anything that could be measured
        (100, 140, ([], [])),
    ],
)
def test_durations(before_ms: int, after_ms: int, expected: tuple[list[str], list[str]]) -> None:
    assert whats(compare([record(duration_ms=before_ms)], [record(duration_ms=after_ms)])) == expected


def test_what_repetitions_differ_by_is_noise() -> None:
    noisy = repeated([1000, 1150, 850, 1100, 900])
    assert whats(compare(noisy, repeated([1200] * 5))) == ([], [])
    steady = repeated([1000, 1001, 999, 1000, 5000])
    assert whats(compare(steady, repeated([1200] * 5))) == (["duration"], [])


def test_goodput_is_better_when_it_is_more() -> None:
    slow, fast = record(transfer_us=2_000_000), record(transfer_us=1_000_000)
    (change,) = compare([slow], [fast]).better
    assert str(change) == "join/a[4,kernel-kernel]: goodput 5 Mbit/s → 10 Mbit/s (+100%)"
    assert whats(compare([fast], [slow])) == (["goodput"], [])


def test_failed_runs_are_not_measured() -> None:
    slow = record(outcome=Outcome.FAIL, duration_ms=9000)
    assert whats(compare([record(outcome=Outcome.FAIL)], [slow])) == ([], [])


def test_goodput_of_a_result() -> None:
    assert goodput_bit_s(record().result) == 10_000_000
    assert goodput_bit_s(make_result()) is None
    assert [rate_in_words(rate) for rate in (12, 3400, 19_700_000, 2.5e9)] == [
        "12 bit/s",
        "3.4 kbit/s",
        "19.7 Mbit/s",
        "2.5 Gbit/s",
    ]
