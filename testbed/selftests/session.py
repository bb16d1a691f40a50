"""A selftest session from the user's words to the exit code: plan, play, report."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from testbed.errors import ExitCode, UsageError
from testbed.report.bundle import needs_bundle, write_bundle
from testbed.report.files import ReportError, check_writable, write_report
from testbed.report.json_report import json_document
from testbed.report.junit import junit_document
from testbed.report.progress import Progress, wants_colour
from testbed.report.records import RecordWriter, RunRecord, this_software, with_moved_counters
from testbed.report.tap import TapWriter
from testbed.selftests.axes import Axes
from testbed.selftests.case import SIMULATED, all_cases, find_case
from testbed.selftests.kernel_suite import coverage_line
from testbed.selftests.matrix import expand
from testbed.selftests.results import Outcome, Run, RunResult, SessionInformation
from testbed.selftests.runner import LabRemover, Observer, Place, Runner

SEED_BITS = 32
MAXIMUM_JOBS = 64
MAXIMUM_TIMEOUT_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What the command line says."""

    axes: Axes
    jobs: int
    timeout_s: float
    seed: int | None = None
    tap: bool = False
    junit: Path | None = None
    json: Path | None = None
    html: Path | None = None
    record: Path | None = None
    all_counters: bool = False
    maximum_failures: int | None = None
    capture: Path | None = None
    bundles: Path | None = None
    """Where debug bundles of failed runs go; None for nowhere."""
    verbosity: int = 0
    command_line: tuple[str, ...] = ()


def plan(options: SessionOptions) -> tuple[int, tuple[Run, ...]]:
    """The session's seed and runs. Raises UsageError with every problem at once."""
    problems = []
    if not 1 <= options.jobs <= MAXIMUM_JOBS:
        problems.append(f"--jobs {options.jobs}: must be from 1 to {MAXIMUM_JOBS}")
    if not 0 < options.timeout_s <= MAXIMUM_TIMEOUT_S:
        problems.append(f"--timeout {options.timeout_s:g}: must be above 0 and at most {MAXIMUM_TIMEOUT_S} s")
    if options.seed is not None and options.seed < 0:
        problems.append(f"--seed {options.seed}: must not be negative")
    if options.maximum_failures is not None and options.maximum_failures < 1:
        problems.append(f"--max-fail {options.maximum_failures}: must be at least 1")
    seed = random.SystemRandom().getrandbits(SEED_BITS) if options.seed is None else options.seed
    try:
        runs = expand(all_cases(), options.axes, seed)
    except UsageError as error:
        problems.insert(0, str(error))
        runs = ()
    if problems:
        raise UsageError("\n".join(problems))
    return seed, runs


def run_session(options: SessionOptions, stdout: TextIO, stderr: TextIO, remove_lab: LabRemover) -> ExitCode:
    """Everything from the plan to the reports.

    Raises UsageError for what makes no sense and ReportError for reports that cannot be written: before the
    first run where that can be known.
    """
    seed, runs = plan(options)
    return play_runs(options, seed, runs, stdout, stderr, remove_lab)


def needs_privileges(runs: Sequence[Run]) -> bool:
    """Whether a run is more than virtual."""
    return any(run.backend != SIMULATED for run in runs)


def play_runs(
    options: SessionOptions,
    seed: int,
    runs: tuple[Run, ...],
    stdout: TextIO,
    stderr: TextIO,
    remove_lab: LabRemover,
) -> ExitCode:
    """Everything from the planned runs to the reports; raises ReportError."""
    record = record_path(options.record, seed)
    check_writable([path for path in (options.junit, options.json, options.html, record) if path is not None])
    if options.capture is not None:
        _prepare_directory(options.capture)
    try:
        with ExitStack() as closing:
            writer = None
            if record is not None:
                stream = closing.enter_context(record.open("w", encoding="utf-8"))
                writer = RecordWriter(stream, runs, seed, all_counters=options.all_counters)
            screen = _Screen(options, runs, seed, stdout, stderr, writer)
            return _play_and_report(options, seed, runs, screen, remove_lab)
    except BrokenPipeError:
        # whoever read the output has seen enough
        raise
    except OSError as error:
        raise ReportError(f"the session broke off: {error.strerror or error}") from error


def _play_and_report(
    options: SessionOptions, seed: int, runs: tuple[Run, ...], screen: _Screen, remove_lab: LabRemover
) -> ExitCode:
    session = _session_information(options, seed, runs)
    screen.start()
    runner = Runner(
        jobs=min(options.jobs, len(runs)),
        timeout_s=options.timeout_s,
        observer=screen.observer(),
        remove_lab=remove_lab,
        capture_directory=str(options.capture) if options.capture is not None else None,
        place=_place,
        maximum_failures=options.maximum_failures,
    )
    started = time.monotonic()
    results = runner.play(runs)
    duration_s = time.monotonic() - started
    interrupted = runner.interrupts > 0
    session = replace(session, interrupted=interrupted, duration_ms=round(duration_s * 1000))
    _write_reports(options, session, _in_order(results, runs))
    screen.finish(interrupted=interrupted, duration_s=duration_s)
    return exit_code(results, interrupted=interrupted)


