"""An asyncio event loop whose clock is a simulation's: waiting for time makes it pass.

Everything that is written for asyncio runs on it unchanged. When no callback is ready, the loop waits in its
selector; there the simulation goes on by one step, at most to the loop's next timer.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import TypeVar, TypeVarTuple, Unpack

from mptcp_stack.simulator import SimulationError, Simulator

_Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs coroutines in the time of ``simulator``. No file descriptor is ever ready."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._waiting = _VirtualSelector(simulator)
        super().__init__(self._waiting)

    def call_soon(
        self,
        callback: Callable[[Unpack[_Arguments]], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        self._waiting.is_wanted = True
        return super().call_soon(callback, *args, context=context)

    def result_of(self, awaitable: Awaitable[_Result]) -> _Result:
        """As run_until_complete, but nothing that an interrupted wait left behind ends this one early."""
        task = asyncio.ensure_future(awaitable, loop=self)
        while True:
            try:
                return self.run_until_complete(task)
            except RuntimeError:
                if task.done() or self.is_closed() or self.is_running():
                    raise

    def time(self) -> float:
        return self._simulator.now_us / 1_000_000


class _VirtualSelector(selectors.SelectSelector):
    def __init__(self, simulator: Simulator) -> None:
        super().__init__()
        self._simulator = simulator
        self.is_wanted = False
        """Something is to run before time goes on."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Raises SimulationError where nothing could ever end the wait."""
        if timeout is not None and timeout <= 0:
            return []
        # Where a host talks to itself, nothing but this gives an application something to do.
        self.is_wanted = False
        self._simulator.serve()
        if self.is_wanted:
            return []
        # a difference of two times in seconds is off by less than a thousandth of a microsecond
        wait_us = None if timeout is None else math.ceil(timeout * 1_000_000 - 0.001)
        end_us = None if wait_us is None else self._simulator.now_us + wait_us
        if not self._simulator.advance(end_us):
            raise SimulationError(f"nothing is left to happen at {self._simulator.now_us} µs")
        return []
