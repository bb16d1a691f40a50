"""A listening socket: which connections wait to be accepted, and how many may wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from mptcp_stack.counters import Counters
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.tcp.socket_options import DEFAULT_SOCKET_OPTIONS


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
        "is_closed",
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
        self.is_closed = False
        self._counters = counters
        self._on_close = on_close
        self._half_open: set[Connection] = set()
        self._ready: deque[Connection] = deque()

    def has_room(self) -> bool:
        """Whether one more SYN may be answered; counts the refusal."""
        if len(self._ready) >= self.backlog:
            self._counters.increment("TcpExtListenOverflows")
        elif len(self._half_open) < self.backlog:
            return True
        self._counters.increment("TcpExtListenDrops")
        self._counters.increment("StackDropListenQueueFull")
        return False

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
