"""Play many runs at once, each in a worker process, and hand over the results as they come.

One thread: it waits for results, deaths, deadlines and interrupts in a single ``select``. Workers are
processes because a case moves between network namespaces and blocks, and so that nothing that breaks in one
run can reach another.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from types import FrameType

from testbed.host.messages import MessageError
from testbed.selftests.jobs import Job, job_to_json
from testbed.selftests.results import Outcome, Run, RunResult, result_from_json

LAST_RESORT_S = 30.0
"""A worker that stays silent for this long beyond its run's own timeout is killed."""
TEARDOWN_LIMIT_S = 20.0
"""What workers get to undo their labs after an interrupt."""
RUNS_ASIDE = 2
"""Runs that mostly wait, beside the others."""
_STDERR_TAIL_BYTES = 4000
_POLL_S = 0.05

LabRemover = Callable[[str], None]
"""Undoes the lab of this name, if there is one; for labs whose worker was killed."""


@dataclass(frozen=True, slots=True)
class Observer:
    """Who wants to know as it happens."""

    started: Callable[[Run], None]
    finished: Callable[[RunResult], None]
    tick: Callable[[], None]
    """Called at least every :data:`TICK_S`."""


TICK_S = 0.2


class _Worker:
    """One worker process and what it is doing."""

    def __init__(self, command: Sequence[str]) -> None:
        self._files = ExitStack()
        self._errors = os.memfd_create("selftest worker's standard error")
        self._files.callback(os.close, self._errors)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # out of reach of the terminal's Ctrl-C: the runner decides when it ends
            start_new_session=True,
        )
        if self.process.stdin is None or self.process.stdout is None:
            raise AssertionError("asked for pipes")
        self.stdin = self._files.enter_context(self.process.stdin)
        self.stdout = self._files.enter_context(self.process.stdout)
        os.set_blocking(self.stdout.fileno(), False)
        self.job: Job | None = None
        self.deadline = 0.0
        self._buffer = b""

    def give(self, job: Job) -> None:
        self.job = job
        self.deadline = time.monotonic() + job.timeout_s + LAST_RESORT_S
        try:
            self.stdin.write(json.dumps(job_to_json(job)).encode() + b"\n")
            self.stdin.flush()
        except BrokenPipeError:
            # it died: its standard output says so next
            return

    def read_lines(self) -> tuple[list[bytes], bool]:
        """Complete lines that have arrived, and whether the worker has gone."""
        is_over = False
        try:
            while not is_over:
                chunk = os.read(self.stdout.fileno(), 65536)
                self._buffer += chunk
                is_over = not chunk
        except BlockingIOError:
            # that was all for now
            is_over = False
        *lines, self._buffer = self._buffer.split(b"\n")
        return lines, is_over

    def last_words(self) -> str:
        """The end of what it wrote to standard error."""
        size = os.fstat(self._errors).st_size
        tail = os.pread(self._errors, _STDERR_TAIL_BYTES, max(0, size - _STDERR_TAIL_BYTES))
        return tail.decode(errors="replace").strip()

    def close(self) -> None:
        # what was still to be written to a dead process
        with suppress(BrokenPipeError):
            self._files.close()


class Place(Enum):
    """What a run needs of the machine."""

    ORDINARY = auto()
    """One of the places for ``jobs`` runs."""
    ASIDE = auto()
    """None of them, as it waits most of the time."""
    ALONE = auto()
    """All of it, when the others are done."""


