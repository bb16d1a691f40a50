"""What a person sees while selftests run: one status line on a terminal, plain lines everywhere else."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from testbed.report.diagnostics import diagnostics
from testbed.report.tap import skip_text
from testbed.selftests.results import Outcome, Run, RunResult, Totals

REDRAW_INTERVAL_S = 0.1
_COLOURS = {Outcome.PASS: "32", Outcome.FAIL: "31", Outcome.SKIP: "33", Outcome.ERROR: "35"}


class Progress:
    """Follows a session on one stream.

    On a terminal the last line is redrawn, at most ten times a second; whatever did not pass is printed above
    it and stays. Elsewhere every result is a line of its own.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        planned: int,
        session_seed: int,
        is_terminal: bool,
        has_colour: bool,
        with_results: bool = True,
        verbosity: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``with_results=False``: no lines for results, because another stream has them already.

        ``verbosity`` below 0 leaves out the lines of runs that passed, above 0 adds their counters.
        """
        self._stream = stream
        self._planned = planned
        self._session_seed = session_seed
        self._is_terminal = is_terminal
        self._has_colour = has_colour
        self._with_results = with_results
        self._hides_passes = is_terminal if verbosity == 0 else verbosity < 0
        self._explains_passes = verbosity > 0
        self._clock = clock
        self._totals = Totals()
        self._running: dict[str, float] = {}
        self._drawn_at = float("-inf")
        self._has_status_line = False

    def start(self) -> None:
        self._stream.write(f"{self._planned} runs, seed {self._session_seed}\n")
        self._stream.flush()

    def started(self, run: Run) -> None:
        self._running[run.identifier] = self._clock()

    def finished(self, result: RunResult) -> None:
        self._running.pop(result.run.identifier, None)
        self._totals = self._totals.plus(result.outcome)
        if self._with_results and not (self._hides_passes and result.outcome is Outcome.PASS):
            self._erase_status()
            self._stream.write("\n".join(self._result_lines(result)) + "\n")
            self._stream.flush()
        self.tick()

    def tick(self) -> None:
        """Redraw the status line if it is time."""
        if not self._is_terminal or self._clock() - self._drawn_at < REDRAW_INTERVAL_S:
            return
        self._drawn_at = self._clock()
        width = shutil.get_terminal_size().columns - 1
        self._stream.write("\r\x1b[K" + self._status()[:width])
        self._stream.flush()
        self._has_status_line = True

    def finish(self, *, interrupted: bool, duration_s: float, remark: str = "") -> None:
        self._erase_status()
        totals = self._totals
        text = (
            f"{totals.passed} passed, {totals.failed} failed, {totals.skipped} skipped,"
            f" {totals.errors} could not be judged, in {duration_s:.1f} s"
        )
        if interrupted:
            text = f"interrupted after {totals.all} of {self._planned} runs: {text}"
        self._stream.write("\n".join(filter(None, (text, remark))) + "\n")
        self._stream.flush()

    def _result_lines(self, result: RunResult) -> list[str]:
        word = self._coloured(f"{result.outcome.value:<5}", result.outcome)
        line = f"{word} {result.run.identifier}"
        if result.outcome is Outcome.SKIP:
            return [f"{line} ({skip_text(result)})"]
        lines = [f"{line} {result.duration_ms} ms"]
        if result.outcome is not Outcome.PASS or self._explains_passes:
            lines += [f"      {text}" for text in diagnostics(result, self._session_seed)]
        return lines

    def _status(self) -> str:
        totals = self._totals
        text = f"[{totals.all}/{self._planned}] {totals.passed} passed"
        if totals.failed or totals.errors:
            text += f", {totals.failed + totals.errors} failed"
        if totals.skipped:
            text += f", {totals.skipped} skipped"
        now = self._clock()
        running = ", ".join(f"{name} {now - since:.0f} s" for name, since in self._running.items())
        return f"{text}; now {running}" if running else text

    def _erase_status(self) -> None:
        if self._has_status_line:
            self._stream.write("\r\x1b[K")
            self._has_status_line = False

    def _coloured(self, text: str, outcome: Outcome) -> str:
        return f"\x1b[{_COLOURS[outcome]}m{text}\x1b[0m" if self._has_colour else text


def wants_colour(is_terminal: bool, environment: Mapping[str, str]) -> bool:
    """Colours go to terminals only, and not where ``NO_COLOR`` is set to anything or ``TERM`` is ``dumb``."""
    return is_terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