def record_path(path: Path | None, seed: int) -> Path | None:
    """The file for the records: a folder gets one whose name tells the seed."""
    return path / f"selftest-{seed}.jsonl" if path is not None and path.is_dir() else path


def _place(run: Run) -> Place:
    case = find_case(run.case)
    if run.backend == SIMULATED:
        # in virtual time nobody waits, and nobody is late
        return Place.ORDINARY
    if case.is_timing_sensitive:
        return Place.ALONE
    return Place.ASIDE if case.waits_mostly else Place.ORDINARY


def exit_code(results: Sequence[RunResult], *, interrupted: bool) -> ExitCode:
    """0 when every run passed or some were skipped, 1 for a failure or error, 4 when all were skipped."""
    if interrupted:
        return ExitCode.INTERRUPTED
    outcomes = {result.outcome for result in results}
    if outcomes & {Outcome.FAIL, Outcome.ERROR}:
        return ExitCode.FAIL
    return ExitCode.PASS if Outcome.PASS in outcomes else ExitCode.SKIP


class _Screen:
    """Who writes what where: TAP owns standard output when it was asked for, progress goes aside then."""

    def __init__(
        self,
        options: SessionOptions,
        runs: tuple[Run, ...],
        seed: int,
        stdout: TextIO,
        stderr: TextIO,
        records: RecordWriter | None = None,
    ) -> None:
        self._records = records
        self._problem = ""
        self._bundles = options.bundles
        self._seed = seed
        self._cases = {run.case for run in runs}
        stream = stderr if options.tap else stdout
        is_terminal = stream.isatty()
        self._tap = TapWriter(stdout, runs, seed) if options.tap else None
        self._progress = Progress(
            stream,
            planned=len(runs),
            session_seed=seed,
            is_terminal=is_terminal,
            has_colour=wants_colour(is_terminal, os.environ),
            with_results=not options.tap,
            verbosity=options.verbosity,
        )
        self._shows_progress = is_terminal or not options.tap

    def observer(self) -> Observer:
        return Observer(started=self._progress.started, finished=self._finished, tick=self._tick)

    def start(self) -> None:
        if self._tap is not None:
            self._tap.start()
        if self._shows_progress:
            self._progress.start()

    def _finished(self, result: RunResult) -> None:
        self._keep(lambda records: records.add(result))
        if self._bundles is not None and needs_bundle(result):
            try:
                folder = write_bundle(self._bundles, RunRecord(self._seed, this_software(), result))
                note = f"debug bundle: {folder}"
            except ReportError as error:
                note = str(error)
            result = replace(result, notes=(*result.notes, note))
        if self._tap is not None:
            self._tap.add(result)
        self._progress.finished(result)

    def _tick(self) -> None:
        self._progress.tick()

    def _keep(self, write: Callable[[RecordWriter], None]) -> None:
        """A record that cannot be kept ends no session: the other reports are still of use."""
        if self._records is None:
            return
        try:
            write(self._records)
        except OSError as error:
            self._records.give_up()
            self._records = None
            self._problem = f"cannot write the records: {error.strerror or error}"

    def finish(self, *, interrupted: bool, duration_s: float) -> None:
        """Raises ReportError if the records are incomplete."""
        self._keep(RecordWriter.finish)
        remark = coverage_line(self._cases)
        if self._tap is not None:
            self._tap.finish(interrupted=interrupted, remark=remark)
        if self._shows_progress:
            self._progress.finish(interrupted=interrupted, duration_s=duration_s, remark=remark)
        if self._problem:
            raise ReportError(self._problem)


def _write_reports(
    options: SessionOptions, session: SessionInformation, results: Sequence[RunResult]
) -> None:
    """Both reports are tried before the first problem is raised."""
    problems = []
    for path, make in (
        (options.junit, junit_document),
        (options.json, json_document),
        (options.html, _html_document),
    ):
        if path is None:
            continue
        try:
            write_report(path, make(session, results))
        except ReportError as error:
            problems.append(str(error))
    if problems:
        raise ReportError("\n".join(problems))


def _html_document(session: SessionInformation, results: Sequence[RunResult]) -> str:
    from testbed.report.html.page import html_page

    software = this_software()
    records = [RunRecord(session.seed, software, with_moved_counters(result)) for result in results]
    return html_page(session, records)


def _in_order(results: Sequence[RunResult], runs: Sequence[Run]) -> list[RunResult]:
    position = {run.identifier: number for number, run in enumerate(runs)}
    return sorted(results, key=lambda result: position[result.run.identifier])


def _prepare_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"cannot make the directory {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ReportError(f"cannot write into the directory {path}")


def _session_information(options: SessionOptions, seed: int, runs: Sequence[Run]) -> SessionInformation:
    software = this_software()
    return SessionInformation(
        seed=seed,
        kernel=software.kernel,
        python=software.python,
        testbed_version=software.project,
        command_line=options.command_line,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        planned_runs=len(runs),
    )