class Runner:
    """Plays runs in ``jobs`` workers. :meth:`play` may be called once."""

    def __init__(
        self,
        *,
        jobs: int,
        timeout_s: float,
        observer: Observer,
        remove_lab: LabRemover,
        capture_directory: str | None = None,
        place: Callable[[Run], Place] = lambda _run: Place.ORDINARY,
        maximum_failures: int | None = None,
        worker_command: Sequence[str] = (sys.executable, "-m", "testbed.selftests.worker"),
    ) -> None:
        """Beside ``jobs`` runs there are ``RUNS_ASIDE`` whose place is aside, unless ``jobs`` is 1.

        After ``maximum_failures`` runs that failed or could not be judged, those that have not begun are left
        out.
        """
        self._jobs = jobs
        self._timeout_s = timeout_s
        self._observer = observer
        self._remove_lab = remove_lab
        self._capture_directory = capture_directory
        self._place = place
        self._failures_left = maximum_failures
        self._worker_command = worker_command
        self._selector = selectors.DefaultSelector()
        self._workers: list[_Worker] = []
        self._waiting: dict[Place, deque[Run]] = {place: deque() for place in Place}
        self._labs = 0
        self.interrupts = 0
        """How often the user or the system asked to stop."""

    def play(self, runs: Sequence[Run]) -> list[RunResult]:
        """The results in the order in which they came; fewer than runs after an interrupt."""
        for run in runs:
            self._waiting[self._place_of(run)].append(run)
        results: list[RunResult] = []
        with ExitStack() as undo:
            undo.callback(self._selector.close)
            undo.enter_context(self._interrupts_counted())
            undo.callback(self._end_workers)
            while not self.interrupts:
                self._employ()
                if not self._workers:
                    break
                self._selector.select(TICK_S)
                for worker in list(self._workers):
                    news = self._attend(worker)
                    results.extend(news)
                    self._count_failures(news)
                self._observer.tick()
        return results

    def _place_of(self, run: Run) -> Place:
        place = self._place(run)
        return Place.ORDINARY if place is Place.ASIDE and self._jobs == 1 else place

    def _employ(self) -> None:
        """Give every idle worker a run, hire whom more runs need, and let go whom nothing is left for."""
        idle = [worker for worker in self._workers if worker.job is None]
        while (run := self._next_run()) is not None:
            self._assign(idle.pop() if idle else self._hire(), run)
        if not any(self._waiting.values()):
            for worker in idle:
                self._dismiss(worker)

    def _hire(self) -> _Worker:
        worker = _Worker(self._worker_command)
        self._workers.append(worker)
        self._selector.register(worker.stdout, selectors.EVENT_READ)
        return worker

    def _next_run(self) -> Run | None:
        """Taken from those that wait; None while none may begin beside those that are under way."""
        busy = [self._place_of(worker.job.run) for worker in self._workers if worker.job is not None]
        if Place.ALONE in busy:
            return None
        for place, limit in ((Place.ASIDE, RUNS_ASIDE), (Place.ORDINARY, self._jobs)):
            if self._waiting[place] and busy.count(place) < limit:
                return self._waiting[place].popleft()
        return self._waiting[Place.ALONE].popleft() if not busy and self._waiting[Place.ALONE] else None

    def _count_failures(self, results: Sequence[RunResult]) -> None:
        if self._failures_left is None:
            return
        self._failures_left -= sum(result.outcome in (Outcome.FAIL, Outcome.ERROR) for result in results)
        if self._failures_left <= 0:
            for runs in self._waiting.values():
                runs.clear()

    def _assign(self, worker: _Worker, run: Run) -> None:
        self._labs += 1
        lab = f"selftest-{os.getpid()}-{self._labs}"
        self._observer.started(run)
        worker.give(Job(run, lab, self._timeout_s, self._capture_directory))

    def _attend(self, worker: _Worker) -> list[RunResult]:
        """What a worker has to say: its results, or why there is none."""
        lines, is_over = worker.read_lines()
        results = []
        for line in lines:
            results.append(self._understand(worker, line))
            worker.job = None
        if worker.job is not None:
            if is_over:
                results.append(self._bury(worker, "its worker process died"))
            elif time.monotonic() > worker.deadline:
                results.append(self._bury(worker, "its worker process did not answer and was killed"))
        elif is_over:
            self._dismiss(worker)
        for result in results:
            self._observer.finished(result)
        return results

    def _understand(self, worker: _Worker, line: bytes) -> RunResult:
        if worker.job is None:
            raise AssertionError("a worker answered without being asked")
        try:
            return result_from_json(json.loads(line))
        except (ValueError, MessageError) as error:
            return RunResult(
                worker.job.run, Outcome.ERROR, f"its worker gave an answer that is none: {error}"
            )

    def _bury(self, worker: _Worker, reason: str) -> RunResult:
        """A worker without a result: make sure that it is dead, and undo what it was working in."""
        if worker.job is None:
            raise AssertionError("an idle worker owes nothing")
        job = worker.job
        worker.process.kill()
        status = worker.process.wait()
        words = worker.last_words()
        self._dismiss(worker)
        self._remove_lab(job.lab)
        detail = f"\n{words}" if words else ""
        return RunResult(job.run, Outcome.ERROR, f"{reason} (exit status {status}){detail}")

    def _dismiss(self, worker: _Worker) -> None:
        """Close its input, at which it ends."""
        self._workers.remove(worker)
        self._selector.unregister(worker.stdout)
        worker.close()
        try:
            worker.process.wait(TEARDOWN_LIMIT_S)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()

    def _end_workers(self) -> None:
        """Whoever is still at work undoes its lab; a second interrupt or the limit kills it."""
        for worker in self._workers:
            worker.process.terminate()
        deadline = time.monotonic() + TEARDOWN_LIMIT_S
        for worker in list(self._workers):
            while worker.process.poll() is None:
                if time.monotonic() > deadline or self.interrupts > 1:
                    worker.process.kill()
                    worker.process.wait()
                else:
                    time.sleep(_POLL_S)
            job = worker.job
            self._dismiss(worker)
            if job is not None:
                self._remove_lab(job.lab)

    @contextmanager
    def _interrupts_counted(self) -> Iterator[None]:
        """SIGINT and SIGTERM are counted instead of raised, so that they cannot tear a step in two."""
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        reader.setblocking(False)

        def count(_number: int, _frame: FrameType | None) -> None:
            self.interrupts += 1

        previous_descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        previous = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
        self._selector.register(reader, selectors.EVENT_READ)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(previous_descriptor)
            reader.close()
            writer.close()
