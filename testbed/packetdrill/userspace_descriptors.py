"""What the descriptors of a script stand for on the bundled stack: sockets, epoll instances, pipes, files."""

from __future__ import annotations

import select
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from errno import EBADF, EMFILE, ENOTCONN, ENOTSOCK

from mptcp_stack.listener import Listener
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.mptcp.states import DataState
from mptcp_stack.tcp.socket_options import DEFAULT_SOCKET_OPTIONS, SocketOptions
from mptcp_stack.wire.addresses import is_unspecified

FIRST_DESCRIPTOR = 3
MAXIMUM_DESCRIPTORS = 1024
PIPE_BYTES = 65_536


class Endpoint(ABC):
    """Anything that has a descriptor. ``changes`` counts what edge-triggered waiting calls an edge."""

    def __init__(self) -> None:
        self.is_nonblocking = False
        self.changes = 0

    @abstractmethod
    def readiness(self) -> int:
        """The events of poll(2) that hold now."""

    @abstractmethod
    def close(self) -> None:
        """The last descriptor is gone."""


class ByteEndpoint(Endpoint):
    """A pipe's end or a file: bytes without a peer."""

    @abstractmethod
    def take(self, limit: int) -> bytes | None:
        """Up to ``limit`` bytes; b"" at the end, None while nothing is there. Raises OSError(EBADF)."""

    @abstractmethod
    def put(self, data: bytes) -> int:
        """How many bytes there was room for. Raises OSError(EBADF, EPIPE)."""


