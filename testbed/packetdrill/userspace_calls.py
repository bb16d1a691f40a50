"""The blocking socket API by descriptors over the bundled stack, with the results that Linux gives."""

from __future__ import annotations

import fcntl
import os
import socket
from errno import (
    EADDRINUSE,
    EAFNOSUPPORT,
    EALREADY,
    ECONNABORTED,
    EINPROGRESS,
    EINVAL,
    EISCONN,
    ENOPROTOOPT,
    ENOTCONN,
    ENOTTY,
    EPROTONOSUPPORT,
    ESOCKTNOSUPPORT,
)
from pathlib import Path
from stat import S_ISREG

from mptcp_stack.listener import Listener
from mptcp_stack.sockets import lingering, queues
from mptcp_stack.stack import Stack
from mptcp_stack.wire.addresses import is_unspecified, v4_mapped
from testbed.packetdrill.stack_under_test import Addresses, IpVersion, Value
from testbed.packetdrill.userspace_addresses import (
    SOCKET_ADDRESS_BYTES,
    AddressAndPort,
    is_unspecified_family,
    listening_address,
    read_socket_address,
    socket_address_value,
)
from testbed.packetdrill.userspace_attempts import (
    Attempt,
    Done,
    Handler,
    Try,
    as_attempt,
    connection_of,
    failing,
    finished,
    number_argument,
    would_block,
)
from testbed.packetdrill.userspace_descriptors import (
    DescriptorTable,
    FileContent,
    StreamSocket,
    make_pipe,
)
from testbed.packetdrill.userspace_fast_open import FastOpenCalls
from testbed.packetdrill.userspace_options import SocketOptions, tcp_info_of
from testbed.packetdrill.userspace_polling import PollingCalls
from testbed.packetdrill.userspace_time_limits import limited
from testbed.packetdrill.userspace_transfer import TransferCalls

IPPROTO_MPTCP = 262
FIONBIO = 0x5421
MAXIMUM_FILE_BYTES = 16 << 20
SECOND_US = 1_000_000


