"""Records as text: one line for each run, everything about those that did not pass, and the totals."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.report.comparison import goodput_bit_s, rate_in_words
from testbed.report.diagnostics import diagnostics
from testbed.report.records import RunRecord
from testbed.report.tap import skip_text
from testbed.selftests.results import Outcome, RunResult, Totals


def summary_text(records: Sequence[RunRecord], *, verbosity: int = 0) -> str:
    """``verbosity`` below 0 leaves out what passed."""
    lines: list[str] = []
    totals = Totals()
    duration_ms = 0
    for record in records:
        result = record.result
        totals = totals.plus(result.outcome)
        duration_ms += result.duration_ms
        if result.outcome is Outcome.PASS and verbosity < 0:
            continue
        lines.append(_line(result))
        if result.outcome in (Outcome.FAIL, Outcome.ERROR):
            lines += [f"      {text}" for text in diagnostics(result, record.session_seed)]
    lines.append(
        f"{totals.passed} passed, {totals.failed} failed, {totals.skipped} skipped,"
        f" {totals.errors} could not be judged, {duration_ms / 1000:.1f} s of runs"
    )
    return "\n".join(lines) + "\n"


def _line(result: RunResult) -> str:
    line = f"{result.outcome.value:<5} {result.run.identifier}"
    if result.outcome is Outcome.SKIP:
        return f"{line} ({skip_text(result)})"
    goodput = goodput_bit_s(result)
    return f"{line} {result.duration_ms} ms" + (f", {rate_in_words(goodput)}" if goodput else "")
