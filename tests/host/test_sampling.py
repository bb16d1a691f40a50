"""Sampling a connection: few samples, of equal length, for subflows that come and go."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from mptcp_stack.simulator import Simulator
from testbed.backend.simulated.event_loop import VirtualTimeLoop
from testbed.host.data import Buffer
from testbed.host.kernel_traffic import mptcp_subflows, plain_subflow
from testbed.host.protocol import TrafficSeries
from testbed.host.sampling import MAXIMUM_SAMPLES, MAXIMUM_SUBFLOWS, TrafficSampler
from testbed.host.streams import SubflowTraffic
from testbed.selftests.environment import IPPROTO_MPTCP, kernel_mptcp_missing

FIRST, SECOND = ("a 1", "b 2"), ("c 3", "b 2")


class FakeStream:
    """A stream that has what the test says."""

    is_mptcp = True
    local = remote = ""

    def __init__(self) -> None:
        self.present: dict[tuple[str, str], int] = {FIRST: 0}

    async def read(self) -> Buffer:
        return b""

    async def read_peeking(self, *, keep_first: bool) -> Buffer:
        return b""

    async def reconnect(self, address: str, port: int) -> None: ...

    async def read_telling(self, max_bytes: int) -> tuple[bytes, int | None]:
        return b"", None

    def queued(self, request: int) -> int:
        return 0

    def set_way(self, way: str) -> None:
        """There is none."""

    async def write(self, data: Buffer) -> None:
        """Nothing is sent."""

    async def shutdown_write(self) -> None:
        """Nothing was sent."""

    async def close(self) -> None:
        """Nothing was open."""

    def abort(self) -> None:
        """Nothing was open."""

    def wake(self) -> None:
        """Nobody sleeps."""

    def get_option(self, level: int, option: int, length: int, request: bytes) -> bytes:
        return bytes(length)

    def set_option(self, level: int, option: int, value: bytes) -> bytes:
        return b""

    def describe(self) -> dict[str, object]:
        return {}

    def subflows(self) -> list[SubflowTraffic]:
        return [SubflowTraffic(*ends, count, count + 1) for ends, count in self.present.items()]


@pytest.fixture
def loop() -> Iterator[VirtualTimeLoop]:
    loop = VirtualTimeLoop(Simulator())
    yield loop
    loop.close()


def sampled(
    loop: VirtualTimeLoop, stream: FakeStream, seconds: float, changes: dict[float, Callable[[], None]]
) -> TrafficSeries:
    """What is seen in so many seconds of virtual time."""
    sampler = TrafficSampler(stream, lambda: (7, 8))

    async def run() -> TrafficSeries:
        over = loop.create_future()
        for at, change in changes.items():
            loop.call_later(at, change)
        loop.call_later(seconds, over.set_result, None)
        sampler.start()
        await over
        sampler.stop()
        return sampler.series()

    return loop.run_until_complete(run())


def test_subflows_that_come_and_go(loop: VirtualTimeLoop) -> None:
    stream = FakeStream()
    series = sampled(
        loop,
        stream,
        0.045,
        {
            0.005: lambda: stream.present.update({FIRST: 10}),
            0.015: lambda: stream.present.update({SECOND: 20}),
            0.025: partial(stream.present.__delitem__, FIRST),
        },
    )
    assert series.times_us == (0, 10_000, 20_000, 30_000, 40_000)
    assert (series.sent, series.received) == ((7,) * 5, (8,) * 5)
    first, second = series.subflows
    assert (first.local, first.acknowledged) == ("a 1", (0, 10, 10, 10, 10))
    assert (second.local, second.received) == ("c 3", (0, 0, 21, 21, 21))


def test_a_long_transfer_has_no_more_samples_than_a_short_one(loop: VirtualTimeLoop) -> None:
    series = sampled(loop, FakeStream(), 100.0, {})
    assert MAXIMUM_SAMPLES // 2 <= len(series.times_us) <= MAXIMUM_SAMPLES
    assert (series.times_us[0], series.times_us[-1] > 90_000_000) == (0, True)
    lengths = {len(values) for values in (series.sent, series.received, series.subflows[0].acknowledged)}
    assert lengths == {len(series.times_us)}
    # evenly: halving leaves no dense beginning behind
    gaps = [later - earlier for earlier, later in zip(series.times_us, series.times_us[1:], strict=False)]
    assert max(gaps[:-1]) <= 2 * min(gaps[:-1])


def test_subflows_are_bounded(loop: VirtualTimeLoop) -> None:
    stream = FakeStream()
    stream.present = {(f"a {number}", "b 1"): 1 for number in range(2 * MAXIMUM_SUBFLOWS)}
    assert len(sampled(loop, stream, 0.02, {}).subflows) == MAXIMUM_SUBFLOWS


def connected(protocol: int) -> tuple[socket.socket, socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
        client.connect(listening.getsockname())
        return client, listening.accept()[0]


@pytest.mark.skipif(kernel_mptcp_missing() is not None, reason="no kernel MPTCP")
def test_what_the_kernel_tells_of_a_subflow() -> None:
    client, server = connected(IPPROTO_MPTCP)
    with client, server:
        client.sendall(b"x" * 1000)
        assert len(server.recv(1000, socket.MSG_WAITALL)) == 1000
        (subflow,) = mptcp_subflows(server)
        assert subflow.received == 1000
        assert subflow.local == f"127.0.0.1 {server.getsockname()[1]}"
        assert subflow.remote == f"127.0.0.1 {client.getsockname()[1]}"
        # plain TCP sockets have no such option
        first, second = connected(socket.IPPROTO_TCP)
        with first, second:
            assert mptcp_subflows(first) == []


def test_what_the_kernel_tells_of_plain_tcp() -> None:
    client, server = connected(socket.IPPROTO_TCP)
    with client, server:
        client.sendall(b"x" * 1000)
        assert len(server.recv(1000, socket.MSG_WAITALL)) == 1000
        (subflow,) = plain_subflow(server, "a 1", "b 2")
        assert (subflow.local, subflow.received) == ("a 1", 1000)
