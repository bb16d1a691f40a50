"""What a selftest run leaves behind: its checks, the counters of both ends and how long it took.

These records travel as JSON from the process that ran the case to the one that reports it, and into the JSON
report; :func:`result_to_json` and :func:`result_from_json` are each other's inverse.
"""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from testbed.host.messages import from_json
from testbed.selftests.observations import TimelineEvent, TopologyRecord, TransferRecord

DEFAULT = "default"
"""The value of an axis that leaves things as they are."""


class Outcome(StrEnum):
    """What became of a run, or of one check in it."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"
    ERROR = "error"
    """Runs only: the case could not be judged, because its lab or the harness broke."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that had to hold."""

    subject: str
    """What was looked at: ``client MPJoinSynTx``, ``client to server: bytes``."""
    expected: str
    observed: str
    outcome: Outcome
    reason: str = ""
    """Why it was skipped; empty otherwise."""

    def __str__(self) -> str:
        if self.outcome is Outcome.SKIP:
            return f"{self.subject}: not checked, {self.reason}"
        return f"{self.subject}: expected {self.expected}, observed {self.observed}"


@dataclass(frozen=True, slots=True)
class HostRecord:
    """One end of a run: its counters under nstat's names, and its sockets as the failure found them."""

    host: str
    stack: str
    counters_before: dict[str, int] = field(default_factory=dict)
    counters_after: dict[str, int] = field(default_factory=dict)
    sockets: tuple[str, ...] = ()
    """Lines of text; taken only when something went wrong."""

    def counter_delta(self) -> dict[str, int]:
        """What the run added to each counter that exists, zeros included."""
        return {
            name: value - self.counters_before.get(name, 0) for name, value in self.counters_after.items()
        }

    def moved_counters(self) -> dict[str, int]:
        """The counters that did not stay as they were."""
        return {name: delta for name, delta in self.counter_delta().items() if delta}


@dataclass(frozen=True, slots=True)
class Run:
    """One cell of the matrix: a case, an IP family, and the stacks of client and server."""

    case: str
    """Group and name: ``join/single-subflow``."""
    family: int
    """4 or 6."""
    client_stack: str
    server_stack: str
    seed: int
    """Of everything random in this run; derived from the session's seed and the identifier."""
    repetition: int = 1
    backend: str = "namespaces"
    addressing: str = ""
    """Empty, or ``4-mapped`` or ``mixed``: see :data:`testbed.selftests.axes.ADDRESSINGS`."""
    scheduler: str = DEFAULT
    congestion_control: str = DEFAULT
    checksum: bool = False
    """Whether both ends ask for the checksum of DSS."""
    impairment: str = "none"
    """One of :data:`testbed.selftests.presets.PRESETS`."""

    @property
    def stacks(self) -> str:
        return f"{self.client_stack}-{self.server_stack}"

    @property
    def identifier(self) -> str:
        """The stable name, also accepted by ``testbed selftest``: ``join/no-join[4,kernel-kernel]``."""
        axes = (self.family_name, self.stacks, *self.axes)
        repeated = (f"repetition-{self.repetition}",) if self.repetition > 1 else ()
        return f"{self.case}[{','.join((*axes, *repeated))}]"

    @property
    def family_name(self) -> str:
        """As ``--family`` calls it."""
        return self.addressing or str(self.family)

    @property
    def axes(self) -> tuple[str, ...]:
        """What sets it apart from the run with every axis at its default, as identifiers say it."""
        return tuple(
            text
            for text, is_said in (
                (self.backend, self.backend != "namespaces"),
                (f"scheduler={self.scheduler}", self.scheduler != DEFAULT),
                (f"congestion={self.congestion_control}", self.congestion_control != DEFAULT),
                ("checksum", self.checksum),
                (f"impair={self.impairment}", self.impairment != "none"),
            )
            if is_said
        )

    @property
    def command(self) -> str:
        """The command that plays such runs; reports are named after it."""
        return "selftest"

    @property
    def group(self) -> str:
        return self.case.partition("/")[0]

    @property
    def name(self) -> str:
        """Within its group."""
        repeated = f" (repetition {self.repetition})" if self.repetition > 1 else ""
        return self.case.partition("/")[2] + repeated

    @property
    def suite(self) -> str:
        """What it shares with the runs that a report shows together with it."""
        return ", ".join((self.stacks, f"IPv{self.family_name}", *self.axes))

    def replay_command(self, session_seed: int) -> str:
        """The command line that plays this very run again."""
        options = "".join(
            f" {option} {value}"
            for option, value, is_said in (
                ("--repeat", self.repetition, self.repetition > 1),
                ("--family", self.family_name, self.addressing),
                ("--backend", self.backend, self.backend != "namespaces"),
                ("--scheduler", self.scheduler, self.scheduler != DEFAULT),
                ("--congestion", self.congestion_control, self.congestion_control != DEFAULT),
                ("--checksum", "on", self.checksum),
                ("--impair", self.impairment, self.impairment != "none"),
            )
            if is_said
        )
        return f"testbed selftest {shlex.quote(self.identifier)} --seed {session_seed}{options}"


