"""Which sub-test of the Linux kernel's MPTCP selftests has a counterpart among the cases here.

The mapping is data, ``kernel_suite.txt`` beside this module; a test checks that every case that it names
exists, and that docs/selftests.md shows the table that :func:`coverage_table` makes of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DATA_FILE = Path(__file__).with_name("kernel_suite.txt")

_NUMBERS = re.compile(r"(\d+)(?:-(\d+))?")
_REFERENCE = re.compile(r"([a-z0-9-]+/[a-z0-9-]+)(?:\[([^]]+)\])?")
_NONE = "none:"


@dataclass(frozen=True, slots=True)
class CaseReference:
    """A case here, with the value of the axis that makes it a counterpart; empty for any."""

    case: str
    axis_value: str = ""

    def __str__(self) -> str:
        return f"{self.case}[{self.axis_value}]" if self.axis_value else self.case


@dataclass(frozen=True, slots=True)
class KernelTest:
    """One sub-test of a script, or several that are one here."""

    script: str
    first: int
    last: int
    name: str
    counterparts: tuple[CaseReference, ...] = ()
    reason: str = ""
    """Why there is no counterpart."""

    @property
    def count(self) -> int:
        return self.last - self.first + 1

    @property
    def numbers(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}–{self.last}"


class KernelSuiteError(ValueError):
    """The mapping cannot be read; the message names the line."""


@cache
def kernel_tests() -> tuple[KernelTest, ...]:
    """All of them, in the order of their scripts and numbers."""
    return parse(DATA_FILE.read_text(encoding="utf-8").splitlines())


def parse(lines: Iterable[str]) -> tuple[KernelTest, ...]:
    """Raises KernelSuiteError: also for a number that is missing, or there twice."""
    tests: list[KernelTest] = []
    script = ""
    expected = 1
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("="):
            script, expected = text[1:].strip(), 1
            continue
        try:
            test = _parse_test(script, text)
        except ValueError as error:
            raise KernelSuiteError(f"line {number}: {error}") from None
        if test.first != expected:
            raise KernelSuiteError(f"line {number}: {script} {test.first} follows {expected - 1}")
        expected = test.last + 1
        tests.append(test)
    return tuple(tests)


def _parse_test(script: str, text: str) -> KernelTest:
    fields = [field.strip() for field in text.split("|")]
    if not script or len(fields) != 3 or not fields[1]:
        raise ValueError("expected a script, and then: numbers | name | cases")
    numbers = _NUMBERS.fullmatch(fields[0])
    if numbers is None:
        raise ValueError(f"{fields[0]!r} is neither a number nor a range")
    first = int(numbers[1])
    last = int(numbers[2] or first)
    if last < first:
        raise ValueError(f"{fields[0]!r} ends before it begins")
    if fields[2].startswith(_NONE):
        reason = fields[2].removeprefix(_NONE).strip()
        if not reason:
            raise ValueError("no counterpart, and no reason for that")
        return KernelTest(script, first, last, fields[1], reason=reason)
    return KernelTest(script, first, last, fields[1], tuple(map(_parse_reference, fields[2].split(","))))


def _parse_reference(text: str) -> CaseReference:
    match = _REFERENCE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text.strip()!r} names no case")
    return CaseReference(match[1], match[2] or "")


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many sub-tests there are, and how many of them have a counterpart."""

    all: int
    with_counterpart: int
    played: int
    """Of those with a counterpart, where one was among the cases given."""


def coverage(tests: Sequence[KernelTest], played_cases: Collection[str] = ()) -> Coverage:
    """``played_cases``: full names of the cases of a session."""
    return Coverage(
        all=sum(test.count for test in tests),
        with_counterpart=sum(test.count for test in tests if test.counterparts),
        played=sum(
            test.count
            for test in tests
            if any(reference.case in played_cases for reference in test.counterparts)
        ),
    )


def coverage_line(played_cases: Collection[str]) -> str:
    """What a session says beside its summary."""
    counted = coverage(kernel_tests(), played_cases)
    return (
        f"of the kernel's {counted.all} MPTCP sub-tests {counted.with_counterpart} have a counterpart here"
        f" ({counted.played} of them in this selection), {counted.all - counted.with_counterpart} have none:"
        " testbed selftest --coverage"
    )


def coverage_table(tests: Sequence[KernelTest]) -> str:
    """Two Markdown tables: the scripts with their numbers, and every sub-test."""
    scripts = list(dict.fromkeys(test.script for test in tests))
    lines = ["| Script | Sub-tests | With a counterpart | Without |", "|---|---:|---:|---:|"]
    for script in scripts:
        lines.append(_count_row(script, [test for test in tests if test.script == script]))
    lines.append(_count_row("all", tests))
    lines += ["", "| Script | Number | Sub-test | Counterpart |", "|---|---|---|---|"]
    previous = ""
    for test in tests:
        shown = "" if test.script == previous else test.script
        previous = test.script
        lines.append(f"| {shown} | {test.numbers} | {test.name} | {_counterpart_text(test)} |")
    return "\n".join(lines) + "\n"


def _count_row(label: str, tests: Sequence[KernelTest]) -> str:
    counted = coverage(tests)
    without = counted.all - counted.with_counterpart
    return f"| {label} | {counted.all} | {counted.with_counterpart} | {without} |"


def _counterpart_text(test: KernelTest) -> str:
    if not test.counterparts:
        return f"none: {test.reason}"
    return ", ".join(f"`{reference}`" for reference in test.counterparts)
