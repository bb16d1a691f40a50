"""Plays many scripts at once, each in a worker process, which may die or hang without harm to the others.

A script on the kernel mostly waits, so that more of them are played at once than there are processors. One
that failed while the machine was measurably late (:mod:`testbed.packetdrill.lateness_probe`) is played again
when all others are done, with fewer beside it; its result says how often.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from testbed.packetdrill.lateness_probe import LatenessProbe, LatenessRecord
from testbed.packetdrill.playing import PlayOptions, PlayResult, play_cell
from testbed.packetdrill.suite import Cell
from testbed.selftests.results import Outcome

DEFAULT_TIMEOUT_S = 60.0
TIMEOUT_MARGIN_S = 3.0
"""A worker ends its script itself; this much later it is ended."""
TEARDOWN_LIMIT_S = 5.0
KERNEL_RUNS_PER_PROCESSOR = 3
MAXIMUM_ATTEMPTS = 5

Job = tuple[Cell, PlayOptions]
Numbered = tuple[int, PlayResult]


@dataclass(frozen=True, slots=True)
class WorkerCounts:
    """How many scripts are played at once."""

    userspace: int
    kernel: int

    @classmethod
    def of_this_machine(cls) -> WorkerCounts:
        processors = os.cpu_count() or 1
        return cls(processors, KERNEL_RUNS_PER_PROCESSOR * processors)


class _Worker:
    """A process and the job that it is at. It has all jobs from its birth: only numbers are sent to it."""

    def __init__(self, jobs: Sequence[Job], lateness: LatenessRecord | None) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_work, args=(jobs, lateness, theirs, self.connection, os.getpid()), daemon=True
        )
        self.process.start()
        theirs.close()
        self.number: int | None = None
        self.deadline_s = 0.0

    def start(self, number: int, timeout_s: float) -> None:
        self.number = number
        self.deadline_s = time.monotonic() + timeout_s
        self.connection.send(number)

    def end(self) -> None:
        """SIGTERM lets it undo what it made; whoever does not heed it is killed."""
        self.process.terminate()
        self.process.join(TEARDOWN_LIMIT_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


def play_all(
    jobs: Sequence[Job], counts: WorkerCounts, timeout_s: float = DEFAULT_TIMEOUT_S
) -> Iterator[Numbered]:
    """The results with the positions of their jobs, as they come; ``timeout_s`` is for a worker's run.

    A worker that takes longer, which one whose job has a time-out of its own should not, is ended.
    """
    # What the workers need is there before they are made, instead of once in each.
    importlib.import_module("testbed.packetdrill.userspace_stack")
    of_kernel = [
        number for number, (cell, _) in enumerate(jobs) if cell.stack == "kernel" and cell.skip_reason is None
    ]
    others = sorted(set(range(len(jobs))) - set(of_kernel))
    yield from _Pool(jobs, timeout_s, None).play(others, counts.userspace)
    if of_kernel:
        probe = LatenessProbe()
        try:
            yield from _play_until_conclusive(_Pool(jobs, timeout_s, probe.record), of_kernel, counts.kernel)
        finally:
            probe.close()


def _play_until_conclusive(pool: _Pool, numbers: Sequence[int], worker_count: int) -> Iterator[Numbered]:
    """What is played again because the machine was late is played with less and less beside it."""
    waiting = list(numbers)
    for attempt in range(1, MAXIMUM_ATTEMPTS + 1):
        inconclusive = []
        for number, result in pool.play(waiting, worker_count):
            if result.is_inconclusive and attempt < MAXIMUM_ATTEMPTS:
                inconclusive.append(number)
            else:
                yield number, _with_attempts(result, attempt)
        waiting = sorted(inconclusive)
        worker_count = max(1, worker_count // 2)


def _with_attempts(result: PlayResult, attempts: int) -> PlayResult:
    if not result.is_inconclusive:
        return replace(result, attempts=attempts)
    said = f"  the machine was late in each of {attempts} attempts, in this by {result.late_us / 1000:.1f} ms"
    return replace(result, attempts=attempts, message=f"{result.message}\n{said}")


class _Pool:
    """Plays some of the jobs with as many workers as it is told."""

    def __init__(self, jobs: Sequence[Job], timeout_s: float, lateness: LatenessRecord | None) -> None:
        self._jobs = jobs
        self._timeout_s = timeout_s
        self._lateness = lateness
        self._workers: list[_Worker] = []
        self._waiting: Iterator[int] = iter(())

    def play(self, numbers: Sequence[int], worker_count: int) -> Iterator[Numbered]:
        self._waiting = iter(numbers)
        try:
            for _ in range(max(0, min(worker_count, len(numbers)))):
                self._workers.append(_Worker(self._jobs, self._lateness))
            self._give_work()
            while any(worker.number is not None for worker in self._workers):
                yield from self._wait_for_some()
                self._give_work()
        finally:
            for worker in self._workers:
                worker.end()
            self._workers.clear()

    def _give_work(self) -> None:
        for worker in self._workers:
            if worker.number is None:
                following = next(self._waiting, None)
                if following is None:
                    return
                worker.start(following, self._timeout_s)

    def _wait_for_some(self) -> list[Numbered]:
        """At least one result, or none if there was nothing but a spurious wake-up."""
        busy = [worker for worker in self._workers if worker.number is not None]
        remaining_s = min(worker.deadline_s for worker in busy) - time.monotonic()
        ready = set(map(id, wait([worker.connection for worker in busy], max(0.0, remaining_s))))
        results = []
        for worker in busy:
            result: PlayResult | None = None
            if id(worker.connection) in ready:
                result = _result_of(worker)
            elif time.monotonic() >= worker.deadline_s:
                path = self._jobs[worker.number or 0][0].path
                result = PlayResult(Outcome.ERROR, f"{path}: the script did not end in time")
            if result is None or worker.number is None:
                continue
            results.append((worker.number, result))
            worker.number = None
            if result.outcome is Outcome.ERROR and not result.duration_us:
                worker.end()
                self._workers[self._workers.index(worker)] = _Worker(self._jobs, self._lateness)
        return results


def _result_of(worker: _Worker) -> PlayResult:
    try:
        received = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join(TEARDOWN_LIMIT_S)
        return PlayResult(Outcome.ERROR, f"its process died (exit status {worker.process.exitcode})")
    if not isinstance(received, PlayResult):
        raise AssertionError("workers send results")
    return received


def _work(
    jobs: Sequence[Job],
    lateness: LatenessRecord | None,
    connection: Connection,
    other_end: Connection,
    parent: int,
) -> None:
    """The worker's side: one job after the other, until the runner is gone."""
    other_end.close()
    # What an interrupt from the terminal means is for the runner to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    # What all share is not looked through again and again, at times when a script has to be on time.
    gc.freeze()
    with suppress(EOFError, OSError):
        while os.getppid() == parent:
            cell, options = jobs[connection.recv()]
            connection.send(play_cell(cell, options, lateness))


def _leave(_number: int, _frame: object) -> None:
    """Stacks close themselves on the way out, which a second signal must not break off."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(143)
