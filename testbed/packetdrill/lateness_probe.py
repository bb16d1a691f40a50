"""Measures how late this machine is: its kernel's timers, and threads that one of them wakes.

A script on the kernel is judged by when the kernel's timers fire. On a busy or a virtual machine these may
fire late through nobody's fault; without a measurement that would look like a fault of the stack. So for as
long as scripts are played, a thread on each processor sleeps on the same kind of timer that TCP uses (the
timer wheel, by way of ``SO_RCVTIMEO``), over and over, and notes when it woke later than that timer may.
A second one does the same as an ordinary thread: like the kernel's workers, on which much of MPTCP waits.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from ctypes import Array, c_longlong
from multiprocessing.sharedctypes import RawArray

from testbed.packetdrill.scheduling import run_before_others

MAXIMUM_PROCESSORS = 64
REMEMBERED = 4096
"""Late moments of each thread; then the oldest are forgotten."""
SMALLEST_LATENESS_US = 500

_CLOCK_MONOTONIC_COARSE = 6
_SLEEP_TICKS = 2
_TERMINATION_SECONDS = 2.0
_TIMEVAL = struct.Struct("@ll")


class LatenessRecord:
    """When the machine was late, and by how much; shared with the processes that are forked later."""

    def __init__(self, threads: int) -> None:
        self._numbers: Array[c_longlong] = RawArray(c_longlong, 2 * REMEMBERED * threads)
        """Pairs, in microseconds: when a thread woke at last, and how late that was."""
        self._next = [0] * threads

    def note(self, thread: int, woke_us: int, late_us: int) -> None:
        """Each thread has a place of its own, by its number from 0."""
        index = 2 * (thread * REMEMBERED + self._next[thread])
        self._numbers[index], self._numbers[index + 1] = woke_us, late_us
        self._next[thread] = (self._next[thread] + 1) % REMEMBERED

    def worst_us(self, from_us: int, until_us: int) -> int:
        """The greatest lateness that overlaps the time between the two moments of the monotonic clock."""
        moments = zip(self._numbers[::2], self._numbers[1::2], strict=True)
        return max((late for woke, late in moments if woke >= from_us and woke - late <= until_us), default=0)


class LatenessProbe:
    """Watches from now until `close`, in processes of its own.

    One for the threads that run before others and one for those that do not: the interpreter's lock is theirs
    together, and no thread of the first kind shall wait for one of the second.
    """

    def __init__(self) -> None:
        processors = sorted(os.sched_getaffinity(0))[:MAXIMUM_PROCESSORS]
        self.record = LatenessRecord(2 * len(processors))
        self.processes = [
            multiprocessing.get_context("fork").Process(
                target=_watch_all,
                args=(self.record, processors, runs_before_others, os.getpid()),
                daemon=True,
            )
            for runs_before_others in (False, True)
        ]
        for process in self.processes:
            process.start()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join(_TERMINATION_SECONDS)


def _watch_all(
    record: LatenessRecord, processors: Sequence[int], runs_before_others: bool, parent: int
) -> None:
    # What an interrupt from the terminal means is for the parent to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    first = len(processors) if runs_before_others else 0
    threads = [
        threading.Thread(
            target=_watch, args=(record, number, processor, runs_before_others, parent), daemon=True
        )
        for number, processor in enumerate(processors, first)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _watch(
    record: LatenessRecord, number: int, processor: int, runs_before_others: bool, parent: int
) -> None:
    os.sched_setaffinity(0, {processor})
    if runs_before_others:
        run_before_others()
    tick_us = round(time.clock_getres(_CLOCK_MONOTONIC_COARSE) * 1_000_000)
    sleep_us = _SLEEP_TICKS * tick_us
    # The wheel rounds up twice: the time to whole ticks, and to the tick after.
    longest_us = sleep_us + 2 * tick_us
    sleeper, _other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(0, sleep_us))
    while os.getppid() == parent:
        began_us = _monotonic_us()
        with suppress(BlockingIOError):
            sleeper.recv(1)
        woke_us = _monotonic_us()
        late_us = woke_us - began_us - longest_us
        if late_us >= SMALLEST_LATENESS_US:
            record.note(number, woke_us, late_us)


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1000
