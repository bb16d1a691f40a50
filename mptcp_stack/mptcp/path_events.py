"""What happens to a host's connections and their paths, told to whoever manages paths from outside.

Names and fields are those of the events of Linux's netlink family mptcp_pm, and so are the moments.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from errno import ENOBUFS
from typing import TYPE_CHECKING

from mptcp_stack.mptcp.states import DataState

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.mptcp.subflow import MptcpSubflow

MAXIMUM_WAITING_EVENTS = 1024


@dataclass(frozen=True, slots=True)
class PathEvent:
    """Fields that the event does not have are None. ``server_side``: this host accepted the connection."""

    name: str
    """created, established, closed, announced, removed, sub_established, sub_closed, sub_priority,
    listener_created or listener_closed."""
    token: int | None = None
    local: tuple[bytes, int] | None = None
    remote: tuple[bytes, int] | None = None
    local_id: int | None = None
    remote_id: int | None = None
    backup: bool | None = None
    error: int | None = None
    server_side: bool | None = None
    deny_join_id0: bool | None = None
    reset_reason: int | None = None
    reset_flags: int | None = None
    """1: the peer calls the reason of its reset transient (RFC 8684 §3.6)."""


class Subscription:
    """The events since it began, until they are taken. Raises OSError(ENOBUFS) once when some were lost."""

    __slots__ = ("_events", "_is_overrun", "_waiting")

    def __init__(self, events: PathEvents) -> None:
        self._events = events
        self._waiting: deque[PathEvent] = deque()
        self._is_overrun = False
        events.subscriptions.append(self)

    def put(self, event: PathEvent) -> None:
        if len(self._waiting) < MAXIMUM_WAITING_EVENTS:
            self._waiting.append(event)
        else:
            self._is_overrun = True

    def take(self) -> list[PathEvent]:
        """In their order; empty when nothing has happened."""
        if self._is_overrun:
            self._is_overrun = False
            raise OSError(ENOBUFS, "events were lost: they were not taken soon enough")
        events = list(self._waiting)
        self._waiting.clear()
        return events

    def close(self) -> None:
        if self in self._events.subscriptions:
            self._events.subscriptions.remove(self)


class PathEvents:
    """Of one host. Costs nothing while nobody listens."""

    __slots__ = ("subscriptions",)

    def __init__(self) -> None:
        self.subscriptions: list[Subscription] = []

    def subscribe(self) -> Subscription:
        return Subscription(self)

    def tell(self, event: PathEvent) -> None:
        for subscription in self.subscriptions:
            subscription.put(event)

    # --- what connections tell ---

    def on_connection(self, name: str, connection: Connection, subflow: MptcpSubflow) -> None:
        """created or established."""
        if not self.subscriptions:
            return
        self.tell(
            PathEvent(
                name,
                connection.local_key.token,
                connection.local,
                connection.remote,
                local_id=subflow.local_id,
                remote_id=subflow.remote_id,
                server_side=not connection.is_client,
                deny_join_id0=connection.peer_denies_join_initial,
            )
        )

    def on_connection_closed(self, connection: Connection) -> None:
        """By its application, as in Linux."""
        if self.subscriptions and connection.remote_key is not None:
            self.tell(PathEvent("closed", connection.local_key.token))

    def on_subflow(self, name: str, subflow: MptcpSubflow, error: int | None = None) -> None:
        """sub_established, sub_closed or sub_priority."""
        connection = subflow.connection
        reset = subflow.reset_received if name == "sub_closed" else None
        if not self.subscriptions or (name == "sub_closed" and connection.state is not DataState.ESTABLISHED):
            return
        self.tell(
            PathEvent(
                name,
                connection.local_key.token,
                (subflow.local, subflow.local_port),
                (subflow.remote, subflow.remote_port),
                local_id=subflow.local_id,
                remote_id=subflow.remote_id,
                backup=subflow.counts_as_backup,
                error=error,
                reset_reason=None if reset is None else reset.reason,
                reset_flags=None if reset is None else int(reset.transient),
            )
        )

    def on_announced(self, subflow: MptcpSubflow, address: bytes, port: int | None, identifier: int) -> None:
        if self.subscriptions:
            remote = address, subflow.remote_port if port is None else port
            token = subflow.connection.local_key.token
            self.tell(PathEvent("announced", token, remote=remote, remote_id=identifier))

    def on_removed(self, connection: Connection, identifier: int) -> None:
        if self.subscriptions:
            self.tell(PathEvent("removed", connection.local_key.token, remote_id=identifier))

    def on_listener(self, name: str, address: bytes | None, port: int) -> None:
        """listener_created or listener_closed."""
        if self.subscriptions:
            self.tell(PathEvent(name, local=(bytes(16) if address is None else address, port)))
