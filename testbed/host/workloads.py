"""A running workload: its connections, its watchdog, and the milestones that clients wait for."""

from __future__ import annotations

import asyncio
import errno
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from testbed.host.exchange import Exchange, early_data
from testbed.host.protocol import CloseKind, ConnectionResult, Role, Workload, WorkloadKind, WorkloadProgress
from testbed.host.sampling import TrafficSampler
from testbed.host.streams import Stream, StreamListener, StreamNetwork

MAXIMUM_CONNECTIONS = 10_000
PEEKS = ("", "with", "after")
WAYS = ("write", "mmap", "sendfile", "splice")
SAMPLED_CONNECTIONS = 4
"""Of each workload: the first ones are sampled while they run."""
MAXIMUM_TIMEOUT_US = 24 * 3600 * 1_000_000
_MAXIMUM_BYTES = 1 << 50
_MILESTONE = re.compile(
    r"(?P<state>listening|connected|holding|done)"
    r"|(?P<what>accepted|received|sent) (?P<count>\d{1,18})( bytes)?"
)


class WorkloadError(Exception):
    """A workload that makes no sense, or a milestone that cannot be reached."""


def check_workload(workload: Workload) -> None:
    """Raises WorkloadError with every problem at once."""
    problems = [
        f"{name} is {value}, not in {low} to {high}"
        for name, value, low, high in (
            ("port", workload.port, 0 if workload.role is Role.LISTEN else 1, 0xFFFF),
            ("send_bytes", workload.send_bytes, 0, _MAXIMUM_BYTES),
            ("response_bytes", workload.response_bytes, 0, _MAXIMUM_BYTES),
            ("chunk_bytes", workload.chunk_bytes, 0, 1 << 30),
            ("pause_us", workload.pause_us, 0, MAXIMUM_TIMEOUT_US),
            ("requests", workload.requests, 1, 1 << 32),
            ("connections", workload.connections, 1, MAXIMUM_CONNECTIONS),
            ("rounds", workload.rounds, 1, MAXIMUM_CONNECTIONS // max(1, workload.connections)),
            ("abort_after_bytes", workload.abort_after_bytes or 0, 0, _MAXIMUM_BYTES),
            ("timeout_us", workload.timeout_us, 1, MAXIMUM_TIMEOUT_US),
        )
        if not low <= value <= high
    ]
    if workload.protocol not in ("mptcp", "tcp"):
        problems.append(f'protocol is {workload.protocol!r}, neither "mptcp" nor "tcp"')
    for name, value, known in (("peek", workload.peek, PEEKS), ("way", workload.way, WAYS)):
        if value not in known:
            problems.append(f"{name} is {value!r}, none of {', '.join(map(repr, known))}")
    if workload.transparent and workload.role is not Role.LISTEN:
        problems.append("transparent is for listeners")
    if workload.rounds > 1:
        problems += _problems_of_rounds(workload)
    if workload.receive_file is not None and workload.connections > 1:
        problems.append("receive_file holds the data of one connection only")
    if workload.kind is WorkloadKind.REQUEST_RESPONSE and workload.send_bytes == 0:
        problems.append("request_response needs send_bytes, the size of a request")
    if problems:
        raise WorkloadError("; ".join(problems))


def _problems_of_rounds(workload: Workload) -> list[str]:
    """What a socket that is to connect again cannot do as well."""
    refused = {
        "role": workload.role is Role.LISTEN,
        "kind": workload.kind in (WorkloadKind.HOLD, WorkloadKind.STEPS),
        "close": workload.close is CloseKind.ABORT,
        "hold_open_after": workload.hold_open_after,
        "fast_open": workload.fast_open,
        "receive_file": workload.receive_file is not None,
    }
    return [f"{name} does not go with rounds" for name, is_there in refused.items() if is_there]


class RunningWorkload:
    """Carries out one workload. ``start`` it once; it ends by itself, at the latest by its watchdog."""

    def __init__(self, workload: Workload, network: StreamNetwork) -> None:
        """Raises WorkloadError."""
        check_workload(workload)
        self._workload = workload
        self._network = network
        self._finish = asyncio.Event()
        self._listener: StreamListener | None = None
        self._exchanges: list[Exchange] = []
        self._connection_tasks: list[asyncio.Task[list[ConnectionResult]]] = []
        self._opening: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._end_reason = ""
        self._error: str | None = None
        self._has_ended = False
        self._waiters: dict[asyncio.Future[None], Callable[[], bool]] = {}
        self.results: list[ConnectionResult] = []
        """Complete when the workload has ended: one for each connection, those included that never came."""

    @property
    def has_ended(self) -> bool:
        return self._has_ended

    def start(self) -> None:
        """Raises OSError when a listener cannot be opened."""
        if self._workload.role is Role.LISTEN:
            self._listener = self._network.listen(
                self._workload.address,
                self._workload.port,
                protocol=self._workload.protocol,
                backlog=min(self._workload.connections + 16, 4096),
                fast_open=self._workload.fast_open,
                transparent=self._workload.transparent,
                options=self._workload.options,
            )
        self._opening = asyncio.create_task(self._open_connections())
        self._task = asyncio.create_task(self._run(self._opening))

    def exchange(self, number: int) -> Exchange:
        """Of a connection that was established, in the order of that. Raises WorkloadError."""
        if not 0 <= number < len(self._exchanges):
            raise WorkloadError(f"there is no connection {number}: {len(self._exchanges)} came so far")
        return self._exchanges[number]

    def progress(self) -> WorkloadProgress:
        established = len(self._exchanges)
        return WorkloadProgress(
            state=self._state(),
            port=self._listener.port if self._listener is not None else self._workload.port,
            accepted=established if self._workload.role is Role.LISTEN else 0,
            bytes_sent=self._bytes_sent(),
            bytes_received=self._bytes_received(),
            connected=established,
            error=self._error,
        )

    async def wait(self, milestone: str) -> None:
        """Raises WorkloadError for an unknown milestone or when the workload ended without reaching it."""
        is_reached = self._predicate(milestone)
        if not is_reached() and not self._has_ended:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters[waiter] = is_reached
            try:
                await waiter
            finally:
                self._waiters.pop(waiter, None)
        if not is_reached():
            raise WorkloadError(f"the workload ended before {milestone!r}: {self._summary()}")

    def finish(self) -> None:
        """End holding: connections go on to their close."""
        self._finish.set()

    def stop(self) -> None:
        """Abort what is still running."""
        self._end("stopped")

    async def ended(self) -> None:
        """Returns when every connection has its result."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def _run(self, opening: asyncio.Task[None]) -> None:
        watchdog = asyncio.get_running_loop().call_later(
            self._workload.timeout_us / 1_000_000, self._end, "timeout"
        )
        await asyncio.wait((opening,))
        if self._connection_tasks:
            await asyncio.wait(self._connection_tasks)
        watchdog.cancel()
        if self._listener is not None:
            self._listener.close()
        # One that was cancelled before its first step has no result of its own.
        ended = [task.result() for task in self._connection_tasks if not task.cancelled()]
        self.results = [result for results in ended for result in results]
        self._add_missing_results()
        self._has_ended = True
        self._changed()

    async def _open_connections(self) -> None:
        workload = self._workload
        if self._listener is None:
            for index in range(workload.connections):
                self._add_connection(index, partial(self._connect, index))
            return
        try:
            for index in range(workload.connections):
                stream = await self._listener.accept()
                self._add_connection(index, partial(_already_open, stream))
        except OSError as error:
            self._end_reason, self._error = _describe_error(error)

    async def _connect(self, index: int) -> Stream:
        workload = self._workload
        return await self._network.connect(
            workload.address,
            workload.port,
            protocol=workload.protocol,
            local=workload.local_address,
            early=early_data(workload, index) if workload.fast_open else None,
            options=workload.options,
        )

    def _add_connection(self, index: int, opening: Callable[[], Awaitable[Stream]]) -> None:
        self._connection_tasks.append(asyncio.create_task(self._serve_rounds(index, opening)))

    async def _serve_rounds(
        self, index: int, opening: Callable[[], Awaitable[Stream]]
    ) -> list[ConnectionResult]:
        """All that is done on one socket, to the first error; it never raises."""
        workload = self._workload
        results: list[ConnectionResult] = []
        for number in range(workload.rounds):
            is_last = number + 1 == workload.rounds
            result, stream = await self._serve(index + number * workload.connections, opening, is_last)
            results.append(result)
            if result.error is not None or stream is None:
                break
            opening = partial(self._reconnect, stream)
        return results

    async def _reconnect(self, stream: Stream) -> Stream:
        try:
            await stream.reconnect(self._workload.address, self._workload.port)
        except BaseException:
            stream.abort()
            raise
        return stream

    async def _serve(
        self, index: int, opening: Callable[[], Awaitable[Stream]], is_last: bool
    ) -> tuple[ConnectionResult, Stream | None]:
        """One connection from its opening to its result; it never raises."""
        clock = asyncio.get_running_loop()
        started_s = clock.time()
        stream: Stream | None = None
        exchange: Exchange | None = None
        sampler: TrafficSampler | None = None
        error: str | None = None
        detail = ""
        try:
            stream = await opening()
            stream.set_way(self._workload.way)
            exchange = Exchange(self._workload, index, stream, self._finish, self._changed)
            self._exchanges.append(exchange)
            if index < SAMPLED_CONNECTIONS:
                sampler = _start_sampler(stream, exchange)
            self._changed()
            await exchange.run(leaves_open=not is_last)
        except OSError as failure:
            error, detail = _describe_error(failure)
        except asyncio.CancelledError:
            error = self._end_reason or "stopped"
        finally:
            if sampler is not None:
                sampler.stop()
        duration_us = round((clock.time() - started_s) * 1_000_000)
        if error is not None:
            detail = "; ".join(filter(None, (detail, _describe_stream(stream))))
        result = _make_result(stream, exchange, duration_us, error, detail)
        if sampler is not None:
            result = replace(result, traffic=sampler.series())
        if stream is not None and error is not None:
            stream.abort()
        return result, stream

    def _end(self, reason: str) -> None:
        if self._has_ended or self._end_reason:
            return
        self._end_reason = reason
        if self._opening is not None:
            self._opening.cancel()
        for task in self._connection_tasks:
            task.cancel()

    def _add_missing_results(self) -> None:
        expected = self._workload.connections * self._workload.rounds
        missing = expected - len(self.results)
        if not missing:
            return
        reason = self._end_reason or "stopped"
        detail = f"{len(self.results)} of {expected} connections came"
        self._error = self._error or f"{reason}: {detail}"
        self.results += [_make_result(None, None, 0, reason, detail)] * missing

    def _state(self) -> str:
        if self._has_ended:
            is_good = self._error is None and all(result.error is None for result in self.results)
            return "done" if is_good else "failed"
        if len(self._exchanges) < self._workload.connections:
            return "listening" if self._listener is not None and not self._exchanges else "starting"
        if self._is_holding():
            return "holding"
        return "transferring" if self._bytes_sent() or self._bytes_received() else "connected"

    def _is_holding(self) -> bool:
        is_complete = len(self._exchanges) == self._workload.connections
        return is_complete and all(exchange.is_holding for exchange in self._exchanges)

    def _bytes_sent(self) -> int:
        return sum(exchange.bytes_sent for exchange in self._exchanges)

    def _bytes_received(self) -> int:
        return sum(exchange.bytes_received for exchange in self._exchanges)

    def _predicate(self, milestone: str) -> Callable[[], bool]:
        match = _MILESTONE.fullmatch(milestone)
        if match is None:
            raise WorkloadError(
                f"unknown milestone {milestone!r:.80}: there are listening, connected, holding, done,"
                ' "accepted N", "received N bytes" and "sent N bytes"'
            )
        if match["state"]:
            return self._state_predicate(match["state"])
        count = int(match["count"])
        measure = {
            "accepted": lambda: len(self._exchanges),
            "received": self._bytes_received,
            "sent": self._bytes_sent,
        }[match["what"]]
        return lambda: measure() >= count

    def _state_predicate(self, state: str) -> Callable[[], bool]:
        if state == "listening" and self._listener is None:
            raise WorkloadError("a connector never listens")
        return {
            "listening": lambda: True,
            "connected": lambda: len(self._exchanges) >= self._workload.connections,
            "holding": self._is_holding,
            "done": lambda: self._has_ended,
        }[state]

    def _changed(self) -> None:
        # Nearly always empty: this runs for every chunk of data.
        if not self._waiters:
            return
        for waiter, is_reached in self._waiters.items():
            if not waiter.done() and (self._has_ended or is_reached()):
                waiter.set_result(None)

    def _summary(self) -> str:
        if self._error is not None:
            return self._error
        errors = [result for result in self.results if result.error is not None]
        if not errors:
            return "all connections ended well"
        return f"{errors[0].error} ({errors[0].detail})"


def _start_sampler(stream: Stream, exchange: Exchange) -> TrafficSampler:
    sampler = TrafficSampler(stream, lambda: (exchange.bytes_sent, exchange.bytes_received))
    exchange.before_close = sampler.take
    sampler.start()
    return sampler


async def _already_open(stream: Stream) -> Stream:
    return stream


def _make_result(
    stream: Stream | None, exchange: Exchange | None, duration_us: int, error: str | None, detail: str
) -> ConnectionResult:
    return ConnectionResult(
        bytes_sent=exchange.bytes_sent if exchange else 0,
        bytes_received=exchange.bytes_received if exchange else 0,
        sha256_sent=exchange.sha256_sent if exchange else "",
        sha256_received=exchange.sha256_received if exchange else "",
        duration_us=duration_us,
        is_mptcp=stream.is_mptcp if stream else False,
        error=error,
        detail=detail,
        local=stream.local if stream else "",
        remote=stream.remote if stream else "",
    )


def _describe_error(error: OSError) -> tuple[str, str]:
    """The errno's name, and the whole story."""
    return errno.errorcode.get(error.errno or 0, "EIO"), str(error)


def _describe_stream(stream: Stream | None) -> str:
    if stream is None:
        return "never connected"
    return json.dumps(stream.describe(), default=str)
