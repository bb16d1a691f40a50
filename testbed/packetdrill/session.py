"""``testbed packetdrill`` from its options to the exit code: plan, play, report."""

from __future__ import annotations

import platform
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TextIO

from testbed.errors import ExitCode, UsageError
from testbed.packetdrill.playing import PlayOptions, PlayResult
from testbed.packetdrill.runner import DEFAULT_TIMEOUT_S, TIMEOUT_MARGIN_S, WorkerCounts, play_all
from testbed.packetdrill.script_options import ScriptOptions
from testbed.packetdrill.stack_under_test import IpVersion
from testbed.packetdrill.suite import IP_NAMES, STACKS, Cell, find_scripts, plan
from testbed.report.files import check_writable, write_report
from testbed.report.junit import junit_document
from testbed.report.tap import TapWriter
from testbed.selftests.results import Outcome, Run, RunResult, SessionInformation

MAXIMUM_JOBS = 64
MAXIMUM_TOLERANCE_FACTOR = 1000.0


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What the command line says."""

    paths: tuple[Path, ...]
    stack: str = "userspace"
    ip: str = "4,6,4-mapped"
    jobs: int | None = None
    """None: as many as suit this machine."""
    timeout_s: float = DEFAULT_TIMEOUT_S
    tolerance_factor: float = 1.0
    tap: bool = False
    junit: Path | None = None
    trace: bool = False
    pcap: Path | None = None
    verbosity: int = 0
    command_line: tuple[str, ...] = ()
    script_options: tuple[tuple[str, str | None], ...] = ()
    """Options of the language that are given for all scripts."""


@dataclass(frozen=True, slots=True)
class ScriptRun(Run):
    """A script on one stack with one IP version, for the reports."""

    version: str = ""
    script_options: tuple[tuple[str, str | None], ...] = ()

    @property
    def stacks(self) -> str:
        return self.client_stack

    @property
    def identifier(self) -> str:
        return f"{self.case}[{self.version},{self.client_stack}]"

    @property
    def command(self) -> str:
        return "packetdrill"

    @property
    def group(self) -> str:
        return Path(self.case).parent.name

    @property
    def name(self) -> str:
        return Path(self.case).stem

    @property
    def suite(self) -> str:
        return f"{self.client_stack}, {self.version}"

    def replay_command(self, session_seed: int) -> str:
        name = next(name for name, each in IP_NAMES.items() if each.value == self.version)
        words = ["testbed", "packetdrill", "--stack", self.client_stack, "--ip", name]
        words += [f"--{key}" if value is None else f"--{key}={value}" for key, value in self.script_options]
        return shlex.join([*words, self.case])


def run_session(options: SessionOptions, stdout: TextIO, stderr: TextIO) -> ExitCode:
    """Raises UsageError, PacketScriptError and ReportError before the first run where that can be known."""
    stacks, versions = _check_options(options)
    check_writable([path for path in (options.junit, options.pcap) if path is not None])
    given = given_options(options)
    cells = plan(find_scripts(options.paths), stacks, versions, given)
    played = [cell for cell in cells if cell.skip_reason is None]
    if options.pcap is not None and len(played) > 1:
        raise UsageError(f"--pcap is for one run, not for {len(played)}: choose by --stack and --ip")
    screen = _Screen(options, cells, stdout, stderr)
    started_at = datetime.now(UTC)
    started_s = time.monotonic()
    interrupted = False
    results: dict[int, RunResult] = {}
    try:
        play_options = PlayOptions(
            options.tolerance_factor,
            options.trace,
            str(options.pcap) if options.pcap is not None else None,
            options.timeout_s,
        )
        jobs = [(cell, play_options) for cell in cells]
        counts = WorkerCounts.of_this_machine()
        if options.jobs is not None:
            counts = WorkerCounts(options.jobs, options.jobs)
        for number, result in play_all(jobs, counts, options.timeout_s + TIMEOUT_MARGIN_S):
            results[number] = screen.add(number, result)
    except KeyboardInterrupt:
        interrupted = True
    ordered = [results[number] for number in sorted(results)]
    screen.finish(ordered, interrupted, time.monotonic() - started_s)
    if options.junit is not None:
        session = SessionInformation(
            seed=0,
            kernel=platform.release(),
            python=platform.python_version(),
            testbed_version=_own_version(),
            command_line=options.command_line,
            started_at=started_at.isoformat(timespec="seconds"),
            planned_runs=len(cells),
            interrupted=interrupted,
            duration_ms=int((time.monotonic() - started_s) * 1000),
        )
        write_report(options.junit, junit_document(session, ordered))
    return ExitCode.INTERRUPTED if interrupted else _exit_code(ordered)


def _check_options(options: SessionOptions) -> tuple[tuple[str, ...], tuple[IpVersion, ...]]:
    problems = []
    stacks = STACKS if options.stack == "both" else (options.stack,)
    if options.stack not in (*STACKS, "both"):
        problems.append(f"--stack {options.stack}: expected userspace, kernel or both")
    names = [name.strip() for name in options.ip.split(",") if name.strip()]
    unknown = [name for name in names if name not in IP_NAMES]
    if unknown or not names:
        problems.append(f"--ip {options.ip}: expected a list of {', '.join(IP_NAMES)}")
    if options.jobs is not None and not 1 <= options.jobs <= MAXIMUM_JOBS:
        problems.append(f"--jobs {options.jobs}: must be from 1 to {MAXIMUM_JOBS}")
    if not 0 < options.tolerance_factor <= MAXIMUM_TOLERANCE_FACTOR:
        problems.append(f"--tolerance-factor {options.tolerance_factor:g}: must be above 0 and at most 1000")
    if not options.timeout_s > 0:
        problems.append(f"--timeout {options.timeout_s:g}: must be above 0")
    if problems:
        raise UsageError("\n".join(problems))
    return stacks, tuple(dict.fromkeys(IP_NAMES[name] for name in names))


def given_options(options: SessionOptions) -> ScriptOptions:
    """Options of scripts from the command line. Raises UsageError with all problems."""
    given = ScriptOptions()
    complaints = [given.set(name, value) for name, value in options.script_options]
    problems = [complaint[0] for complaint in complaints if complaint is not None]
    if problems:
        raise UsageError("\n".join(problems))
    return given


def _own_version() -> str:
    try:
        return version("mptcp-testbed")
    except PackageNotFoundError:
        return "unknown"


def _exit_code(results: Sequence[RunResult]) -> ExitCode:
    outcomes = {result.outcome for result in results}
    if outcomes & {Outcome.FAIL, Outcome.ERROR}:
        return ExitCode.FAIL
    return ExitCode.PASS if Outcome.PASS in outcomes or not outcomes else ExitCode.SKIP


def _run_of(cell: Cell, options: SessionOptions) -> ScriptRun:
    family = 6 if cell.version is IpVersion.IPV6 else 4
    return ScriptRun(
        cell.path,
        family,
        cell.stack,
        cell.stack,
        0,
        version=cell.version.value,
        script_options=options.script_options,
    )


class _Screen:
    """What is said while the scripts are played, and after it."""

    def __init__(
        self, options: SessionOptions, cells: Sequence[Cell], stdout: TextIO, stderr: TextIO
    ) -> None:
        self._options = options
        self._stdout, self._stderr = stdout, stderr
        self._runs = tuple(_run_of(cell, options) for cell in cells)
        self._stacks = [stack for stack in STACKS if options.stack in (stack, "both")]
        self._repeated = 0
        self._tap = TapWriter(stdout, self._runs, 0, show_notes=options.trace) if options.tap else None
        if self._tap is not None:
            self._tap.start()

    def add(self, number: int, played: PlayResult) -> RunResult:
        self._repeated += played.attempts - 1
        result = RunResult(
            self._runs[number], played.outcome, played.message, duration_ms=played.duration_us // 1000
        )
        if self._tap is not None:
            self._tap.add(replace(result, notes=played.trace))
        else:
            self._say(result, played.trace)
        return result

    def _say(self, result: RunResult, trace: Sequence[str]) -> None:
        name, verbosity = result.run.identifier, self._options.verbosity
        if trace:
            self._stdout.write("".join(f"{line}\n" for line in (f"// {name}", *trace)))
        match result.outcome:
            case Outcome.FAIL | Outcome.ERROR:
                self._stdout.write(f"{result.outcome.value.upper()} {name}\n{result.reason}\n")
            case Outcome.SKIP if verbosity > 0:
                self._stdout.write(f"SKIP {name}: {result.reason}\n")
            case Outcome.PASS if verbosity > 0:
                self._stdout.write(f"PASS {name} ({result.duration_ms} ms)\n")
        self._stdout.flush()

    def finish(self, results: Sequence[RunResult], interrupted: bool, seconds: float) -> None:
        if self._tap is not None:
            self._tap.finish(interrupted=interrupted)
        # Standard output is TAP's alone.
        stream = self._stderr if self._tap is not None else self._stdout
        if self._options.verbosity >= 0:
            if self._repeated:
                stream.write(
                    f"{self._repeated} runs on the kernel played again: the machine was late in them\n"
                )
            missing = len(self._runs) - len(results)
            tail = f", {missing} not played" if missing else ""
            stream.write(f"{len(results)} runs in {seconds:.1f} s{tail}\n")
        stream.writelines(_count_line(stack, results) for stack in self._stacks)
        stream.flush()


def _count_line(stack: str, results: Sequence[RunResult]) -> str:
    """What other programs read, always in this form. What broke off has failed."""
    counts = Counter(result.outcome for result in results if result.run.stacks == stack)
    failed = counts[Outcome.FAIL] + counts[Outcome.ERROR]
    return f"{stack}: {counts[Outcome.PASS]} passed, {failed} failed, {counts[Outcome.SKIP]} skipped\n"
