"""Stream sockets over a stand-in connection: waiting, errors as the kernel gives them, closing."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Coroutine
from typing import Any

import pytest

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.sockets.coroutines import StreamSocket, listen, open_connection
from tests.driver_fakes import FakeConnection, FakeStack


class FakeDriver:
    def __init__(self) -> None:
        self.stack = FakeStack()
        self.wakes = 0

    def wake(self) -> None:
        self.wakes += 1


class Rig:
    def __init__(self) -> None:
        self.driver = FakeDriver()
        self.connection = FakeConnection()
        self.stream = StreamSocket(self.connection, self.driver.wake)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await coroutine

    asyncio.run(bounded())


async def started(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task that has come to its first wait."""
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    return task


async def fails_with(number: int, awaitable: Coroutine[Any, Any, Any] | asyncio.Task[Any]) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        await awaitable
    assert caught.value.errno == number


def test_what_is_peeked_at_stays() -> None:
    async def scenario() -> None:
        rig = Rig()
        task = await started(rig.stream.peek(2))
        rig.connection.incoming += b"abc"
        rig.connection.change()
        assert await task == b"ab"
        assert await rig.stream.read(100) == b"abc"
        with pytest.raises(ValueError, match="at least 1"):
            await rig.stream.peek(0)
        rig.connection.error = errno.ECONNRESET
        await fails_with(errno.ECONNRESET, rig.stream.peek(1))

    run(scenario())


def test_read_waits_for_data() -> None:
    async def scenario() -> None:
        rig = Rig()
        task = await started(rig.stream.read(100))
        rig.connection.change()
        await asyncio.sleep(0)
        assert not task.done()
        rig.connection.incoming += b"data"
        rig.connection.change()
        assert await task == b"data"
        assert rig.driver.wakes == 0
        # The stack has to announce the window.
        rig.connection.wants_output = True
        rig.connection.incoming += b"more"
        assert await rig.stream.read(100) == b"more"
        assert rig.driver.wakes == 1

    run(scenario())


def test_read_gives_data_then_the_error() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.connection.incoming += b"before"
        rig.connection.error = errno.ECONNRESET
        assert await rig.stream.read(100) == b"before"
        await fails_with(errno.ECONNRESET, rig.stream.read(100))

    run(scenario())


def test_read_ends_at_the_end_of_the_stream() -> None:
    async def scenario() -> None:
        rig = Rig()
        task = await started(rig.stream.read(100))
        rig.connection.end_of_stream = True
        rig.connection.change()
        assert await task == b""
        assert await rig.stream.read(1) == b""
        rig.connection.end_of_stream = False
        rig.connection.is_closed = True
        assert await rig.stream.read(1) == b""
        with pytest.raises(ValueError, match="max_bytes is 0"):
            await rig.stream.read(0)

    run(scenario())


def test_read_exactly_joins_and_says_what_is_missing() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.connection.incoming += b"abc"
        task = await started(rig.stream.read_exactly(5))
        rig.connection.incoming += b"defg"
        rig.connection.change()
        assert await task == b"abcde"
        rig.connection.end_of_stream = True
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await rig.stream.read_exactly(5)
        assert (caught.value.partial, caught.value.expected) == (b"fg", 5)

    run(scenario())


def test_write_waits_until_all_is_accepted() -> None:
    async def scenario() -> None:
        rig = Rig()
        data = bytes(range(256)) * 10
        task = await started(rig.stream.write(data))
        assert rig.connection.outgoing == data[:1000]
        for _ in range(2):
            rig.connection.room = 780
            rig.connection.change()
            await asyncio.sleep(0)
        await task
        assert rig.connection.outgoing == data
        await rig.stream.write(b"")

    run(scenario())


def test_write_goes_on_at_once_while_there_is_room() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.connection.largest_write = 300
        await rig.stream.write(bytes(1000))
        assert len(rig.connection.outgoing) == 1000

    run(scenario())


def test_write_fails_with_the_connections_error() -> None:
    async def scenario() -> None:
        rig = Rig()
        task = await started(rig.stream.write(bytes(2000)))
        rig.connection.error = errno.ETIMEDOUT
        rig.connection.change()
        await fails_with(errno.ETIMEDOUT, task)
        rig = Rig()
        rig.connection.is_closed = True
        await fails_with(errno.EPIPE, rig.stream.write(b"x"))

    run(scenario())


def test_drain_waits_for_the_acknowledgement() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.stream.drain()
        await rig.stream.write(b"data")
        task = await started(rig.stream.drain())
        assert not task.done()
        rig.connection.unacknowledged_bytes = 0
        rig.connection.change()
        await task
        rig.connection.unacknowledged_bytes = 1
        rig.connection.error = errno.ECONNRESET
        await fails_with(errno.ECONNRESET, rig.stream.drain())
        rig.connection.error = None
        rig.connection.is_closed = True
        await fails_with(errno.EPIPE, rig.stream.drain())

    run(scenario())


