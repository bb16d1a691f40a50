"""The mapping of the kernel's sub-tests to cases here: complete, true, and shown in the documentation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from testbed.cli import run
from testbed.selftests.axes import ADDRESSINGS, CHECKSUMS, CONGESTION_NAMES
from testbed.selftests.case import SLOW, all_cases
from testbed.selftests.kernel_suite import (
    Coverage,
    KernelSuiteError,
    coverage,
    coverage_line,
    coverage_table,
    kernel_tests,
    parse,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "selftests.md"
BEGIN, END = "<!-- made by: testbed selftest --coverage -->\n", "<!-- end -->\n"

SUB_TESTS = {
    "mptcp_connect.sh": 68,
    "mptcp_connect_checksum.sh": 68,
    "mptcp_connect_mmap.sh": 68,
    "mptcp_connect_sendfile.sh": 68,
    "mptcp_connect_splice.sh": 68,
    "mptcp_join.sh": 141,
    "simult_flows.sh": 10,
    "mptcp_sockopt.sh": 11,
    "diag.sh": 32,
    "pm_netlink.sh": 22,
    "userspace_pm.sh": 37,
}


def test_every_sub_test_of_the_kernel_is_there_once() -> None:
    counts: Counter[str] = Counter()
    for test in kernel_tests():
        counts[test.script] += test.count
    assert counts == SUB_TESTS
    assert sum(counts.values()) == 593


def test_every_case_that_is_named_exists() -> None:
    names = {case.full_name for case in all_cases()}
    named = {reference.case for test in kernel_tests() for reference in test.counterparts}
    assert named <= names


def test_a_case_that_is_named_with_an_axis_value_runs_with_it() -> None:
    cases = {case.full_name: case for case in all_cases()}
    for test in kernel_tests():
        for reference in test.counterparts:
            families = cases[reference.case].families
            value = reference.axis_value
            assert not value or value in families or value in _other_values(), str(reference)


def _other_values() -> set[str]:
    values = {f"checksum={value}" for value in CHECKSUMS}
    return values | {f"congestion={value}" for value in CONGESTION_NAMES} - set(ADDRESSINGS) - {SLOW}


def test_the_documentation_shows_the_table() -> None:
    shown = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert shown.strip() == coverage_table(kernel_tests()).strip(), (
        "run: testbed selftest --coverage, and put what it prints between the two comments"
    )


def test_the_command_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["selftest", "--coverage"]) == 0
    assert capsys.readouterr().out == coverage_table(kernel_tests())


def test_the_count() -> None:
    tests = parse(["= a.sh", "1-3 | three | join/no-join", "4 | one | none: no such thing", "5 | five | a/b"])
    assert coverage(tests) == Coverage(all=5, with_counterpart=4, played=0)
    assert coverage(tests, {"join/no-join"}).played == 3
    assert "| a.sh | 5 | 4 | 1 |" in coverage_table(tests)


def test_a_session_says_how_many_there_are() -> None:
    counted = coverage(kernel_tests(), {"join/no-join"})
    line = coverage_line({"join/no-join"})
    assert f"593 MPTCP sub-tests {counted.with_counterpart} have" in line
    assert f"({counted.played} of them" in line


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("2 | begins late | a/b", "2 follows 0"),
        ("1 | no reason | none:", "no reason"),
        ("1 | two fields", "numbers | name | cases"),
        ("one | name | a/b", "neither a number"),
        ("3-1 | name | a/b", "ends before"),
        ("1 | name | nothing", "names no case"),
    ],
)
def test_nonsense_is_refused_with_its_line(line: str, problem: str) -> None:
    with pytest.raises(KernelSuiteError, match="line 2: ") as caught:
        parse(["= a.sh", line])
    assert problem in str(caught.value)
