"""Stand-ins for a stack and its connections, for the tests of what drives them."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Sequence

from mptcp_stack.counters import Counters
from mptcp_stack.ip.interface import Interface, LinkType
from mptcp_stack.wire.frame import Buffer, Frame


def interface(name: str, index: int = 1) -> Interface:
    return Interface(index, name, LinkType.RAW_IP, b"", 1500)


class FakeConnection:
    """A connection whose every state the test sets."""

    def __init__(self, remote: tuple[bytes, int] = (b"\x0a\0\0\x02", 80)) -> None:
        self.on_change: Callable[[], None] | None = None
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.room = 1000
        self.largest_write = 1_000_000
        self.unacknowledged_bytes = 0
        self.wants_output = False
        self.end_of_stream = False
        self.is_established = False
        self.is_closed = False
        self.is_mptcp = True
        self.error: int | None = None
        self.local = (b"\x0a\0\0\x01", 40000)
        self.remote = remote
        self.calls: list[str] = []

    def check_writable(self) -> bool:
        return self.room > 0 or self.is_closed or self.error is not None

    def change(self) -> None:
        """What the stack does after any change."""
        if self.on_change is not None:
            self.on_change()

    def peek(self, max_bytes: int) -> bytes:
        return bytes(self.incoming[:max_bytes])

    def read(self, max_bytes: int) -> bytes:
        data = bytes(self.incoming[:max_bytes])
        del self.incoming[:max_bytes]
        return data

    def write(self, data: Buffer, *, urgent: bool = False) -> int:
        accepted = bytes(data[: min(self.room, self.largest_write)])
        self.room -= len(accepted)
        self.outgoing += accepted
        self.unacknowledged_bytes += len(accepted)
        return len(accepted)

    def shutdown_write(self) -> None:
        self.calls.append("shutdown_write")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def disconnect(self) -> int:
        self.calls.append("disconnect")
        return 0


class FakeListener:
    def __init__(self, address: bytes | None, port: int) -> None:
        self.on_change: Callable[[], None] | None = None
        self.address = address
        self.port = port or 33333
        self.pending: deque[FakeConnection] = deque()
        self.is_closed = False

    def accept(self) -> FakeConnection | None:
        return self.pending.popleft() if self.pending else None

    def close(self) -> None:
        self.is_closed = True


class FakeStack:
    """Sends back what it receives, and does what the test tells it."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.received: list[tuple[Frame, Interface, int]] = []
        self.outgoing: list[tuple[Interface, Frame]] = []
        self.deadline_us: int | None = None
        self.handled_us: list[int] = []
        self.received_when_handled: list[int] = []
        self.sends = 0
        self.echoes = True
        self.connection = FakeConnection()
        self.connects: list[tuple[bytes, int, str, bytes | None, int]] = []
        self.listener: FakeListener | None = None

    def receive_frame(self, frame: Frame, interface: Interface, now_us: int) -> None:
        self.received.append((frame, interface, now_us))
        if self.echoes:
            self.outgoing.append((interface, frame))

    def receive_frames(self, frames: Sequence[Frame], interface: Interface, now_us: int) -> None:
        for frame in frames:
            self.receive_frame(frame, interface, now_us)

    def frames_to_send(self, now_us: int) -> list[tuple[Interface, Frame]]:
        self.sends += 1
        outgoing, self.outgoing = self.outgoing, []
        return outgoing

    def next_deadline_us(self) -> int | None:
        return self.deadline_us

    def handle_deadline(self, now_us: int) -> None:
        self.handled_us.append(now_us)
        self.received_when_handled.append(len(self.received))
        self.deadline_us = None

    def listen(
        self, address: bytes | None, port: int = 0, *, protocol: str = "mptcp", backlog: int = 128
    ) -> FakeListener:
        if self.listener is not None:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self.listener = FakeListener(address, port)
        return self.listener

    def connect(
        self,
        remote: bytes,
        port: int,
        *,
        protocol: str = "mptcp",
        local: bytes | None = None,
        local_port: int = 0,
    ) -> FakeConnection:
        self.connects.append((remote, port, protocol, local, local_port))
        return self.connection
