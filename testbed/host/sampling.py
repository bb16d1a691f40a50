"""How a connection's bytes grow on each of its subflows while a workload runs: few samples, cheaply taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from testbed.host.protocol import SubflowSeries, TrafficSeries
from testbed.host.streams import Stream

FIRST_INTERVAL_S = 0.01
MAXIMUM_SAMPLES = 100
"""When there are as many, every other one is dropped, and the interval doubles."""
MAXIMUM_SUBFLOWS = 64


@dataclass(slots=True)
class _Column:
    """One subflow: as many entries as there are times."""

    acknowledged: list[int] = field(default_factory=list)
    received: list[int] = field(default_factory=list)


class TrafficSampler:
    """Samples one stream until it is stopped."""

    def __init__(self, stream: Stream, progress: Callable[[], tuple[int, int]]) -> None:
        """``progress``: bytes of data that the application has sent and received."""
        self._stream = stream
        self._progress = progress
        self._interval_s = FIRST_INTERVAL_S
        self._times_us: list[int] = []
        self._sent: list[int] = []
        self._received: list[int] = []
        self._subflows: dict[tuple[str, str], _Column] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        """No more samples."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def take(self) -> None:
        """One sample, now."""
        if len(self._times_us) >= MAXIMUM_SAMPLES:
            self._thin()
        self._times_us.append(round(asyncio.get_running_loop().time() * 1_000_000))
        sent, received = self._progress()
        self._sent.append(sent)
        self._received.append(received)
        before = len(self._times_us) - 1
        for subflow in self._stream.subflows():
            key = subflow.local, subflow.remote
            if key not in self._subflows and len(self._subflows) >= MAXIMUM_SUBFLOWS:
                continue
            column = self._subflows.setdefault(key, _Column([0] * before, [0] * before))
            # its ends may have been another subflow's before it: the two are one line
            if len(column.acknowledged) == before:
                column.acknowledged.append(subflow.acknowledged)
                column.received.append(subflow.received)
        for column in self._subflows.values():
            if len(column.acknowledged) == before:
                # it has ended: what it carried stays
                column.acknowledged.append(column.acknowledged[-1] if before else 0)
                column.received.append(column.received[-1] if before else 0)

    def series(self) -> TrafficSeries:
        """What was seen."""
        return TrafficSeries(
            tuple(self._times_us),
            tuple(self._sent),
            tuple(self._received),
            tuple(
                SubflowSeries(local, remote, tuple(column.acknowledged), tuple(column.received))
                for (local, remote), column in self._subflows.items()
            ),
        )

    async def _run(self) -> None:
        while True:
            self.take()
            await asyncio.sleep(self._interval_s)

    def _thin(self) -> None:
        self._interval_s *= 2
        columns = [self._times_us, self._sent, self._received]
        for column in self._subflows.values():
            columns += [column.acknowledged, column.received]
        for values in columns:
            del values[1::2]
