"""How a system call on the bundled stack blocks and returns.

A call is an *attempt*: a function that is tried when the call starts and whenever something has happened
since, until it gives a result. None from it means that the call blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from errno import EAGAIN, ENOTCONN, errorcode

from mptcp_stack.mptcp.connection import Connection
from testbed.packetdrill.stack_under_test import CallResult, Value
from testbed.packetdrill.userspace_descriptors import Endpoint, StreamSocket


@dataclass(frozen=True, slots=True)
class Done:
    """What a call gives back; ``outputs`` by argument position."""

    value: int
    outputs: dict[int, Value] = field(default_factory=dict)


Try = Callable[[int], Done | None]
"""Given the time; raises OSError for the errno that the call ends with."""
Attempt = Callable[[int], CallResult | None]
"""As `Try`, with the errno in the result."""
Handler = Callable[[list[Value]], Try]
"""Starts a call with its arguments. Raises OSError, and ValueError for arguments that make no sense."""


def as_attempt(attempt: Try) -> Attempt:
    def run(now_us: int) -> CallResult | None:
        try:
            done = attempt(now_us)
        except OSError as error:
            return _failed(error, now_us)
        return None if done is None else CallResult(done.value, None, done.outputs, now_us)

    return run


def failing(error: OSError) -> Attempt:
    """A call that has failed before it could wait for anything."""
    return lambda now_us: _failed(error, now_us)


def _failed(error: OSError, now_us: int) -> CallResult:
    name = errorcode.get(error.errno or 0, str(error.errno))
    return CallResult(-1, "EOPNOTSUPP" if name == "ENOTSUP" else name, {}, now_us)


def finished(value: int, outputs: dict[int, Value] | None = None) -> Try:
    """A call that does not block."""
    done = Done(value, outputs or {})
    return lambda _now_us: done


def would_block(endpoint: Endpoint, *, must_not_wait: bool = False) -> None:
    """The call waits, unless the descriptor is non-blocking: then OSError(EAGAIN)."""
    if endpoint.is_nonblocking or must_not_wait:
        raise OSError(EAGAIN, "nothing to be done without waiting")


def number_argument(value: Value, what: str, default: int | None = None) -> int:
    """A number of a script, alone or as ``[N]``; raises ValueError."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, int):
        return value
    if value is None and default is not None:
        return default
    raise ValueError(f"{what}: expected a number")


def connection_of(endpoint: StreamSocket) -> Connection:
    """Raises OSError(ENOTCONN)."""
    if endpoint.connection is None:
        raise OSError(ENOTCONN, "not connected")
    return endpoint.connection