@dataclass(frozen=True, slots=True)
class RunResult:
    """How one run went."""

    run: Run
    outcome: Outcome
    reason: str = ""
    """Why it was skipped or could not be judged, or what stopped it; one line or more."""
    duration_ms: int = 0
    """From the first step of the case to its last check; without building and undoing the lab."""
    setup_ms: int = 0
    checks: tuple[Check, ...] = ()
    hosts: tuple[HostRecord, ...] = ()
    """Client, then server; empty when the lab did not come up."""
    notes: tuple[str, ...] = ()
    """Measurements worth keeping: bytes per path, throughput."""
    captures: tuple[str, ...] = ()
    """Paths of packet captures."""
    started_at: str = ""
    """ISO 8601, UTC; empty in virtual time, which begins anew with every run."""
    transfers: tuple[TransferRecord, ...] = ()
    events: tuple[TimelineEvent, ...] = ()
    topology: TopologyRecord | None = None
    logs: tuple[str, ...] = ()
    """Lines of the hosts' agents, each after its host's name; taken only when something went wrong."""

    def failed_checks(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.outcome is Outcome.FAIL)

    def skipped_checks(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.outcome is Outcome.SKIP)


@dataclass(frozen=True, slots=True)
class Totals:
    """How many runs ended how."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    errors: int = 0

    def plus(self, outcome: Outcome) -> Totals:
        return Totals(
            self.passed + (outcome is Outcome.PASS),
            self.failed + (outcome is Outcome.FAIL),
            self.skipped + (outcome is Outcome.SKIP),
            self.errors + (outcome is Outcome.ERROR),
        )

    @property
    def all(self) -> int:
        return self.passed + self.failed + self.skipped + self.errors


@dataclass(frozen=True, slots=True)
class SessionInformation:
    """What a report says about the whole session, so that it can be repeated."""

    seed: int
    kernel: str
    python: str
    testbed_version: str
    command_line: tuple[str, ...]
    started_at: str
    """ISO 8601, UTC."""
    planned_runs: int
    interrupted: bool = False
    duration_ms: int = 0
    """Of the whole session."""


def run_to_json(run: Run) -> dict[str, Any]:
    return dataclasses.asdict(run)


def run_from_json(document: object) -> Run:
    """Raises MessageError for a document with missing or unknown keys, or values of another type."""
    return from_json(Run, document)


def result_to_json(result: RunResult) -> dict[str, Any]:
    return dataclasses.asdict(result)


def result_from_json(document: object) -> RunResult:
    """Raises MessageError, with every problem, for what :func:`result_to_json` does not write."""
    return from_json(RunResult, document)
