"""Many seeds on several processes: progress, a summary, and the command that replays each that fails."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import TextIO

from mptcp_stack.device.capture import CaptureWriter
from testbed.errors import ExitCode, UsageError
from testbed.soak.drawing import draw_scenario
from testbed.soak.run import SeedResult, Soak, run_seed
from testbed.soak.scenario import describe
from testbed.soak.trace import Tracer

SEEDS_AT_ONCE = 10
SHORTEST_BREAK_S = 0.1
"""Between two drawings of the progress bar."""
PROCESSOR_TIME_LIMIT_S = 120.0
"""No seed takes more than a few seconds, however busy the machine: one that has had more never ends."""
BAR_WIDTH = 30


@dataclass(frozen=True, slots=True)
class SoakOptions:
    runs: int
    first_seed: int | None = None
    jobs: int = 1
    verbosity: int = 0


class TooLongError(Exception):
    """A seed that takes more of a processor than any may."""


def _on_alarm(_number: int, _frame: FrameType | None) -> None:
    raise TooLongError(f"still running after {PROCESSOR_TIME_LIMIT_S} s of processor time")


def run_seeds(seeds: Iterable[int]) -> list[SeedResult]:
    """What a worker does, one after the other."""
    signal.signal(signal.SIGPROF, _on_alarm)
    results = []
    for seed in seeds:
        signal.setitimer(signal.ITIMER_PROF, PROCESSOR_TIME_LIMIT_S)
        try:
            results.append(run_seed(seed))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return results


class Progress:
    """A bar on a terminal; elsewhere a line for each tenth of the runs. Failures stay above it."""

    def __init__(
        self, stream: TextIO, runs: int, *, is_terminal: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._runs, self._is_terminal, self._clock = stream, runs, is_terminal, clock
        self._started_at = self._drawn_at = clock()
        self._has_bar = False
        self._tenths = 0
        self.done = self.failed = 0
        self.conversations = self.bytes_received = self.virtual_us = 0

    def add(self, result: SeedResult) -> None:
        self.done += 1
        self.conversations += result.conversations
        self.bytes_received += result.bytes_received
        self.virtual_us += result.virtual_us
        if result.problems:
            self.failed += 1
            self._say(failure_text(result))
        self._draw()

    def finish(self) -> None:
        self._erase()
        seconds = self._clock() - self._started_at
        self._say(
            f"{self.done} runs, {self.failed} failed: {self.conversations} connections, "
            f"{self.bytes_received / 1e6:.1f} MB, {self.virtual_us / 3.6e9:.1f} h of virtual time "
            f"in {seconds:.1f} s ({self.done / max(seconds, 1e-3):.0f} runs/s)"
        )

    def _say(self, text: str) -> None:
        self._erase()
        self._stream.write(text + "\n")
        self._stream.flush()

    def _draw(self) -> None:
        if not self._is_terminal:
            tenths = self.done * 10 // self._runs
            if tenths > self._tenths:
                self._tenths = tenths
                self._say(f"{self.done} of {self._runs} runs, {self.failed} failed")
            return
        if self._clock() - self._drawn_at < SHORTEST_BREAK_S and self.done < self._runs:
            return
        self._drawn_at = self._clock()
        full = BAR_WIDTH * self.done // self._runs
        bar = "█" * full + "·" * (BAR_WIDTH - full)
        self._stream.write(f"\r\x1b[K{bar} {self.done}/{self._runs}, {self.failed} failed")
        self._stream.flush()
        self._has_bar = True

    def _erase(self) -> None:
        if self._has_bar:
            self._stream.write("\r\x1b[K")
            self._has_bar = False


def failure_text(result: SeedResult) -> str:
    """The problems, and how to see the seed's packets."""
    lines = [f"seed {result.seed} failed:"]
    lines += [f"  {line}" for problem in result.problems for line in problem.splitlines()]
    lines.append(f"  replay it packet by packet: testbed soak --replay {result.seed} --trace")
    return "\n".join(lines)


def run_session(options: SoakOptions, stream: TextIO, *, is_terminal: bool) -> int:
    """Returns the exit code; raises UsageError."""
    if options.runs < 1 or options.jobs < 1:
        raise UsageError("--runs and --jobs: expected at least 1")
    first = options.first_seed if options.first_seed is not None else random.SystemRandom().randrange(10**9)
    stream.write(f"seeds {first} to {first + options.runs - 1}\n")
    stream.flush()
    progress = Progress(stream, options.runs, is_terminal=is_terminal)
    try:
        for result in _results(range(first, first + options.runs), options.jobs):
            progress.add(result)
    finally:
        progress.finish()
    return ExitCode.FAIL if progress.failed else ExitCode.PASS


def _results(seeds: range, jobs: int) -> Iterator[SeedResult]:
    """As they come, with few batches waiting: an interrupt has little to cancel."""
    batches = iter([seeds[start : start + SEEDS_AT_ONCE] for start in range(0, len(seeds), SEEDS_AT_ONCE)])
    if jobs == 1:
        for batch in batches:
            for seed in batch:
                yield from run_seeds([seed])
        return
    with ProcessPoolExecutor(min(jobs, len(seeds)), mp_context=get_context("fork")) as pool:
        running: set[Future[list[SeedResult]]] = {
            pool.submit(run_seeds, batch) for batch in islice(batches, 2 * jobs)
        }
        try:
            while running:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(run_seeds, batch) for batch in islice(batches, len(finished))}
                for future in finished:
                    yield from future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def replay(seed: int, stream: TextIO, *, trace: bool, pcap: Path | None) -> int:
    """One seed: its scenario, its packets if wanted, and the judgement. Raises UsageError."""
    say = partial(print, file=stream)
    say(describe(draw_scenario(seed)))
    try:
        capture = pcap.open("wb") if pcap is not None else None
    except OSError as error:
        raise UsageError(f"{pcap}: {os.strerror(error.errno or 0)}") from error

    def prepare(soak: Soak) -> None:
        if trace:
            Tracer(soak.hosts, say)
        if capture is not None:
            soak.hosts.simulator.capture(CaptureWriter(capture))

    try:
        result = run_seed(seed, prepare)
    finally:
        if capture is not None:
            capture.close()
    for problem in result.problems:
        say(f"FAIL {problem}")
    if not result.problems:
        say(f"pass: {result.bytes_received} bytes in {result.virtual_us / 1e6:.6f} s of virtual time")
    return ExitCode.FAIL if result.problems else ExitCode.PASS
