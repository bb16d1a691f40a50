"""Run records: one JSON line for each run, which holds all that is known of it and needs no other line.

The schema is the dataclasses; :func:`read_records` refuses what does not fit, with file and line. Version 1
may gain keys with defaults; a reader that is too old for a key says so.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TextIO

from testbed.errors import TestbedError
from testbed.host.messages import MessageError, decode_line, from_json
from testbed.selftests.results import HostRecord, Run, RunResult, SessionInformation

SCHEMA = "mptcp-testbed-run"
SCHEMA_VERSION = 1
MAXIMUM_PROBLEMS = 20


class RecordError(TestbedError):
    """A file of records that cannot be read; every problem with file and line."""


@dataclass(frozen=True, slots=True)
class Software:
    """What played the run."""

    project: str
    python: str
    kernel: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One line."""

    session_seed: int
    software: Software
    result: RunResult


def this_software() -> Software:
    """The versions of this process."""
    project = "unknown"
    with suppress(PackageNotFoundError):
        project = version("mptcp-testbed")
    return Software(project, platform.python_version(), f"{platform.system()} {platform.release()}")


def record_line(record: RunRecord) -> str:
    """One JSON line with its end; the same record always gives the same bytes."""
    document = {
        "schema": SCHEMA,
        "version": SCHEMA_VERSION,
        "id": record.result.run.identifier,
        **dataclasses.asdict(record),
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n"


def with_moved_counters(result: RunResult) -> RunResult:
    """Only the counters that the run moved, before and after it."""
    return replace(result, hosts=tuple(_moved(host) for host in result.hosts))


def _moved(host: HostRecord) -> HostRecord:
    names = host.moved_counters()
    return replace(
        host,
        counters_before={name: host.counters_before.get(name, 0) for name in names},
        counters_after={name: host.counters_after[name] for name in names},
    )


class RecordWriter:
    """Writes records in the order of the plan, each as soon as all before it are there.

    So two sessions over the same plan give files that can be compared line by line.
    """

    def __init__(
        self, stream: TextIO, runs: Sequence[Run], session_seed: int, *, all_counters: bool = False
    ) -> None:
        self._stream = stream
        self._order = [run.identifier for run in runs]
        self._session_seed = session_seed
        self._all_counters = all_counters
        self._software = this_software()
        self._pending: dict[str, RunResult] = {}
        self._written = 0

    def add(self, result: RunResult) -> None:
        """Raises OSError."""
        self._pending[result.run.identifier] = result
        while self._written < len(self._order) and self._order[self._written] in self._pending:
            self._write_next()
        self._stream.flush()

    def finish(self) -> None:
        """What waited for a run that never ended. Raises OSError."""
        while self._written < len(self._order):
            if self._order[self._written] in self._pending:
                self._write_next()
            else:
                self._written += 1
        self._stream.flush()

    def give_up(self) -> None:
        """Close the file that cannot be written any more."""
        with suppress(OSError):
            self._stream.close()

    def _write_next(self) -> None:
        result = self._pending.pop(self._order[self._written])
        self._written += 1
        if not self._all_counters:
            result = with_moved_counters(result)
        self._stream.write(record_line(RunRecord(self._session_seed, self._software, result)))


def read_records(paths: Iterable[Path]) -> list[RunRecord]:
    """Every record of every file, in order. Raises RecordError with all problems at once."""
    records: list[RunRecord] = []
    problems: list[str] = []
    for path in paths:
        try:
            lines = path.read_bytes().splitlines()
        except OSError as error:
            problems.append(f"{path}: {error.strerror or error}")
            continue
        if not any(line.strip() for line in lines):
            problems.append(f"{path}: holds no records")
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                records.append(parse_record(line))
            except MessageError as error:
                problems.append(f"{path}:{number}: {error}")
    if problems:
        shown = problems[:MAXIMUM_PROBLEMS]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more problems")
        raise RecordError("\n".join(shown))
    return records


def parse_record(line: bytes) -> RunRecord:
    """Raises MessageError."""
    document = decode_line(line)
    schema, number = document.pop("schema", None), document.pop("version", None)
    if schema != SCHEMA:
        raise MessageError(f"no run record: its schema is {schema!r:.60}, not {SCHEMA!r}")
    if number != SCHEMA_VERSION:
        raise MessageError(f"version {number!r:.60} of the schema; this testbed reads {SCHEMA_VERSION}")
    document.pop("id", None)
    return from_json(RunRecord, document)


def session_of(records: Sequence[RunRecord]) -> SessionInformation:
    """What the reports say about a whole session, as far as its records tell."""
    if not records:
        raise ValueError("no records")
    first = records[0]
    starts = sorted(record.result.started_at for record in records if record.result.started_at)
    return SessionInformation(
        seed=first.session_seed,
        kernel=first.software.kernel,
        python=first.software.python,
        testbed_version=first.software.project,
        command_line=(),
        started_at=starts[0] if starts else "",
        planned_runs=len(records),
        duration_ms=sum(record.result.duration_ms for record in records),
    )
