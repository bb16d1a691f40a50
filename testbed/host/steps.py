"""Workloads of steps: what a client tells an agent to do with a connection, one thing after the other."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from testbed.host.exchange import Exchange
from testbed.host.messages import from_json, to_json
from testbed.host.protocol import StepAnswer, StepKind
from testbed.host.rpc_server import RequestError
from testbed.host.socket_options import SHORTEST_S

MAXIMUM_STEP_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Step:
    """Of connection ``connection`` of workload ``id``, counted in the order in which they came to be."""

    id: int
    connection: int
    kind: StepKind
    number: int = 0
    """Bytes, or the request of ``ioctl``."""


class StepRequests:
    """The method of an agent that is about steps. Where the stack refuses the answer is ``{"errno": …}``."""

    def __init__(self, exchange_of: Callable[[int, int], Exchange]) -> None:
        """``exchange_of`` finds a connection by workload and number, and raises RequestError."""
        self._exchange_of = exchange_of

    def methods(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[object]]]:
        return {"step": self._step}

    async def _step(self, parameters: dict[str, Any]) -> object:
        wanted = from_json(Step, parameters)
        exchange = self._exchange_of(wanted.id, wanted.connection)
        if wanted.kind is not StepKind.ASK and not exchange.takes_steps:
            raise RequestError(f"{wanted.kind}: the workload is none of steps")
        if not 0 <= wanted.number <= MAXIMUM_STEP_BYTES:
            raise RequestError(f"number: expected 0 to {MAXIMUM_STEP_BYTES}, got {wanted.number}")
        try:
            return to_json(await _carry_out(exchange, wanted))
        except OSError as error:
            return {"errno": errno.errorcode.get(error.errno or 0, "EIO")}


async def _carry_out(exchange: Exchange, step: Step) -> StepAnswer:
    match step.kind:
        case StepKind.SEND:
            exchange.send_soon(step.number)
            return StepAnswer(step.number)
        case StepKind.END:
            exchange.end_soon()
            return StepAnswer(0)
        case StepKind.RECEIVE:
            return StepAnswer(*await exchange.receive_once(max(1, step.number)))
        case StepKind.ASK:
            # What was told before comes first.
            await asyncio.sleep(SHORTEST_S)
            return StepAnswer(exchange.stream.queued(step.number))
