"""What a workload does on one connection, from the first byte to the end, whatever stack carries it."""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import Callable, Coroutine
from typing import Any

from testbed.host.data import CHUNK_BYTES, Buffer, ConstantSource, FileSource, SeededSource, Sink, Source
from testbed.host.protocol import CloseKind, Role, Workload, WorkloadKind
from testbed.host.streams import Stream

EARLY_BYTES = 1000
"""Of the data that goes with a SYN: less than any segment takes."""
_ENDLESS_BYTES = 1 << 62


class _AbortConnectionError(Exception):
    """The point was reached at which the workload aborts its connection."""


class Exchange:
    """One connection of a workload.

    ``on_change`` is called after bytes went either way and when holding begins.
    """

    def __init__(
        self,
        workload: Workload,
        index: int,
        stream: Stream,
        finish: asyncio.Event,
        on_change: Callable[[], None],
    ) -> None:
        """Raises OSError when a file of the workload cannot be opened."""
        self._workload = workload
        self._finish = finish
        self._on_change = on_change
        self.before_close: Callable[[], None] = _do_nothing
        """Called when all data has gone both ways and the stream is still open."""
        self.stream = stream
        self.bytes_sent = 0
        self.bytes_received = 0
        self.is_holding = False
        self._sent_digest = hashlib.sha256() if workload.verify else None
        self._receive_progress = asyncio.Event()
        self._peer_has_ended = False
        self._steps: asyncio.Queue[int] = asyncio.Queue()
        """Of a workload of steps: how much to send next, 0 for the end."""
        self._sink = Sink(verify=workload.verify, path=workload.receive_file)
        try:
            self._source = _make_source(workload, index)
        except BaseException:
            self._sink.close()
            raise

    @property
    def sha256_sent(self) -> str:
        return self._sent_digest.hexdigest() if self._sent_digest is not None else ""

    @property
    def sha256_received(self) -> str:
        return self._sink.sha256()

    async def run(self, *, leaves_open: bool = False) -> None:
        """To the orderly end, or to the abort that was asked for. Raises OSError.

        With ``leaves_open`` the stream is not closed, though all has gone both ways.
        """
        try:
            self._abort_if_due()
            if self._workload.fast_open and self._workload.role is Role.CONNECT:
                # The connection began with it.
                self._account_sent(self._source.next_chunk(EARLY_BYTES))
            await self._play()
            self.before_close()
            if not leaves_open:
                await self.stream.close()
        except _AbortConnectionError:
            self.stream.abort()
        finally:
            self._source.close()
            self._source = ConstantSource(0)
            self._sink.close()

    def _play(self) -> Coroutine[Any, Any, None]:
        is_listener = self._workload.role is Role.LISTEN
        match self._workload.kind:
            case WorkloadKind.TRANSFER:
                return _both(self._send_all(), self._receive_all())
            case WorkloadKind.ECHO:
                return self._echo() if is_listener else self._expect_echo()
            case WorkloadKind.REQUEST_RESPONSE:
                return self._respond() if is_listener else self._request()
            case WorkloadKind.HOLD:
                return self._hold_idle()
            case WorkloadKind.STEPS:
                return self._take_steps()

    @property
    def takes_steps(self) -> bool:
        return self._workload.kind is WorkloadKind.STEPS

    def send_soon(self, amount: int) -> None:
        """A step: the next bytes of the source, behind those that it was told before."""
        if amount:
            self._steps.put_nowait(amount)

    def end_soon(self) -> None:
        """A step: the end of what is sent."""
        self._steps.put_nowait(0)

    async def receive_once(self, max_bytes: int) -> tuple[int, int | None]:
        """A step: how much came, and with TCP_INQ how much is left. Raises OSError."""
        data, unread = await self.stream.read_telling(max_bytes)
        count = len(data)
        self._account_received(data)
        return count, unread

    async def _take_steps(self) -> None:
        self._start_holding()
        sending = asyncio.create_task(self._send_as_told())
        finishing = asyncio.create_task(self._finish.wait())
        try:
            await asyncio.wait((sending, finishing), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            sending.cancel()
            finishing.cancel()
            await asyncio.gather(sending, finishing, return_exceptions=True)

    async def _send_as_told(self) -> None:
        while True:
            if amount := await self._steps.get():
                await self._send(amount)
            else:
                await self.stream.shutdown_write()

    async def _send_all(self) -> None:
        await self._send(_ENDLESS_BYTES)
        await self._end_sending()

    async def _send(self, amount: int) -> None:
        """The next ``amount`` bytes of the source, or all that is left of it."""
        while amount and (chunk := self._source.next_chunk(min(amount, self._chunk_bytes()))):
            await self.stream.write(chunk)
            amount -= len(chunk)
            self._account_sent(chunk)
            if self._workload.pause_us:
                await asyncio.sleep(self._workload.pause_us / 1_000_000)

    def _chunk_bytes(self) -> int:
        chunk_bytes = self._workload.chunk_bytes or CHUNK_BYTES
        limit = self._workload.abort_after_bytes
        if self._workload.close is CloseKind.ABORT and limit is not None:
            chunk_bytes = min(chunk_bytes, limit - self.bytes_sent)
        return chunk_bytes

    async def _end_sending(self) -> None:
        if self._workload.hold_open_after:
            self._start_holding()
            await self._finish.wait()
        await self._close_sending()

    async def _close_sending(self) -> None:
        if self._workload.close is CloseKind.ORDERLY:
            await self.stream.shutdown_write()
        elif self._workload.abort_after_bytes is None:
            raise _AbortConnectionError

    async def _receive_all(self) -> None:
        while data := await self._read():
            self._account_received(data)
        self._peer_has_ended = True
        self._receive_progress.set()
        if self._workload.close is CloseKind.ABORT and self._workload.abort_after_bytes is not None:
            raise _AbortConnectionError

    async def _read(self) -> Buffer:
        peek = self._workload.peek
        if peek:
            return await self.stream.read_peeking(keep_first=peek == "with")
        return await self.stream.read()

    async def _echo(self) -> None:
        while data := bytes(await self.stream.read()):
            self._account_received(data)
            await self.stream.write(data)
            self._account_sent(data)
        await self._end_sending()

    async def _expect_echo(self) -> None:
        await _both(self._send_and_await_echo(), self._receive_all())
        if self.bytes_received != self.bytes_sent or self.sha256_received != self.sha256_sent:
            raise OSError(errno.EBADMSG, "what came back differs from what was sent")

    async def _send_and_await_echo(self) -> None:
        await self._send(_ENDLESS_BYTES)
        if self._workload.hold_open_after:
            while self.bytes_received < self.bytes_sent and not self._peer_has_ended:
                self._receive_progress.clear()
                await self._receive_progress.wait()
        await self._end_sending()

    async def _request(self) -> None:
        for number in range(1, self._workload.requests + 1):
            await self._send(self._workload.send_bytes)
            await self._receive_until(number * self._workload.response_bytes)
        await _both(self._end_sending(), self._receive_all())
        self._refuse_surplus(self._workload.requests * self._workload.response_bytes)

    async def _receive_until(self, total: int) -> None:
        while self.bytes_received < total:
            data = await self.stream.read()
            if not data:
                raise OSError(errno.EPIPE, "the peer ended its data before its response was complete")
            self._account_received(data)
        self._refuse_surplus(total)

    def _refuse_surplus(self, expected: int) -> None:
        if self.bytes_received > expected:
            surplus = self.bytes_received - expected
            raise OSError(errno.EBADMSG, f"the peer sent {surplus} bytes more than the response has")

    async def _respond(self) -> None:
        answered = 0
        while data := await self.stream.read():
            self._account_received(data)
            while (answered + 1) * self._workload.send_bytes <= self.bytes_received:
                await self._send(self._workload.response_bytes)
                answered += 1
        await self._end_sending()

    async def _hold_idle(self) -> None:
        self._start_holding()
        receiving = asyncio.create_task(self._receive_all())
        finishing = asyncio.create_task(self._finish.wait())
        try:
            await asyncio.wait((receiving, finishing), return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                receiving.result()
            await self._close_sending()
            await receiving
        finally:
            receiving.cancel()
            finishing.cancel()
            await asyncio.gather(receiving, finishing, return_exceptions=True)

    def _start_holding(self) -> None:
        self.is_holding = True
        self._on_change()

    def _account_sent(self, data: Buffer) -> None:
        if self._sent_digest is not None:
            self._sent_digest.update(data)
        self.bytes_sent += len(data)
        self._on_change()
        self._abort_if_due()

    def _account_received(self, data: Buffer) -> None:
        self._sink.take(data)
        self.bytes_received += len(data)
        self._receive_progress.set()
        self._on_change()
        self._abort_if_due()

    def _abort_if_due(self) -> None:
        limit = self._workload.abort_after_bytes
        if self._workload.close is not CloseKind.ABORT or limit is None:
            return
        if self.bytes_sent >= limit or self.bytes_received >= limit:
            raise _AbortConnectionError


def early_data(workload: Workload, index: int) -> bytes:
    """The first bytes that a connection of a workload sends, which are to go with its SYN. Raises OSError."""
    source = _make_source(workload, index)
    try:
        return bytes(source.next_chunk(EARLY_BYTES))
    finally:
        source.close()


def _do_nothing() -> None:
    """Nobody wants to know."""


async def _both(first: Coroutine[Any, Any, None], second: Coroutine[Any, Any, None]) -> None:
    """Run both at once; when one fails, the other is cancelled before the error goes on."""
    tasks = (asyncio.create_task(first), asyncio.create_task(second))
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _make_source(workload: Workload, index: int) -> Source:
    if workload.send_file is not None:
        return FileSource(workload.send_file, workload.send_bytes)
    total = workload.send_bytes
    if workload.kind is WorkloadKind.REQUEST_RESPONSE:
        total = workload.send_bytes * workload.requests if workload.role is Role.CONNECT else _ENDLESS_BYTES
    elif workload.kind is WorkloadKind.STEPS:
        total = _ENDLESS_BYTES
    elif workload.kind is WorkloadKind.HOLD or (
        workload.kind is WorkloadKind.ECHO and workload.role is Role.LISTEN
    ):
        total = 0
    return SeededSource(workload.send_seed, index, total) if workload.verify else ConstantSource(total)
