"""The methods of an agent: what each takes, and what it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from testbed.host.exchange import Exchange
from testbed.host.host_stack import HostStack, HostStackError
from testbed.host.listing import ListingRequests
from testbed.host.messages import from_json, to_json
from testbed.host.path_control import PathRequests
from testbed.host.protocol import EndpointRequest, NetworkChange, Workload
from testbed.host.rpc_server import RequestError
from testbed.host.socket_options import OptionRequests
from testbed.host.steps import StepRequests
from testbed.host.streams import Stream
from testbed.host.workloads import MAXIMUM_TIMEOUT_US, RunningWorkload, WorkloadError

MAXIMUM_WORKLOADS = 1024
"""Kept with their results; the oldest that has ended makes room for a new one."""

Parameters = dict[str, Any]
Message = TypeVar("Message")


@dataclass(frozen=True, slots=True)
class _Nothing:
    """A method without parameters."""


@dataclass(frozen=True, slots=True)
class _Identified:
    id: int


@dataclass(frozen=True, slots=True)
class _Wait:
    id: int
    milestone: str
    timeout_us: int = 60_000_000


@dataclass(frozen=True, slots=True)
class _Limits:
    subflows: int
    add_addr_accepted: int


@dataclass(frozen=True, slots=True)
class _DeleteEndpoint:
    identifier: int
    address: str | None = None


@dataclass(frozen=True, slots=True)
class _SetFlags:
    flags: tuple[str, ...]
    identifier: int | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class _SetInterface:
    name: str
    up: bool


@dataclass(frozen=True, slots=True)
class _Reach:
    address: str
    timeout_us: int


class RequestHandler:
    """Carries out the requests of all clients of one agent."""

    def __init__(self, stack: HostStack, host: str) -> None:
        self._stack = stack
        self._host = host
        self._workloads: dict[int, RunningWorkload] = {}
        self._last_identifier = 0
        self.shutdown_requested = asyncio.Event()
        self._methods: dict[str, Callable[[Parameters], Awaitable[object]]] = {
            "ping": self._ping,
            "shutdown": self._shutdown,
            "start_workload": self._start_workload,
            "progress": self._progress,
            "wait": self._wait,
            "result": self._result,
            "finish": self._finish,
            "stop": self._stop,
            "counters": self._counters,
            "sockets": self._sockets,
            "limits": self._limits,
            "set_limits": self._set_limits,
            "add_endpoint": self._add_endpoint,
            "delete_endpoint": self._delete_endpoint,
            "flush_endpoints": self._flush_endpoints,
            "endpoints": self._endpoints,
            "set_endpoint_flags": self._set_endpoint_flags,
            "set_interface": self._set_interface,
            "change_network": self._change_network,
            "reach": self._reach,
            **PathRequests(stack.paths).methods(),
            **OptionRequests(self._stream).methods(),
            **ListingRequests(stack).methods(),
            **StepRequests(self._exchange).methods(),
        }

    async def handle(self, method: str, parameters: Parameters) -> object:
        """Raises RequestError and MessageError."""
        action = self._methods.get(method)
        if action is None:
            raise RequestError(f"unknown method {method!r:.60}", "protocol")
        try:
            return await action(parameters)
        except (HostStackError, WorkloadError) as error:
            raise RequestError(str(error)) from None

    async def close(self) -> None:
        """Stop every workload."""
        for workload in self._workloads.values():
            workload.stop()
        await asyncio.gather(*(workload.ended() for workload in self._workloads.values()))

    async def _ping(self, parameters: Parameters) -> object:
        from_json(_Nothing, parameters)
        return {"host": self._host}

    async def _shutdown(self, parameters: Parameters) -> object:
        from_json(_Nothing, parameters)
        # The answer goes out first.
        asyncio.get_running_loop().call_soon(self.shutdown_requested.set)
        return {}

    async def _start_workload(self, parameters: Parameters) -> object:
        self._make_room()
        workload = RunningWorkload(from_json(Workload, parameters), self._stack.network)
        try:
            workload.start()
        except OSError as error:
            raise RequestError(f"cannot listen: {error}") from None
        self._last_identifier += 1
        self._workloads[self._last_identifier] = workload
        return {"id": self._last_identifier, **to_json(workload.progress())}

    def _make_room(self) -> None:
        if len(self._workloads) < MAXIMUM_WORKLOADS:
            return
        for identifier, workload in self._workloads.items():
            if workload.has_ended:
                del self._workloads[identifier]
                return
        raise RequestError(f"{MAXIMUM_WORKLOADS} workloads are running already")

    def _workload(self, identifier: int) -> RunningWorkload:
        if identifier not in self._workloads:
            raise RequestError(f"no workload {identifier}")
        return self._workloads[identifier]

    def _stream(self, identifier: int, number: int) -> Stream:
        return self._exchange(identifier, number).stream

    def _exchange(self, identifier: int, number: int) -> Exchange:
        return self._workload(identifier).exchange(number)

    async def _progress(self, parameters: Parameters) -> object:
        return to_json(self._workload(from_json(_Identified, parameters).id).progress())

    async def _wait(self, parameters: Parameters) -> object:
        wanted = from_json(_Wait, parameters)
        workload = self._workload(wanted.id)
        try:
            async with asyncio.timeout(max(0, wanted.timeout_us) / 1_000_000):
                await workload.wait(wanted.milestone)
        except TimeoutError:
            progress = workload.progress()
            raise RequestError(
                f"{wanted.milestone!r} not reached within {wanted.timeout_us / 1_000_000:g} s:"
                f" {progress.state}, {progress.connected} connected,"
                f" {progress.bytes_sent} bytes sent, {progress.bytes_received} received",
                "timeout",
            ) from None
        return to_json(workload.progress())

    async def _result(self, parameters: Parameters) -> object:
        workload = self._workload(from_json(_Identified, parameters).id)
        if not workload.has_ended:
            raise RequestError("the workload has not ended yet")
        return [to_json(result) for result in workload.results]

    async def _finish(self, parameters: Parameters) -> object:
        self._workload(from_json(_Identified, parameters).id).finish()
        return {}

    async def _stop(self, parameters: Parameters) -> object:
        workload = self._workload(from_json(_Identified, parameters).id)
        workload.stop()
        await workload.ended()
        return {}

    async def _counters(self, parameters: Parameters) -> object:
        from_json(_Nothing, parameters)
        return self._stack.counters()

    async def _sockets(self, parameters: Parameters) -> object:
        from_json(_Nothing, parameters)
        return await self._stack.sockets()

    async def _limits(self, parameters: Parameters) -> object:
        from_json(_Nothing, parameters)
        subflows, add_addr_accepted = self._stack.limits()
        return {"subflows": subflows, "add_addr_accepted": add_addr_accepted}

    async def _set_limits(self, parameters: Parameters) -> object:
        limits = from_json(_Limits, parameters)
        self._stack.set_limits(limits.subflows, limits.add_addr_accepted)
        return {}

    async def _add_endpoint(self, parameters: Parameters) -> object:
        return {"identifier": self._stack.add_endpoint(from_json(EndpointRequest, parameters))}

    async def _delete_endpoint(self, parameters: Parameters) -> object:
        wanted = from_json(_DeleteEndpoint, parameters)
        self._stack.delete_endpoint(wanted.identifier, wanted.address)
        return {}

    async def _flush_endpoints(self, parameters: Parameters) -> object:
        from_json(_Nothing, parameters)
        self._stack.flush_endpoints()
        return {}

    async def _endpoints(self, parameters: Parameters) -> object:
        from_json(_Nothing, parameters)
        return [to_json(endpoint) for endpoint in self._stack.endpoints()]

    async def _set_endpoint_flags(self, parameters: Parameters) -> object:
        wanted = from_json(_SetFlags, parameters)
        self._stack.set_endpoint_flags(wanted.flags, wanted.identifier, wanted.address)
        return {}

    async def _set_interface(self, parameters: Parameters) -> object:
        wanted = from_json(_SetInterface, parameters)
        self._stack.set_interface(wanted.name, wanted.up)
        return {}

    async def _reach(self, parameters: Parameters) -> object:
        wanted = from_json(_Reach, parameters)
        if not 0 < wanted.timeout_us <= MAXIMUM_TIMEOUT_US:
            raise RequestError(f"timeout_us: expected 1 to {MAXIMUM_TIMEOUT_US}, got {wanted.timeout_us}")
        return {"round_trip_us": await self._stack.reach(wanted.address, wanted.timeout_us)}

    async def _change_network(self, parameters: Parameters) -> object:
        self._stack.change_network(from_json(NetworkChange, parameters))
        return {}
