"""A listening socket: which connections wait to be accepted, and how many may wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum, auto

from mptcp_stack.counters import Counters
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.tcp.fast_open import FastOpenQueue
from mptcp_stack.tcp.request import Request
from mptcp_stack.tcp.socket_options import DEFAULT_SOCKET_OPTIONS

_MAXIMUM_HALF_OPEN_JOINS = 16
"""Of one connection, before further ones are answered by cookies."""


class Answer(Enum):
    """What a SYN gets."""

    REQUEST = auto()
    """A SYN/ACK that is sent again until the third packet comes."""
    COOKIE = auto()
    """A SYN/ACK that makes us keep nothing."""
    NONE = auto()


class Listener:
    """``address`` None takes any address of both families.

    One more than ``backlog`` requests may be half open, and as many connections wait ready, as in Linux.

    With ``is_ipv6`` what it accepts are IPv6 sockets, also when an IPv4 peer came.
    """

    __slots__ = (
        "_counters",
        "_on_close",
        "_ready",
        "_young",
        "address",
        "backlog",
        "cookies_until_us",
        "fast_open",
        "half_open",
        "is_closed",
        "is_for_joins",
        "is_ipv6",
        "is_mptcp",
        "on_change",
        "port",
        "socket_options",
    )

    def __init__(
        self,
        address: bytes | None,
        port: int,
        *,
        is_mptcp: bool,
        is_ipv6: bool,
        backlog: int,
        counters: Counters,
        on_close: Callable[[Listener], None],
    ) -> None:
        self.address, self.port = address, port
        self.is_mptcp = is_mptcp
        self.is_ipv6 = is_ipv6
        self.backlog = backlog
        self.on_change: Callable[[], None] | None = None
        self.socket_options = DEFAULT_SOCKET_OPTIONS
        """What connections that come have from their first segment on."""
        self.cookies_until_us = 0
        """Until when a third packet may belong to a SYN of which nothing was kept."""
        self.fast_open: FastOpenQueue | None = None
        self.is_closed = False
        self.is_for_joins = False
        """Of an announced port: no connection begins there."""
        self._counters = counters
        self._on_close = on_close
        self.half_open = 0
        """Requests, those of joins included."""
        self._young = 0
        """Those whose SYN/ACK has been sent once only."""
        self._ready: deque[Connection] = deque()

    def answer_to_syn(self, tcp_syncookies: int, tcp_max_syn_backlog: int) -> Answer:
        """What one more SYN is to get, by the settings; counts the refusal."""
        if tcp_syncookies < 2 and self.half_open <= self.backlog:
            if not self.has_room_for_ready():
                return Answer.NONE
            room = tcp_max_syn_backlog - self.half_open
            if not tcp_syncookies and room < tcp_max_syn_backlog >> 2:
                # Linux keeps the last quarter for peers that it knows, and this stack knows none.
                self._count_drop()
                return Answer.NONE
            return Answer.REQUEST
        if not tcp_syncookies:
            self._counters.increment("TcpExtTCPReqQFullDrop")
            self._count_drop()
            return Answer.NONE
        self._counters.increment("TcpExtTCPReqQFullDoCookies")
        return Answer.COOKIE if self.has_room_for_ready() else Answer.NONE

    def answers_joins_by_cookie(self, half_open_joins: int, tcp_syncookies: int) -> bool:
        """As for first SYNs; also when one connection has many joins half open, whose token is known then."""
        is_full = half_open_joins >= _MAXIMUM_HALF_OPEN_JOINS or self.half_open > self.backlog
        if not tcp_syncookies or (tcp_syncookies == 1 and not is_full):
            return False
        self._counters.increment("TcpExtTCPReqQFullDoCookies")
        return True

    def has_room_for_ready(self) -> bool:
        """Whether one more connection may wait to be accepted; counts the refusal."""
        if len(self._ready) <= self.backlog:
            return True
        self._counters.increment("TcpExtListenOverflows")
        self._count_drop()
        return False

    def _count_drop(self) -> None:
        self._counters.increment("TcpExtListenDrops")
        self._counters.increment("StackDropListenQueueFull")

    def on_request(self) -> None:
        """One more is half open."""
        self.half_open += 1
        self._young += 1

    def on_request_gone(self, request: Request) -> None:
        """It has become a connection, or will never."""
        self.half_open -= 1
        self._young -= not request.timeouts

    def answers_to_send(self, request: Request, tcp_synack_retries: int) -> int:
        """How often a SYN/ACK that was not acknowledged in time is sent again, as Linux has it.

        When half of the places are taken, old ones give way: the fewer are young, the sooner.
        """
        if 2 * self.half_open > max(8, self.backlog):
            young = 2 * self._young
            while tcp_synack_retries > 2 and self.half_open >= young:
                tcp_synack_retries -= 1
                young *= 2
        self._young -= not request.timeouts
        return tcp_synack_retries

    def on_ready(self, connection: Connection) -> None:
        self._ready.append(connection)
        if self.on_change is not None:
            self.on_change()

    def is_waiting(self, connection: Connection) -> bool:
        return connection in self._ready

    @property
    def has_ready(self) -> bool:
        """Whether ``accept`` would give a connection."""
        return bool(self._ready)

    def accept(self) -> Connection | None:
        """The oldest connection that waits, or None."""
        if not self._ready:
            return None
        connection = self._ready.popleft()
        if connection.is_mptcp:
            # Counted here and not when the packet comes, as Linux does.
            self._counters.increment("MPTcpExtMPCapableACKRX")
        return connection

    def close(self) -> None:
        """What was not accepted is reset; requests are forgotten without a word, as in Linux."""
        if self.is_closed:
            return
        self.is_closed = True
        self._on_close(self)
        for connection in self._ready:
            connection.abort()
        self._ready.clear()
