"""Two sets of records side by side: what got worse, what got better, what is new and what is missing.

Runs are matched by identifier. Repetitions of one run are gathered, so that durations and goodput are
compared by their medians, and a change counts only beyond the noise that the repetitions themselves show.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from testbed.report.records import RunRecord
from testbed.selftests.results import Outcome, RunResult

LEAST_DIFFERENCE = 0.10
"""Of durations and goodput: what is less is noise."""
LEAST_DIFFERENCE_MS = 50
"""A duration that differs by less than two looks at the counters says nothing."""
SHORTEST_MEASURED_US = 100_000
"""Goodput over less time than ten samples says more about the samples."""
NOISE_WIDTHS = 3.0
"""A change must exceed so many times the spread of the repetitions."""

_RANK = {Outcome.PASS: 0, Outcome.SKIP: 1, Outcome.FAIL: 2, Outcome.ERROR: 3}


@dataclass(frozen=True, slots=True)
class Change:
    """One run, or one of its measures, before and after."""

    identifier: str
    what: str
    """``outcome``, ``duration`` or ``goodput``."""
    before: str
    after: str
    reason: str = ""

    def __str__(self) -> str:
        text = f"{self.identifier}: {self.what} {self.before} → {self.after}"
        return f"{text} ({self.reason})" if self.reason else text


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that differs."""

    worse: tuple[Change, ...]
    better: tuple[Change, ...]
    new: tuple[str, ...]
    missing: tuple[str, ...]
    same: int
    """Runs on both sides without a change."""

    @property
    def has_regressions(self) -> bool:
        """Whether an outcome got worse, or a run vanished."""
        return bool(self.missing) or any(change.what == "outcome" for change in self.worse)


def compare(before: Sequence[RunRecord], after: Sequence[RunRecord]) -> Comparison:
    """What the second set of records says otherwise than the first."""
    old, new = _gathered(before), _gathered(after)
    worse: list[Change] = []
    better: list[Change] = []
    same = 0
    for identifier in old:
        if identifier not in new:
            continue
        changes = _changes(identifier, old[identifier], new[identifier])
        same += not changes
        for change, is_worse in changes:
            (worse if is_worse else better).append(change)
    return Comparison(
        tuple(worse),
        tuple(better),
        tuple(identifier for identifier in new if identifier not in old),
        tuple(identifier for identifier in old if identifier not in new),
        same,
    )


def comparison_text(comparison: Comparison) -> str:
    """For people to read."""
    lines: list[str] = []
    for title, entries in (
        ("worse", comparison.worse),
        ("better", comparison.better),
        ("missing", comparison.missing),
        ("new", comparison.new),
    ):
        if entries:
            lines += [f"{title} ({len(entries)}):", *(f"  {entry}" for entry in entries)]
    lines.append(
        f"{len(comparison.worse)} worse, {len(comparison.better)} better, {len(comparison.missing)} missing,"
        f" {len(comparison.new)} new, {comparison.same} unchanged"
    )
    return "\n".join(lines) + "\n"


def goodput_bit_s(result: RunResult) -> int | None:
    """Bytes that arrived at both ends, over the time until the last did; None where that says nothing."""
    received = [transfer for transfer in result.transfers if transfer.bytes_received]
    longest_us = max((transfer.delivery_us for transfer in received), default=0)
    if longest_us < SHORTEST_MEASURED_US:
        return None
    return sum(transfer.bytes_received for transfer in received) * 8_000_000 // longest_us


def rate_in_words(rate_bit_s: float) -> str:
    """``19.7 Mbit/s``."""
    for size, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if rate_bit_s >= size:
            return f"{rate_bit_s / size:.3g} {unit}"
    return f"{rate_bit_s:.0f} bit/s"


def _gathered(records: Sequence[RunRecord]) -> dict[str, list[RunResult]]:
    """Repetitions under the name of the first."""
    gathered: dict[str, list[RunResult]] = {}
    for record in records:
        identifier = replace(record.result.run, repetition=1).identifier
        gathered.setdefault(identifier, []).append(record.result)
    return gathered


def _changes(
    identifier: str, before: Sequence[RunResult], after: Sequence[RunResult]
) -> list[tuple[Change, bool]]:
    """Each with whether it is for the worse."""
    old, new = _worst(before), _worst(after)
    if old.outcome is not new.outcome:
        worst = new if _RANK[new.outcome] > _RANK[old.outcome] else old
        change = Change(identifier, "outcome", old.outcome.value, new.outcome.value, _why(worst))
        return [(change, worst is new)]
    if new.outcome is not Outcome.PASS:
        return []
    changes = []
    durations = [[float(result.duration_ms) for result in results] for results in (before, after)]
    first, second = map(statistics.median, durations)
    if _differs(*durations) and abs(second - first) >= LEAST_DIFFERENCE_MS:
        change = Change(
            identifier, "duration", f"{first:.0f} ms", f"{second:.0f} ms", _percent(first, second)
        )
        changes.append((change, second > first))
    rates = [[float(goodput_bit_s(result) or 0) for result in results] for results in (before, after)]
    first, second = map(statistics.median, rates)
    if first and second and _differs(*rates):
        change = Change(
            identifier, "goodput", rate_in_words(first), rate_in_words(second), _percent(first, second)
        )
        changes.append((change, second < first))
    return changes


def _worst(results: Sequence[RunResult]) -> RunResult:
    return max(results, key=lambda result: _RANK[result.outcome])


def _why(result: RunResult) -> str:
    """The first thing that a result says about itself, in one line."""
    lines = result.reason.splitlines() or [str(check) for check in result.failed_checks()]
    return " ".join(lines[0].split()) if lines else ""


def _differs(before: Sequence[float], after: Sequence[float]) -> bool:
    """By more than a tenth, and by more than the repetitions differ among themselves."""
    first, second = statistics.median(before), statistics.median(after)
    spread = max(_spread(before), _spread(after))
    return abs(second - first) > max(LEAST_DIFFERENCE * first, NOISE_WIDTHS * spread)


def _spread(values: Sequence[float]) -> float:
    """The median deviation from the median: one outlier among many does not widen it."""
    middle = statistics.median(values)
    return statistics.median(abs(value - middle) for value in values)


def _percent(before: float, after: float) -> str:
    return f"{(after - before) / before:+.0%}" if before else ""
