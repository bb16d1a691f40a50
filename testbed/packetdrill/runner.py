"""Plays many scripts at once, each in a worker process, which may die or hang without harm to the others."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from testbed.packetdrill.playing import PlayOptions, PlayResult, play_cell
from testbed.packetdrill.suite import Cell
from testbed.selftests.results import Outcome

DEFAULT_TIMEOUT_S = 60.0
TEARDOWN_LIMIT_S = 5.0

Job = tuple[Cell, PlayOptions]


class _Worker:
    """A process and the cell that it is at."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_work, args=(theirs, self.connection, os.getpid()), daemon=True
        )
        self.process.start()
        theirs.close()
        self.number: int | None = None
        self.deadline_s = 0.0

    def start(self, number: int, job: Job, timeout_s: float) -> None:
        self.number = number
        self.deadline_s = time.monotonic() + timeout_s
        self.connection.send(job)

    def end(self) -> None:
        """SIGTERM lets it undo what it made; whoever does not heed it is killed."""
        self.process.terminate()
        self.process.join(TEARDOWN_LIMIT_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


def play_all(
    jobs: Sequence[Job], worker_count: int, timeout_s: float = DEFAULT_TIMEOUT_S
) -> Iterator[tuple[int, PlayResult]]:
    """The results with the positions of their jobs, as they come."""
    # What the workers need is there before they are made, instead of once in each.
    importlib.import_module("testbed.packetdrill.userspace_stack")
    waiting = iter(enumerate(jobs))
    workers = [_Worker() for _ in range(max(1, min(worker_count, len(jobs))))]
    busy: list[_Worker] = []
    try:
        for worker in workers:
            _give_next(worker, waiting, busy, timeout_s)
        while busy:
            yield from _wait_for_some(workers, busy)
            for worker in workers:
                if worker.number is None:
                    _give_next(worker, waiting, busy, timeout_s)
    finally:
        for worker in workers:
            worker.end()


def _give_next(
    worker: _Worker, waiting: Iterator[tuple[int, Job]], busy: list[_Worker], timeout_s: float
) -> None:
    following = next(waiting, None)
    if following is not None:
        worker.start(following[0], following[1], timeout_s)
        busy.append(worker)


def _wait_for_some(workers: list[_Worker], busy: list[_Worker]) -> list[tuple[int, PlayResult]]:
    """At least one result, or none if there was nothing but a spurious wake-up."""
    remaining_s = min(worker.deadline_s for worker in busy) - time.monotonic()
    ready = set(map(id, wait([worker.connection for worker in busy], max(0.0, remaining_s))))
    results = []
    for worker in list(busy):
        result: PlayResult | None = None
        if id(worker.connection) in ready:
            result = _result_of(worker)
        elif time.monotonic() >= worker.deadline_s:
            result = PlayResult(Outcome.ERROR, "its script did not end in time")
        if result is None or worker.number is None:
            continue
        results.append((worker.number, result))
        busy.remove(worker)
        worker.number = None
        if result.outcome is Outcome.ERROR and not result.duration_us:
            worker.end()
            workers[workers.index(worker)] = _Worker()
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


def _work(connection: Connection, other_end: Connection, parent: int) -> None:
    """The worker's side: one job after the other, until the runner is gone."""
    other_end.close()
    # What an interrupt from the terminal means is for the runner to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    with suppress(EOFError, OSError):
        while os.getppid() == parent:
            cell, options = connection.recv()
            connection.send(play_cell(cell, options))


def _leave(_number: int, _frame: object) -> None:
    """Stacks close themselves on the way out."""
    raise SystemExit(143)
