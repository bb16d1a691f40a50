"""What ``testbed report`` does with records: every form of report, from the same lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from testbed.errors import ExitCode, UsageError
from testbed.report.comparison import compare, comparison_text
from testbed.report.files import check_writable, write_report
from testbed.report.html.page import html_page
from testbed.report.json_report import json_document
from testbed.report.junit import junit_document
from testbed.report.records import RunRecord, read_records, session_of
from testbed.report.summary import summary_text
from testbed.report.tap import TapWriter
from testbed.selftests.results import Outcome


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is to be written, and where."""

    tap: bool = False
    junit: Path | None = None
    json: Path | None = None
    html: Path | None = None
    verbosity: int = 0


def render(files: Sequence[Path], outputs: Outputs, stdout: TextIO, *, is_merged: bool = False) -> ExitCode:
    """Of two files, the second as compared with the first, unless they are one set.

    Raises RecordError for records that cannot be read, ReportError for reports that cannot be written, and
    UsageError for more than two files that are not one set.
    """
    if len(files) > 2 and not is_merged:
        raise UsageError(f"{len(files)} files: two can be compared; with --merge, they are one set of runs")
    has_earlier = len(files) == 2 and not is_merged
    records = read_records(files[1:] if has_earlier else files)
    earlier = read_records(files[:1]) if has_earlier else []
    written: list[tuple[Path, Callable[[], str]]] = []
    session = session_of(records)
    results = [record.result for record in records]
    if outputs.junit is not None:
        written.append((outputs.junit, lambda: junit_document(session, results)))
    if outputs.json is not None:
        written.append((outputs.json, lambda: json_document(session, results)))
    comparison = compare(earlier, records) if earlier else None
    if outputs.html is not None:
        written.append((outputs.html, lambda: html_page(session, records, comparison)))
    check_writable([path for path, _make in written])
    for path, make in written:
        write_report(path, make())
    if outputs.tap:
        _write_tap(records, stdout)
    if comparison is not None:
        if not outputs.tap:
            stdout.write(comparison_text(comparison))
        return ExitCode.FAIL if comparison.has_regressions else ExitCode.PASS
    if not outputs.tap:
        stdout.write(summary_text(records, verbosity=outputs.verbosity))
    has_failed = any(result.outcome in (Outcome.FAIL, Outcome.ERROR) for result in results)
    return ExitCode.FAIL if has_failed else ExitCode.PASS


def _write_tap(records: Sequence[RunRecord], stdout: TextIO) -> None:
    """In the order of the records; a run that is in them twice, from two files, is told twice."""
    for seed in dict.fromkeys(record.session_seed for record in records):
        results = [record.result for record in records if record.session_seed == seed]
        writer = TapWriter(stdout, tuple(result.run for result in results), seed)
        writer.start()
        for result in results:
            writer.add(result)
        writer.finish()