class StreamSocket(Endpoint):
    """A socket of TCP or MPTCP, from its creation to its end."""

    def __init__(self, domain: int, protocol: str) -> None:
        super().__init__()
        self.domain = domain
        self.protocol = protocol
        """"tcp" or "mptcp", as `mptcp_stack.stack.Stack` has it."""
        self.bound: tuple[bytes | None, int] | None = None
        """None as the address: any of both families."""
        self.listener: Listener | None = None
        self.connection: Connection | None = None
        self.connect_was_reported = False
        self.reading_is_shut = False
        self.error_was_taken = False
        self._error_of_disconnect: int | None = None
        self.options: dict[tuple[int, int], int] = {}
        self.socket_options = DEFAULT_SOCKET_OPTIONS
        self.linger: tuple[int, int] = (0, 0)
        """SO_LINGER: on or off, seconds."""
        self.receive_timeout_us = self.send_timeout_us = 0
        """SO_RCVTIMEO and SO_SNDTIMEO; 0 waits for ever."""
        self._waiting: deque[Connection] = deque()
        self._peeked = b""

    def inherit_from(self, listening: StreamSocket) -> None:
        """What an accepted socket has of the one that listened."""
        self.linger = listening.linger
        self.receive_timeout_us = listening.receive_timeout_us
        self.send_timeout_us = listening.send_timeout_us
        self.options = dict(listening.options)

    def disconnect(self) -> None:
        """What connect(2) with AF_UNSPEC does: what was set stays, and what it was bound to."""
        if self.listener is not None:
            self._stop_listening(self.listener)
        if self.connection is not None:
            self._error_of_disconnect = self.connection.disconnect() or None
        self.connection = None
        self.connect_was_reported = self.reading_is_shut = self.error_was_taken = False
        self._peeked = b""
        self._on_change()

    def _stop_listening(self, listener: Listener) -> None:
        listener.close()
        for connection in self._waiting:
            connection.abort()
        self._waiting.clear()
        self.listener = None

    def attach(self, connection: Connection) -> None:
        self._error_of_disconnect = None
        self.connection = connection
        connection.on_change = self._on_change
        if self.socket_options is not connection.socket_options:
            connection.set_socket_options(self.socket_options)

    def set_socket_options(self, options: SocketOptions) -> None:
        """Those of the stack itself; they hold for the connection, or for those that the listener takes."""
        self.socket_options = options
        if self.connection is not None:
            self.connection.set_socket_options(options)
        if self.listener is not None:
            self.listener.socket_options = options

    @property
    def local_address(self) -> bytes | None:
        """What it was bound to, if to one address."""
        address = self.bound[0] if self.bound is not None else None
        return None if address is None or is_unspecified(address) else address

    def start_listening(self, listener: Listener) -> None:
        self.listener = listener
        listener.socket_options = self.socket_options
        listener.on_change = self._on_change

    def _on_change(self) -> None:
        self.changes += 1

    def take_ready(self) -> Connection | None:
        """The oldest connection that waits to be accepted."""
        if self._waiting:
            return self._waiting.popleft()
        return self.listener.accept() if self.listener is not None else None

    def take_error(self) -> int | None:
        """The errno that ended the connection, once."""
        if self.connection is None and self._error_of_disconnect is not None:
            error, self._error_of_disconnect = self._error_of_disconnect, None
            return error
        if self.connection is None or self.connection.error in (None, ENOTCONN) or self.error_was_taken:
            return None
        self.error_was_taken = True
        return self.connection.error

    def check_connected(self) -> None:
        """A connection that was lost without an error has nothing to be read, ever. Raises OSError."""
        is_lost = self.connection is not None and self.connection.error == ENOTCONN
        if is_lost and not self.reading_is_shut:
            raise OSError(ENOTCONN, "the connection was lost")

    @property
    def peeked_bytes(self) -> int:
        """Left to be read again."""
        return len(self._peeked)

    @property
    def readable_bytes(self) -> int:
        return len(self._peeked) + (self.connection.readable_bytes if self.connection is not None else 0)

    def read(self, limit: int, *, keep: bool = False) -> bytes:
        """Up to ``limit`` bytes that are there; ``keep`` leaves them for the next call (MSG_PEEK)."""
        if self.connection is None:
            return b""
        data = self._peeked[:limit]
        self._peeked = self._peeked[len(data) :]
        if len(data) < limit:
            data += self.connection.read(limit - len(data))
        if keep:
            self._peeked = data + self._peeked
        return data

    @property
    def is_at_end(self) -> bool:
        """Nothing will be read any more."""
        connection = self.connection
        if connection is None or self._peeked:
            return False
        is_over = connection.end_of_stream or (connection.is_closed and not connection.readable_bytes)
        return is_over or self.reading_is_shut

    @property
    def is_connecting(self) -> bool:
        return self.connection is not None and self.connection.state is DataState.CONNECTING

    def readiness(self) -> int:
        if self.listener is not None:
            return self._listener_readiness(self.listener)
        if self.connection is None:
            return select.POLLOUT | select.POLLHUP
        return self._connection_readiness(self.connection)

    def _listener_readiness(self, listener: Listener) -> int:
        if not self._waiting:
            connection = listener.accept()
            if connection is None:
                return 0
            self._waiting.append(connection)
        return select.POLLIN | select.POLLRDNORM

    def _connection_readiness(self, connection: Connection) -> int:
        """As tcp_poll() of Linux has it."""
        events = 0
        is_lost = connection.error == ENOTCONN
        is_over = connection.is_closed and not is_lost
        ended = connection.receive_buffer.fin_was_taken or is_over or self.reading_is_shut
        if connection.is_closed or (ended and connection.write_closed):
            events |= select.POLLHUP
        if ended:
            events |= select.POLLIN | select.POLLRDNORM | select.POLLRDHUP
        if connection.urgent is not None and connection.urgent.is_readable:
            events |= select.POLLPRI
        if self.readable_bytes:
            events |= select.POLLIN | select.POLLRDNORM
        if connection.check_writable():
            events |= select.POLLOUT | select.POLLWRNORM
        if connection.error is not None and not is_lost and not self.error_was_taken:
            events |= select.POLLERR
        return events

    def close(self) -> None:
        if self.listener is not None:
            self.listener.close()
        for connection in self._waiting:
            connection.abort()
        if self.connection is None:
            return
        if self.linger == (1, 0) or self._peeked:
            # RFC 9293 §3.10.5: what SO_LINGER with no time makes of close(2).
            self.connection.abort()
        else:
            self.connection.close()


@dataclass(slots=True, eq=False)
class Watch:
    """What an epoll instance knows of one descriptor."""

    endpoint: Endpoint
    events: int
    data: dict[str, int]
    seen_changes: int = -1
    is_disarmed: bool = False


class EpollInstance(Endpoint):
    def __init__(self) -> None:
        super().__init__()
        self.watches: dict[int, Watch] = {}

    def readiness(self) -> int:
        return select.POLLIN if any(self._events_of(watch) for watch in self.watches.values()) else 0

    def _events_of(self, watch: Watch) -> int:
        if watch.is_disarmed:
            return 0
        if watch.events & select.EPOLLET and watch.seen_changes == watch.endpoint.changes:
            return 0
        wanted = watch.events | select.EPOLLERR | select.EPOLLHUP
        return watch.endpoint.readiness() & wanted

    def take_events(self, limit: int) -> list[tuple[int, dict[str, int]]]:
        """Up to ``limit`` events with the data of their watches."""
        found: list[tuple[int, dict[str, int]]] = []
        for watch in self.watches.values():
            events = self._events_of(watch) if len(found) < limit else 0
            if events:
                found.append((events, watch.data))
                watch.seen_changes = watch.endpoint.changes
                watch.is_disarmed = bool(watch.events & select.EPOLLONESHOT)
        return found

    def close(self) -> None:
        self.watches.clear()


