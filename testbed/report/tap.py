"""KTAP 1, the kernel's form of TAP (Documentation/dev-tools/ktap.rst), as its MPTCP selftests use it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from testbed.report.diagnostics import diagnostics, unchecked
from testbed.selftests.results import Outcome, Run, RunResult, Totals

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class TapWriter:
    """Writes results in the order of the plan, whatever order they come in, each as soon as it may.

    So the same number means the same run in every session over the same plan. ``show_notes`` shows the notes
    of runs that passed as well.
    """

    def __init__(
        self, stream: TextIO, runs: tuple[Run, ...], session_seed: int, *, show_notes: bool = False
    ) -> None:
        self._stream = stream
        self._order = [run.identifier for run in runs]
        self._session_seed = session_seed
        self._show_notes = show_notes
        self._pending: dict[str, RunResult] = {}
        self._written = 0
        self._totals = Totals()
        self._unchecked: Counter[str] = Counter()

    def start(self) -> None:
        self._stream.write(f"KTAP version 1\n1..{len(self._order)}\n# seed {self._session_seed}\n")
        self._stream.flush()

    def add(self, result: RunResult) -> None:
        self._pending[result.run.identifier] = result
        while self._written < len(self._order) and self._order[self._written] in self._pending:
            self._write(self._pending.pop(self._order[self._written]))
        self._stream.flush()

    def finish(self, *, interrupted: bool = False, remark: str = "") -> None:
        """The totals, after ``remark``. After an interrupt, what is missing is said to be."""
        for identifier in self._order[self._written :]:
            if identifier in self._pending:
                self._write(self._pending.pop(identifier))
            else:
                self._written += 1
        if interrupted:
            missing = len(self._order) - self._totals.all
            self._stream.write(f"# interrupted: {missing} of {len(self._order)} runs have no result\n")
        for text, count in self._unchecked.items():
            self._stream.write(f"# {_printable(text)} (in {count} runs)\n")
        if remark:
            self._stream.write(f"# {_printable(remark)}\n")
        totals = self._totals
        self._stream.write(
            f"# Totals: pass:{totals.passed} fail:{totals.failed} xfail:0 xpass:0"
            f" skip:{totals.skipped} error:{totals.errors}\n"
        )
        self._stream.flush()

    def _write(self, result: RunResult) -> None:
        self._written += 1
        self._totals = self._totals.plus(result.outcome)
        self._stream.write(result_line(self._written, result) + "\n")
        lines: Sequence[str] = result.notes if self._show_notes else ()
        if result.outcome in (Outcome.FAIL, Outcome.ERROR):
            lines = diagnostics(result, self._session_seed)
        else:
            self._unchecked.update(unchecked(result))
        for line in lines:
            self._stream.write(f"# {_printable(line)}".rstrip() + "\n")


def result_line(number: int, result: RunResult) -> str:
    """``ok 3 - selftest: join/no-join[4,kernel-kernel] # time=212ms``."""
    verdict = "ok" if result.outcome in (Outcome.PASS, Outcome.SKIP) else "not ok"
    if result.outcome is Outcome.SKIP:
        remark = f"SKIP {_printable(skip_text(result))}"
    elif result.outcome is Outcome.ERROR:
        remark = f"ERROR could not be judged, time={result.duration_ms}ms"
    else:
        remark = f"time={result.duration_ms}ms"
    return f"{verdict} {number} - {result.run.command}: {result.run.identifier} # {remark}"


def skip_text(result: RunResult) -> str:
    """Why a run was skipped, in one line."""
    return " ".join(result.reason.split()) or "; ".join(unchecked(result)) or "nothing could be checked"


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("?", text)
