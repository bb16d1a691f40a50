"""An asyncio event loop whose clock is a simulation's: waiting for time makes it pass.

Everything that is written for asyncio runs on it unchanged. When no callback is ready, the loop waits in its
selector; there the simulation goes on by one step, at most to the loop's next timer.
"""

from __future__ import annotations

import asyncio
import math
import selectors

from mptcp_stack.simulator import SimulationError, Simulator


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs coroutines in the time of ``simulator``. No file descriptor is ever ready."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        super().__init__(_VirtualSelector(simulator))

    def time(self) -> float:
        return self._simulator.now_us / 1_000_000


class _VirtualSelector(selectors.SelectSelector):
    def __init__(self, simulator: Simulator) -> None:
        super().__init__()
        self._simulator = simulator

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Raises SimulationError where nothing could ever end the wait."""
        if timeout is not None and timeout <= 0:
            return []
        # a difference of two times in seconds is off by less than a thousandth of a microsecond
        wait_us = None if timeout is None else math.ceil(timeout * 1_000_000 - 0.001)
        end_us = None if wait_us is None else self._simulator.now_us + wait_us
        if not self._simulator.advance(end_us):
            raise SimulationError(f"nothing is left to happen at {self._simulator.now_us} µs")
        return []