class SocketCalls:
    """All system calls of one script."""

    def __init__(
        self, stack: Stack, version: IpVersion, addresses: Addresses, *, bind_port: int, connect_port: int
    ) -> None:
        self._stack = stack
        self._domain = int(socket.AF_INET if version is IpVersion.IPV4 else socket.AF_INET6)
        wrap = v4_mapped if version is IpVersion.IPV4_MAPPED else bytes
        self._bind_default = (wrap(addresses.local[0]), bind_port)
        self._connect_default = (wrap(addresses.remote[0]), connect_port)
        self._table = DescriptorTable()
        self._options = SocketOptions(stack, self._table)
        self._polling = PollingCalls(self._table)
        self._transfer = TransferCalls(self._table)
        self._handlers: dict[str, Handler] = {
            "socket": self._socket,
            "bind": self._bind,
            "listen": self._listen,
            "accept": self._accept,
            "accept4": self._accept,
            "connect": self._connect,
            "shutdown": self._shutdown,
            "close": self._close,
            "fcntl": self._fcntl,
            "ioctl": self._ioctl,
            "getsockname": self._getsockname,
            "getpeername": self._getpeername,
            "pipe": self._pipe,
            "open": self._open,
            **self._options.handlers,
            **self._polling.handlers,
            **self._transfer.handlers,
        }
        self._fast_open = FastOpenCalls(
            stack, self._table, self._start_connecting, self._connect_default, self._handlers
        )
        self._handlers.update(self._fast_open.handlers)

    def prepare(self, name: str, arguments: list[Value]) -> Attempt:
        """The call as an attempt. Raises ValueError for a call or an argument that can't be carried out."""
        handler = self._handlers.get(name)
        if handler is None:
            raise ValueError(f"the bundled stack has no system call {name}")
        try:
            endpoint = self._table.get(arguments[0]) if arguments and isinstance(arguments[0], int) else None
            attempt = limited(name, endpoint, handler(arguments), self._polling.add_deadline)
        except OSError as error:
            return failing(error)
        return as_attempt(attempt)

    def next_deadline_us(self) -> int | None:
        """When the earliest time-out of a waiting call ends."""
        return self._polling.next_deadline_us(self._stack.environment.timers.clock_us)

    def tcp_info(self, descriptor: int) -> dict[str, int]:
        try:
            return tcp_info_of(self._table.socket(descriptor))
        except OSError as error:
            raise ValueError(f"TCP_INFO: {error.strerror}") from None

    # --- making descriptors ---

    def _socket(self, arguments: list[Value]) -> Try:
        domain = number_argument(arguments[0], "domain", self._domain)
        kind = number_argument(arguments[1], "type")
        protocol = number_argument(arguments[2], "protocol", socket.IPPROTO_TCP)
        flags = kind & (socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        if domain not in SOCKET_ADDRESS_BYTES:
            raise OSError(EAFNOSUPPORT, "address family")
        if kind - flags != socket.SOCK_STREAM:
            raise OSError(ESOCKTNOSUPPORT, "socket type")
        if protocol not in (0, socket.IPPROTO_TCP, IPPROTO_MPTCP):
            raise OSError(EPROTONOSUPPORT, "protocol")
        if protocol == IPPROTO_MPTCP and not self._stack.settings.mptcp_enabled:
            raise OSError(ENOPROTOOPT, "net.mptcp.enabled is 0")
        made = StreamSocket(domain, "mptcp" if protocol == IPPROTO_MPTCP else "tcp")
        made.is_nonblocking = bool(flags & socket.SOCK_NONBLOCK)
        return finished(self._table.add(made))

    def _pipe(self, _arguments: list[Value]) -> Try:
        reader, writer = make_pipe()
        return finished(0, {0: [self._table.add(reader), self._table.add(writer)]})

    def _open(self, arguments: list[Value]) -> Try:
        path = arguments[0]
        if not isinstance(path, bytes):
            raise ValueError("open: expected a path")
        if number_argument(arguments[1], "flags") & os.O_ACCMODE != os.O_RDONLY:
            raise ValueError("open: the bundled stack opens files for reading only")
        file = Path(os.fsdecode(path))
        if not S_ISREG(file.stat().st_mode) or file.stat().st_size > MAXIMUM_FILE_BYTES:
            raise ValueError(f"open: expected a file of at most {MAXIMUM_FILE_BYTES} bytes")
        return finished(self._table.add(FileContent(file.read_bytes())))

    # --- opening ---

    def _bind(self, arguments: list[Value]) -> Try:
        endpoint = self._table.socket(number_argument(arguments[0], "descriptor"))
        address, port = read_socket_address(arguments[1], self._bind_default, endpoint.domain)
        if endpoint.bound is not None or endpoint.connection is not None:
            raise OSError(EINVAL, "bound already")
        local = listening_address(endpoint.domain, address)
        if local is not None and not is_unspecified(local):
            self._check_local(local)
        if port and any(_is_conflict(endpoint, other, local, port) for other in self._table.sockets()):
            raise OSError(EADDRINUSE, "the port is taken")
        endpoint.bound = (local, port)
        return finished(0)

    def _check_local(self, address: bytes) -> None:
        # The stack has the check in listen() alone: what is listened on for no time has no other effect.
        self._stack.listen(address, 0, protocol="tcp").close()

    def _listen(self, arguments: list[Value]) -> Try:
        endpoint = self._table.socket(number_argument(arguments[0], "descriptor"))
        backlog = number_argument(arguments[1], "backlog")
        if endpoint.connection is not None:
            raise OSError(EINVAL, "connected already")
        if endpoint.listener is not None:
            endpoint.listener.backlog = backlog
            return finished(0)
        any_address = None if endpoint.domain == socket.AF_INET6 else bytes(4)
        address, port = endpoint.bound or (any_address, 0)
        listener = self._stack.listen(address, port, protocol=endpoint.protocol, backlog=backlog)
        endpoint.bound = (address, listener.port)
        endpoint.start_listening(listener)
        return finished(0)

    def _accept(self, arguments: list[Value]) -> Try:
        endpoint = self._table.socket(number_argument(arguments[0], "descriptor"))
        flags = number_argument(arguments[3], "flags") if len(arguments) > 3 else 0
        if endpoint.listener is None:
            raise OSError(EINVAL, "not listening")
        return lambda _now_us: self._try_accept(endpoint, flags)

    def _try_accept(self, endpoint: StreamSocket, flags: int) -> Done | None:
        listener: Listener | None = endpoint.listener
        if listener is None or listener.is_closed:
            raise OSError(EINVAL, "not listening")
        connection = endpoint.take_ready()
        if connection is None:
            would_block(endpoint)
            return None
        accepted = StreamSocket(endpoint.domain, "mptcp" if connection.is_mptcp else "tcp")
        accepted.socket_options = connection.socket_options
        accepted.attach(connection)
        accepted.bound = connection.local
        accepted.connect_was_reported = True
        accepted.inherit_from(endpoint)
        accepted.is_nonblocking = bool(flags & socket.SOCK_NONBLOCK)
        address = socket_address_value(endpoint.domain, *connection.remote)
        length = SOCKET_ADDRESS_BYTES[endpoint.domain]
        return Done(self._table.add(accepted), {1: address, 2: [length]})

    def _connect(self, arguments: list[Value]) -> Try:
        endpoint = self._table.socket(number_argument(arguments[0], "descriptor"))
        if is_unspecified_family(arguments[1]):
            endpoint.disconnect()
            return finished(0)
        remote = read_socket_address(arguments[1], self._connect_default, endpoint.domain)
        if endpoint.listener is not None or endpoint.connect_was_reported:
            raise OSError(EISCONN, "listening or connected already")
        if self._fast_open.defers(endpoint, remote):
            return finished(0)
        is_repeated = endpoint.connection is not None
        if not is_repeated:
            early = b"" if endpoint.socket_options.fast_open_connect else None
            self._start_connecting(endpoint, remote, early)
        return lambda _now_us: self._try_connect(endpoint, EALREADY if is_repeated else EINPROGRESS)

    def _start_connecting(
        self, endpoint: StreamSocket, remote: AddressAndPort, early: bytes | None = None
    ) -> None:
        address, port = remote
        if len(address) == 4 and endpoint.domain == socket.AF_INET6:
            address = v4_mapped(address)
        local, local_port = endpoint.local_address, endpoint.bound[1] if endpoint.bound else 0
        connection = self._stack.connect(
            address,
            port,
            protocol=endpoint.protocol,
            local=local,
            local_port=local_port,
            early=early,
            options=endpoint.socket_options,
        )
        endpoint.attach(connection)

    def _try_connect(self, endpoint: StreamSocket, errno_of_waiting: int) -> Done | None:
        connection = connection_of(endpoint)
        error = endpoint.take_error()
        if error is not None:
            # As on Linux, the socket may be used for another attempt.
            endpoint.connection, endpoint.error_was_taken = None, False
            raise OSError(error, "connecting failed")
        if connection.is_closed:
            raise OSError(ECONNABORTED, "connecting failed")
        if connection.is_established:
            endpoint.connect_was_reported = True
            return Done(0)
        if endpoint.is_nonblocking:
            raise OSError(errno_of_waiting, "still connecting")
        return None

    # --- ending ---

    def _shutdown(self, arguments: list[Value]) -> Try:
        endpoint = self._table.socket(number_argument(arguments[0], "descriptor"))
        how = number_argument(arguments[1], "how")
        if how not in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            raise OSError(EINVAL, "how")
        connection = connection_of(endpoint)
        if connection.is_closed:
            raise OSError(ENOTCONN, "not connected any more")
        if how in (socket.SHUT_RD, socket.SHUT_RDWR):
            endpoint.reading_is_shut = True
        if how in (socket.SHUT_WR, socket.SHUT_RDWR):
            connection.shutdown_write()
        return finished(0)

    def _close(self, arguments: list[Value]) -> Try:
        endpoint = self._table.remove(number_argument(arguments[0], "descriptor"))
        endpoint.close()
        if not isinstance(endpoint, StreamSocket) or endpoint.connection is None:
            return finished(0)
        is_on, seconds = endpoint.linger
        if not is_on or not seconds:
            return finished(0)
        connection = endpoint.connection
        deadline_us = self._polling.add_deadline(seconds * SECOND_US, self._clock_us())
        return lambda now_us: Done(0) if lingering.is_over(connection) or now_us >= deadline_us else None

    def _clock_us(self) -> int:
        return self._stack.environment.timers.clock_us

    # --- what a descriptor is ---

    def _fcntl(self, arguments: list[Value]) -> Try:
        endpoint = self._table.endpoint(number_argument(arguments[0], "descriptor"))
        command = number_argument(arguments[1], "command")
        if command == fcntl.F_GETFL:
            return finished(os.O_RDWR | (os.O_NONBLOCK if endpoint.is_nonblocking else 0))
        if command == fcntl.F_SETFL and len(arguments) > 2:
            endpoint.is_nonblocking = bool(number_argument(arguments[2], "flags") & os.O_NONBLOCK)
            return finished(0)
        raise OSError(EINVAL, "fcntl")

    def _ioctl(self, arguments: list[Value]) -> Try:
        endpoint = self._table.endpoint(number_argument(arguments[0], "descriptor"))
        request = number_argument(arguments[1], "request")
        if request == FIONBIO:
            endpoint.is_nonblocking = bool(number_argument(arguments[2], "argument"))
            return finished(0)
        if not isinstance(endpoint, StreamSocket):
            raise OSError(ENOTTY, "ioctl")
        if endpoint.listener is not None:
            raise OSError(EINVAL, "listening")
        return finished(0, {2: [_queued_bytes(endpoint, request)]})

    def _getsockname(self, arguments: list[Value]) -> Try:
        endpoint = self._table.socket(number_argument(arguments[0], "descriptor"))
        address, port = endpoint.bound or (None, 0)
        if endpoint.connection is not None:
            address, port = endpoint.connection.local
        if address is None:
            address = bytes(4 if endpoint.domain == socket.AF_INET else 16)
        shown = socket_address_value(endpoint.domain, address, port)
        return finished(0, {1: shown, 2: [SOCKET_ADDRESS_BYTES[endpoint.domain]]})

    def _getpeername(self, arguments: list[Value]) -> Try:
        endpoint = self._table.socket(number_argument(arguments[0], "descriptor"))
        connection = connection_of(endpoint)
        if not connection.is_established:
            raise OSError(ENOTCONN, "not connected")
        shown = socket_address_value(endpoint.domain, *connection.remote)
        return finished(0, {1: shown, 2: [SOCKET_ADDRESS_BYTES[endpoint.domain]]})


def _is_conflict(one: StreamSocket, other: StreamSocket, address: bytes | None, port: int) -> bool:
    """Whether ``one`` may not be bound there because of ``other`` (socket(7), SO_REUSEADDR)."""
    if other is one or other.bound is None or other.bound[1] != port or other.connection is not None:
        return False
    known = other.bound[0]
    overlaps = known is None or address is None or known == address
    overlaps = overlaps or is_unspecified(known or b"") or is_unspecified(address or b"")
    key = (int(socket.SOL_SOCKET), int(socket.SO_REUSEADDR))
    both_share = bool(one.options.get(key) and other.options.get(key))
    return overlaps and (other.listener is not None or not both_share)


def _queued_bytes(endpoint: StreamSocket, request: int) -> int:
    if endpoint.connection is None:
        return 0
    peeked_bytes = endpoint.peeked_bytes if request == queues.FIONREAD else 0
    return queues.ask(endpoint.connection, request) + peeked_bytes
