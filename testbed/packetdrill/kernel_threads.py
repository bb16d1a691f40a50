"""Threads that live in a network namespace of their own, and the jobs that they do.

The namespace has no name and no process: it belongs to the threads and to what they opened, so the kernel
takes it away with them, even after ``kill -9``. The rest of the process stays where it is.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

from testbed.backend.system import CLONE_NEWNET, setns, unshare
from testbed.errors import CapabilityError

Outcome = TypeVar("Outcome")

_FUTEX_NUMBERS = {"x86_64": 202, "i686": 240, "armv7l": 240, "ppc64le": 221, "s390x": 238}
_FUTEX_OF_OTHERS = 98
"""What newer architectures share."""

_SAMPLE_SECONDS = 0.000_3
_ASLEEP_SAMPLES = 3
"""A thread may sleep for a moment in a call that does not block, for a lock."""
_LONGEST_START_SECONDS = 0.02
"""After that a call counts as blocking even where the kernel does not tell."""


class Job(Generic[Outcome]):
    """Something that a thread of the namespace does."""

    def __init__(self, function: Callable[[], Outcome]) -> None:
        self._function = function
        self._done = threading.Event()
        self._outcome: list[Outcome] = []
        self._error: BaseException | None = None
        self._thread_id = 0

    def run(self) -> None:
        """In the thread that does it; `finish` has to follow."""
        self._thread_id = threading.get_native_id()
        try:
            self._outcome.append(self._function())
        except BaseException as error:
            self._error = error
        self._thread_id = 0

    def finish(self) -> None:
        """Lets those go on who wait for it."""
        self._done.set()

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    @property
    def succeeded(self) -> bool:
        return self._error is None

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it is done, waiting at most so long."""
        return self._done.wait(seconds)

    def outcome(self) -> Outcome:
        """What the function returned; raises what it raised. Only when it is done."""
        if self._error is not None:
            raise self._error
        return self._outcome[0]

    def wait_until_done_or_blocked(self) -> None:
        """Returns as soon as the job is done, or sleeps in a system call."""
        asleep = 0
        for _ in range(round(_LONGEST_START_SECONDS / _SAMPLE_SECONDS)):
            if self._done.wait(_SAMPLE_SECONDS):
                return
            asleep = asleep + 1 if self._sleeps_in_kernel() else 0
            if asleep == _ASLEEP_SAMPLES:
                return

    def _sleeps_in_kernel(self) -> bool:
        thread = self._thread_id
        if not thread:
            return False
        try:
            call = Path(f"/proc/self/task/{thread}/syscall").read_text().split()[0]
        except (OSError, IndexError):
            return False
        # Waiting for the interpreter's lock is not what the script's call does.
        return call not in ("running", str(_FUTEX_NUMBERS.get(platform.machine(), _FUTEX_OF_OTHERS)))


class _Runnable(Protocol):
    """Jobs of any outcome."""

    def run(self) -> None: ...

    def finish(self) -> None: ...


class NamespaceThreads:
    """As many threads as there are jobs at once, all in one new network namespace.

    Raises CapabilityError where a namespace cannot be made.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Runnable | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._lock = threading.Lock()
        self._namespace = -1
        self._closed = False
        try:
            self._namespace = self._start_thread(self._make_namespace)
        except OSError as error:
            self.close()
            raise CapabilityError(
                f"the kernel's stack needs a network namespace of its own: {error.strerror}; it takes root,"
                " or a user namespace"
            ) from error
        with self._lock:
            self._idle += 1

    @staticmethod
    def _make_namespace() -> int:
        unshare(CLONE_NEWNET)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def _enter_namespace(self) -> int:
        setns(self._namespace, CLONE_NEWNET)
        return self._namespace

    @property
    def namespace_inode(self) -> int:
        """What tells the namespace from others, as /proc has it."""
        return os.fstat(self._namespace).st_ino

    def submit(self, function: Callable[[], Outcome]) -> Job[Outcome]:
        """Has the function called in the namespace, at once. Raises RuntimeError after `close`."""
        job = Job(function)
        with self._lock:
            if self._closed:
                raise RuntimeError("the namespace is closed")
            needs_thread = self._idle == 0
            if not needs_thread:
                self._idle -= 1
        if needs_thread:
            self._start_thread(self._enter_namespace)
        self._jobs.put(job)
        return job

    def run(self, function: Callable[[], Outcome]) -> Outcome:
        """Calls the function in the namespace and waits for it; raises what it raises."""
        job = self.submit(function)
        job.wait()
        return job.outcome()

    def close(self, seconds: float = 5.0) -> None:
        """Ends the threads, waiting at most so long; whatever blocks them is to be undone before."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(seconds)
        if self._namespace >= 0:
            os.close(self._namespace)

    def _start_thread(self, move: Callable[[], int]) -> int:
        """``move`` brings the thread into the namespace; returns what it returned, raises what it raised."""
        entry = Job(move)
        thread = threading.Thread(target=self._work, args=(entry,), name="packet script", daemon=True)
        self._threads.append(thread)
        thread.start()
        entry.wait()
        return entry.outcome()

    def _work(self, entry: Job[int]) -> None:
        entry.run()
        entry.finish()
        if not entry.succeeded:
            return
        while (job := self._jobs.get()) is not None:
            job.run()
            # Before the job counts as done, or its waiter's next job would get a thread of its own.
            with self._lock:
                self._idle += 1
            job.finish()