class _PipeBuffer:
    def __init__(self) -> None:
        self.data = bytearray()
        self.has_reader = self.has_writer = True


class PipeReader(ByteEndpoint):
    def __init__(self, buffer: _PipeBuffer) -> None:
        super().__init__()
        self._buffer = buffer

    def take(self, limit: int) -> bytes | None:
        data = bytes(self._buffer.data[:limit])
        del self._buffer.data[: len(data)]
        return data if data or not self._buffer.has_writer else None

    def put(self, data: bytes) -> int:
        raise OSError(EBADF, "this end of the pipe is for reading")

    def readiness(self) -> int:
        readable = select.POLLIN if self._buffer.data else 0
        return readable if self._buffer.has_writer else readable | select.POLLHUP

    def close(self) -> None:
        self._buffer.has_reader = False


class PipeWriter(ByteEndpoint):
    def __init__(self, buffer: _PipeBuffer) -> None:
        super().__init__()
        self._buffer = buffer

    def take(self, limit: int) -> bytes | None:
        raise OSError(EBADF, "this end of the pipe is for writing")

    def put(self, data: bytes) -> int:
        taken = data[: PIPE_BYTES - len(self._buffer.data)]
        self._buffer.data += taken
        return len(taken)

    def readiness(self) -> int:
        if not self._buffer.has_reader:
            return select.POLLERR
        return select.POLLOUT if len(self._buffer.data) < PIPE_BYTES else 0

    def close(self) -> None:
        self._buffer.has_writer = False


class FileContent(ByteEndpoint):
    """A file opened for reading: its content as it was then."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data
        self.position = 0

    def take(self, limit: int) -> bytes | None:
        data = self._data[self.position : self.position + limit]
        self.position += len(data)
        return data

    def put(self, data: bytes) -> int:
        raise OSError(EBADF, "the file was opened for reading")

    def readiness(self) -> int:
        return select.POLLIN | select.POLLOUT

    def close(self) -> None:
        self._data = b""


def make_pipe() -> tuple[PipeReader, PipeWriter]:
    buffer = _PipeBuffer()
    return PipeReader(buffer), PipeWriter(buffer)


class DescriptorTable:
    """Numbers as a fresh process gives them: the lowest that is free, from 3 on."""

    def __init__(self) -> None:
        self._endpoints: dict[int, Endpoint] = {}

    def add(self, endpoint: Endpoint) -> int:
        """Raises OSError(EMFILE)."""
        number = FIRST_DESCRIPTOR
        while number in self._endpoints:
            number += 1
        if number >= MAXIMUM_DESCRIPTORS:
            raise OSError(EMFILE, "too many descriptors")
        self._endpoints[number] = endpoint
        return number

    def __contains__(self, endpoint: Endpoint) -> bool:
        return endpoint in self._endpoints.values()

    def endpoint(self, descriptor: int) -> Endpoint:
        """Raises OSError(EBADF)."""
        try:
            return self._endpoints[descriptor]
        except KeyError:
            raise OSError(EBADF, f"descriptor {descriptor} is not open") from None

    def get(self, descriptor: int) -> Endpoint | None:
        return self._endpoints.get(descriptor)

    def socket(self, descriptor: int) -> StreamSocket:
        """Raises OSError(EBADF, ENOTSOCK)."""
        endpoint = self.endpoint(descriptor)
        if not isinstance(endpoint, StreamSocket):
            raise OSError(ENOTSOCK, f"descriptor {descriptor} is no socket")
        return endpoint

    def sockets(self) -> list[StreamSocket]:
        return [endpoint for endpoint in self._endpoints.values() if isinstance(endpoint, StreamSocket)]

    def remove(self, descriptor: int) -> Endpoint:
        """Forgets the number, also where it is watched. Raises OSError(EBADF)."""
        endpoint = self.endpoint(descriptor)
        del self._endpoints[descriptor]
        for other in self._endpoints.values():
            if isinstance(other, EpollInstance):
                other.watches.pop(descriptor, None)
        return endpoint
