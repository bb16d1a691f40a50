"""What the drivers (run loop, simulator, sockets) need of a stack, as structural types.

The real :class:`mptcp_stack.stack.Stack` has this shape; so has whatever a test puts in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from mptcp_stack.counters import Counters
from mptcp_stack.ip.interface import Interface
from mptcp_stack.wire.frame import Buffer, Frame


class DrivenStack(Protocol):
    """The sans-I/O surface: frames and times in, frames and a deadline out."""

    @property
    def counters(self) -> Counters: ...

    def receive_frame(self, frame: Frame, interface: Interface, now_us: int) -> None: ...

    def frames_to_send(self, now_us: int) -> list[tuple[Interface, Frame]]: ...

    def next_deadline_us(self) -> int | None: ...

    def handle_deadline(self, now_us: int) -> None: ...


class StreamConnection(Protocol):
    """A connection as an application sees it, MPTCP or plain TCP."""

    on_change: Callable[[], None] | None

    @property
    def end_of_stream(self) -> bool: ...

    @property
    def unacknowledged_bytes(self) -> int: ...

    @property
    def wants_output(self) -> bool:
        """Whether the stack has something to send for it, as the news of a window that reading opened."""
        ...

    @property
    def is_established(self) -> bool: ...

    @property
    def is_closed(self) -> bool: ...

    @property
    def is_mptcp(self) -> bool: ...

    @property
    def error(self) -> int | None: ...

    @property
    def local(self) -> tuple[bytes, int]: ...

    @property
    def remote(self) -> tuple[bytes, int]: ...

    def read(self, max_bytes: int) -> bytes: ...

    def peek(self, max_bytes: int) -> bytes: ...

    def write(self, data: Buffer, *, urgent: bool = False) -> int: ...

    def check_writable(self) -> bool:
        """Whether a writer that found no room goes on: there is enough of it again, or writing fails."""
        ...

    def shutdown_write(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def disconnect(self) -> int:
        """Ends it at once. What SO_ERROR tells of that: an errno, or 0."""
        ...


class StreamListener(Protocol):
    """A listening port as an application sees it."""

    on_change: Callable[[], None] | None

    @property
    def address(self) -> bytes | None: ...

    @property
    def port(self) -> int: ...

    def accept(self) -> StreamConnection | None: ...

    def close(self) -> None: ...


class SocketStack(DrivenStack, Protocol):
    """A stack that applications can open sockets on."""

    def receive_frames(self, frames: Sequence[Frame], interface: Interface, now_us: int) -> None: ...

    def listen(
        self, address: bytes | None, port: int = 0, *, protocol: str = "mptcp", backlog: int = 128
    ) -> StreamListener: ...

    def connect(
        self,
        remote: bytes,
        port: int,
        *,
        protocol: str = "mptcp",
        local: bytes | None = None,
        local_port: int = 0,
    ) -> StreamConnection: ...
