"""A listening socket: which connections wait to be accepted, and how many may wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum, auto

from mptcp_stack.counters import Counters
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.tcp.socket_options import DEFAULT_SOCKET_OPTIONS
from mptcp_stack.tcp.states import State

_MAXIMUM_HALF_OPEN_JOINS = 16
"""Of one connection, before further ones are answered by cookies."""


class Answer(Enum):
    """What a SYN gets."""

    CONNECTION = auto()
    COOKIE = auto()
    """A SYN/ACK that makes us keep nothing."""
    NONE = auto()


class Listener:
    """``address`` None takes any address of both families. ``backlog`` bounds the half open and the ready.

    With ``is_ipv6`` what it accepts are IPv6 sockets, also when an IPv4 peer came.
    """

    __slots__ = (
        "_counters",
        "_half_open",
        "_on_close",
        "_ready",
        "address",
        "backlog",
        "cookies_until_us",
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
        self.backlog = max(1, backlog)
        self.on_change: Callable[[], None] | None = None
        self.socket_options = DEFAULT_SOCKET_OPTIONS
        """What connections that come have from their first segment on."""
        self.cookies_until_us = 0
        """Until when a third packet may belong to a SYN of which nothing was kept."""
        self.is_closed = False
        self.is_for_joins = False
        """Of an announced port: no connection begins there."""
        self._counters = counters
        self._on_close = on_close
        self._half_open: set[Connection] = set()
        self._ready: deque[Connection] = deque()

    def answer_to_syn(self, tcp_syncookies: int) -> Answer:
        """What one more SYN is to get, by the setting; counts the refusal."""
        if tcp_syncookies < 2 and len(self._half_open) < self.backlog:
            return Answer.CONNECTION if self.has_room_for_ready() else Answer.NONE
        if not tcp_syncookies:
            self._counters.increment("TcpExtTCPReqQFullDrop")
            self._count_drop()
            return Answer.NONE
        self._counters.increment("TcpExtTCPReqQFullDoCookies")
        return Answer.COOKIE if self.has_room_for_ready() else Answer.NONE

    def answers_joins_by_cookie(self, connection: Connection, tcp_syncookies: int) -> bool:
        """As for first SYNs; also when one connection has many joins half open, whose token is known then."""
        half_open = sum(subflow.state is State.SYN_RECEIVED for subflow in connection.subflows)
        is_full = half_open >= _MAXIMUM_HALF_OPEN_JOINS or len(self._half_open) >= self.backlog
        if not tcp_syncookies or (tcp_syncookies == 1 and not is_full):
            return False
        self._counters.increment("TcpExtTCPReqQFullDoCookies")
        return True

    def has_room_for_ready(self) -> bool:
        """Whether one more connection may wait to be accepted; counts the refusal."""
        if len(self._ready) < self.backlog:
            return True
        self._counters.increment("TcpExtListenOverflows")
        self._count_drop()
        return False

    def _count_drop(self) -> None:
        self._counters.increment("TcpExtListenDrops")
        self._counters.increment("StackDropListenQueueFull")

    def on_syn(self, connection: Connection) -> None:
        self._half_open.add(connection)

    def on_ready(self, connection: Connection) -> bool:
        """True when the connection was one of this listener's."""
        if connection not in self._half_open:
            return False
        self._half_open.discard(connection)
        self._ready.append(connection)
        if self.on_change is not None:
            self.on_change()
        return True

    def on_gone(self, connection: Connection) -> None:
        """A connection ended before it was established."""
        self._half_open.discard(connection)

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
        """What was not accepted is reset."""
        if self.is_closed:
            return
        self.is_closed = True
        self._on_close(self)
        for connection in (*self._ready, *self._half_open):
            connection.abort()
        self._ready.clear()
        self._half_open.clear()
