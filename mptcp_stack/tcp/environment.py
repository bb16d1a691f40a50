"""What every subflow of a stack shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mptcp_stack.counters import Counters
from mptcp_stack.ip.layer import IpLayer
from mptcp_stack.settings import StackSettings
from mptcp_stack.tcp.fast_open import FastOpen
from mptcp_stack.tcp.initial_sequence import KeyedNumbers
from mptcp_stack.tcp.request import RequestTable
from mptcp_stack.tcp.time_wait import TimeWaitTable
from mptcp_stack.tcp.timers import TimerQueue

if TYPE_CHECKING:
    from mptcp_stack.tcp.subflow import Subflow

FourTuple = tuple[bytes, int, bytes, int]
"""Local address, local port, remote address, remote port."""


@dataclass(slots=True)
class Environment:
    """The host around its subflows: settings, counters, timers, the IP layer, randomness."""

    settings: StackSettings
    counters: Counters
    timers: TimerQueue
    ip: IpLayer
    random_bytes: Callable[[int], bytes]
    subflows: dict[FourTuple, Subflow] = field(default_factory=dict)
    """The demultiplexing table: every subflow that is not closed."""

    requests: RequestTable = field(init=False)
    """What was answered and is no subflow yet."""
    time_waits: TimeWaitTable = field(init=False)
    """What ended, but must still be answered for."""
    numbers: KeyedNumbers = field(init=False)
    fast_open: FastOpen = field(init=False)

    def __post_init__(self) -> None:
        self.requests = RequestTable(self)
        self.time_waits = TimeWaitTable(self)
        self.numbers = KeyedNumbers(self.random_bytes)
        self.fast_open = FastOpen(self.random_bytes, self.counters)

    def random_number(self, bits: int) -> int:
        return int.from_bytes(self.random_bytes((bits + 7) // 8), "big") >> (-bits % 8)
