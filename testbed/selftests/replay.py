"""Which recorded runs are to be played again."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.errors import UsageError
from testbed.report.records import RunRecord
from testbed.selftests.axes import hint
from testbed.selftests.case import all_cases
from testbed.selftests.results import Outcome, Run


def chosen_runs(records: Sequence[RunRecord], names: Sequence[str] | None) -> tuple[int, tuple[Run, ...]]:
    """The seed of their session, and the runs with the seeds and axes that they had.

    ``names`` are identifiers, or numbers from 1; None for those that failed, or for the only one. Raises
    UsageError for what is not recorded, for cases that there are no more, and for runs of several sessions.
    """
    chosen = _by_name(records, names) if names is not None else _by_outcome(records)
    known = [case.full_name for case in all_cases()]
    problems = [
        f"{record.result.run.identifier}: there is no case {record.result.run.case!r} any more;"
        f" {hint(record.result.run.case, known)}"
        for record in chosen
        if record.result.run.case not in known
    ]
    seeds = {record.session_seed for record in chosen}
    if len(seeds) > 1:
        problems.append("the runs are from several sessions; choose those of one with --run")
    if problems:
        raise UsageError("\n".join(problems))
    runs = {record.result.run.identifier: record.result.run for record in chosen}
    return seeds.pop(), tuple(runs.values())


def _by_outcome(records: Sequence[RunRecord]) -> list[RunRecord]:
    failed = [record for record in records if record.result.outcome in (Outcome.FAIL, Outcome.ERROR)]
    if failed:
        return failed
    if len(records) == 1:
        return list(records)
    raise UsageError(f"none of the {len(records)} runs failed: say which with --run")


def _by_name(records: Sequence[RunRecord], names: Sequence[str]) -> list[RunRecord]:
    by_identifier = {record.result.run.identifier: record for record in records}
    chosen: list[RunRecord] = []
    problems: list[str] = []
    for name in names:
        if name.isdigit() and 1 <= int(name) <= len(records):
            chosen.append(records[int(name) - 1])
        elif name.isdigit():
            problems.append(f"--run {name}: there are runs 1 to {len(records)}")
        elif name in by_identifier:
            chosen.append(by_identifier[name])
        else:
            problems.append(f"--run {name!r}: not recorded; {hint(name, list(by_identifier))}")
    if problems:
        raise UsageError("\n".join(problems))
    return chosen
