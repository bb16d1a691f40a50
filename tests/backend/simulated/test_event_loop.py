"""asyncio in virtual time: waiting costs none of the real one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from mptcp_stack.simulator import SimulationError, Simulator
from testbed.backend.simulated.event_loop import VirtualTimeLoop


@pytest.fixture
def simulator() -> Simulator:
    return Simulator()


@pytest.fixture
def loop(simulator: Simulator) -> Iterator[VirtualTimeLoop]:
    loop = VirtualTimeLoop(simulator)
    yield loop
    loop.close()


def after(loop: VirtualTimeLoop, seconds: float) -> asyncio.Future[None]:
    """Done when so much virtual time has passed."""
    passed = loop.create_future()
    loop.call_later(seconds, passed.set_result, None)
    return passed


def test_an_hour_passes_at_once(simulator: Simulator, loop: VirtualTimeLoop) -> None:
    started = time.monotonic()
    loop.run_until_complete(after(loop, 3600))
    assert time.monotonic() - started < 60
    assert simulator.now_us == 3_600_000_000
    assert loop.time() == 3600.0


def test_timers_and_events_of_the_simulation_take_turns(simulator: Simulator, loop: VirtualTimeLoop) -> None:
    seen: list[tuple[str, int]] = []
    for at_us in (5, 1_000, 200_000):
        simulator.call_at(at_us, lambda: seen.append(("event", simulator.now_us)))

    async def sleeper() -> None:
        for _ in range(3):
            await after(loop, 0.000_5)
            seen.append(("timer", simulator.now_us))

    loop.run_until_complete(sleeper())
    assert seen == [("event", 5), ("timer", 500), ("event", 1000), ("timer", 1000), ("timer", 1500)]


def test_an_event_wakes_a_task(simulator: Simulator, loop: VirtualTimeLoop) -> None:
    async def wait() -> int:
        waiter = loop.create_future()
        simulator.call_at(77, lambda: waiter.set_result(simulator.now_us))
        return int(await waiter)

    assert loop.run_until_complete(wait()) == 77


def test_a_wait_that_nothing_can_end_is_an_error(loop: VirtualTimeLoop) -> None:
    async def wait() -> None:
        await loop.create_future()

    with pytest.raises(SimulationError, match="nothing is left to happen"):
        loop.run_until_complete(wait())


def test_a_timeout_comes_in_virtual_time(simulator: Simulator, loop: VirtualTimeLoop) -> None:
    async def wait() -> None:
        async with asyncio.timeout(30):
            await loop.create_future()

    with pytest.raises(TimeoutError):
        loop.run_until_complete(wait())
    assert simulator.now_us == 30_000_000


def test_an_interrupt_as_a_wait_ends_does_not_end_the_next(loop: VirtualTimeLoop) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    async def interrupted() -> None:
        loop.call_soon(interrupt)

    with pytest.raises(KeyboardInterrupt):
        loop.result_of(interrupted())
    assert loop.result_of(asyncio.sleep(0, "well")) == "well"


def test_what_a_wait_ends_with_comes_out(loop: VirtualTimeLoop) -> None:
    async def fail() -> None:
        raise RuntimeError("oh")

    with pytest.raises(RuntimeError, match="oh"):
        loop.result_of(fail())
