"""The time of a simulated lab, as cases see it."""

from __future__ import annotations

import asyncio

from mptcp_stack.simulator import Simulator
from testbed.backend.simulated.event_loop import VirtualTimeLoop


class VirtualClock:
    """See :class:`testbed.selftests.clock.Clock`."""

    def __init__(self, simulator: Simulator, loop: VirtualTimeLoop) -> None:
        self._simulator = simulator
        self._loop = loop

    def now_us(self) -> int:
        return self._simulator.now_us

    def sleep(self, seconds: float) -> None:
        # A task from the start: one that an interrupt leaves behind is no coroutine that nobody awaited.
        self._loop.run_until_complete(self._loop.create_task(asyncio.sleep(seconds)))
