"""The small stream interface that workloads are written against, once for every kind of stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from testbed.host.data import Buffer
from testbed.host.protocol import SocketOption


@dataclass(frozen=True, slots=True)
class SubflowTraffic:
    """What a subflow has carried so far, in bytes of its own sequence space."""

    local: str
    """As "address port", like ``remote``."""
    remote: str
    acknowledged: int
    received: int


class Stream(Protocol):
    """One connection. Every method but ``describe`` and ``abort`` may raise OSError."""

    @property
    def is_mptcp(self) -> bool:
        """False for plain TCP and after a fallback. Still known after the connection ended."""

    @property
    def local(self) -> str:
        """As "address port"."""

    @property
    def remote(self) -> str: ...

    async def read(self) -> Buffer:
        """What is there, waiting for the first byte; empty at the peer's end of data.

        The buffer is valid until the caller awaits something else.
        """

    async def read_peeking(self, *, keep_first: bool) -> Buffer:
        """What is there, peeked at and then read. ``keep_first``: what was seen at first is given."""

    async def read_telling(self, max_bytes: int) -> tuple[Buffer, int | None]:
        """As ``read``, at most so much; and with TCP_INQ what is left to be read at once."""

    def queued(self, request: int) -> int:
        """``ioctl`` with FIONREAD, SIOCOUTQ or SIOCOUTQNSD."""

    def set_way(self, way: str) -> None:
        """How bytes are moved from now on: one of ``workloads.WAYS``. Only kernel sockets have others."""

    async def write(self, data: Buffer) -> None:
        """Returns when the stack has taken all of ``data``, which must not change afterwards."""

    async def shutdown_write(self) -> None:
        """Tell the peer that nothing more follows."""

    async def reconnect(self, address: str, port: int) -> None:
        """Once the connection has ended in order: disconnect the socket, and connect it again."""

    async def close(self) -> None:
        """Orderly; data that was written is still delivered."""

    def abort(self) -> None:
        """MP_FASTCLOSE, or RST on plain TCP. Harmless on a connection that has ended."""

    def wake(self) -> None:
        """Let the stack look at the time soon."""

    def get_option(self, level: int, option: int, length: int, request: bytes) -> bytes:
        """``getsockopt`` with a buffer that holds ``request`` on its way in."""

    def set_option(self, level: int, option: int, value: bytes) -> bytes:
        """``setsockopt``; empty but for options that answer in the same buffer."""

    def describe(self) -> dict[str, object]:
        """The connection's state, for diagnostics."""

    def subflows(self) -> list[SubflowTraffic]:
        """Of a connection that is open; plain TCP is one subflow. Empty where nothing is known."""


class StreamListener(Protocol):
    """A listening socket."""

    @property
    def port(self) -> int: ...

    async def accept(self) -> Stream:
        """Raises OSError."""

    def close(self) -> None: ...


class StreamNetwork(Protocol):
    """Where streams come from: the kernel, or the bundled stack."""

    def listen(
        self,
        address: str,
        port: int,
        *,
        protocol: str,
        backlog: int,
        fast_open: bool,
        transparent: bool,
        options: Sequence[SocketOption],
    ) -> StreamListener:
        """Raises OSError. "::" takes IPv4 as well."""

    async def connect(
        self,
        address: str,
        port: int,
        *,
        protocol: str,
        local: str | None,
        early: bytes | None,
        options: Sequence[SocketOption],
    ) -> Stream:
        """Raises OSError. ``early`` is written first; if it may go with the SYN, it does (RFC 7413)."""