def test_reader_and_writer_wait_at_the_same_time() -> None:
    async def scenario() -> None:
        rig = Rig()
        reader = await started(rig.stream.read(10))
        writer = await started(rig.stream.write(bytes(1001)))
        rig.connection.incoming += b"x"
        rig.connection.room = 1
        rig.connection.change()
        assert await reader == b"x"
        await writer

    run(scenario())


def test_cancelled_wait_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        rig = Rig()
        task = await started(rig.stream.read(10))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        rig.connection.incoming += b"kept"
        rig.connection.change()
        assert await rig.stream.read(10) == b"kept"

    run(scenario())


def test_closing_wakes_the_reader() -> None:
    async def scenario() -> None:
        rig = Rig()
        task = await started(rig.stream.read(10))
        rig.stream.close()
        rig.stream.close()
        await fails_with(errno.EBADF, task)
        await fails_with(errno.EBADF, rig.stream.write(b"x"))
        with pytest.raises(OSError, match="Bad file descriptor"):
            rig.stream.shutdown_write()
        assert rig.connection.calls == ["close"]

    run(scenario())


def test_shutdown_abort_and_wait_closed() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.stream.shutdown_write()
        assert rig.driver.wakes == 1
        rig.stream.abort()
        assert rig.connection.calls == ["shutdown_write", "abort"]
        task = await started(rig.stream.wait_closed())
        assert not task.done()
        rig.connection.is_closed = True
        rig.connection.change()
        await task
        assert rig.stream.is_closed

    run(scenario())


def test_context_manager_closes() -> None:
    async def scenario() -> None:
        rig = Rig()
        async with rig.stream as stream:
            assert stream.local == (b"\x0a\0\0\x01", 40000)
            assert stream.remote == (b"\x0a\0\0\x02", 80)
            assert stream.is_mptcp
            assert stream.error is None
            assert stream.connection is rig.connection
        assert rig.connection.calls == ["close"]

    run(scenario())


def test_open_connection_waits_for_the_handshake() -> None:
    async def scenario() -> None:
        driver = FakeDriver()
        task = await started(
            open_connection(driver, "10.0.0.2", 80, protocol="tcp", local=b"\x0a\0\0\x01", local_port=7)
        )
        assert not task.done()
        assert driver.wakes == 1
        assert driver.stack.connects == [(b"\x0a\0\0\x02", 80, "tcp", b"\x0a\0\0\x01", 7)]
        driver.stack.connection.is_established = True
        driver.stack.connection.change()
        stream = await task
        assert isinstance(stream, StreamSocket)

    run(scenario())


@pytest.mark.parametrize(
    ("error", "expected"), [(errno.ECONNREFUSED, errno.ECONNREFUSED), (None, errno.ECONNABORTED)]
)
def test_open_connection_fails_as_the_kernel_does(error: int | None, expected: int) -> None:
    async def scenario() -> None:
        driver = FakeDriver()
        task = await started(open_connection(driver, "fd00::2", 80))
        driver.stack.connection.error = error
        driver.stack.connection.is_closed = True
        driver.stack.connection.change()
        await fails_with(expected, task)

    run(scenario())


def test_cancelled_connect_is_aborted() -> None:
    async def scenario() -> None:
        driver = FakeDriver()
        task = await started(open_connection(driver, "10.0.0.2", 80))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert driver.stack.connection.calls == ["abort"]

    run(scenario())


def test_text_that_is_no_address_is_refused() -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigurationError, match="example"):
            await open_connection(FakeDriver(), "example", 80)

    run(scenario())


def test_listening_socket_accepts_in_order() -> None:
    async def scenario() -> None:
        driver = FakeDriver()
        listening = listen(driver, "10.0.0.1", 8080)
        assert (listening.address, listening.port) == (b"\x0a\0\0\x01", 8080)
        task = await started(listening.accept())
        assert driver.stack.listener is not None
        driver.stack.listener.pending += [FakeConnection((b"\x0a\0\0\x02", port)) for port in (1, 2)]
        assert driver.stack.listener.on_change is not None
        driver.stack.listener.on_change()
        first = await task
        second = await listening.accept()
        assert [first.remote[1], second.remote[1]] == [1, 2]
        with pytest.raises(OSError, match="in use"):
            listen(driver, None, 8080)

    run(scenario())


def test_closed_listening_socket_accepts_no_more() -> None:
    async def scenario() -> None:
        driver = FakeDriver()
        async with listen(driver) as listening:
            assert listening.address is None
            task = await started(listening.accept())
        await fails_with(errno.EBADF, task)
        assert driver.stack.listener is not None
        assert driver.stack.listener.is_closed
        listening.close()

    run(scenario())
