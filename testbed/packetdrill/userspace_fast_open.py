"""TCP Fast Open in system calls on the bundled stack: MSG_FASTOPEN and TCP_FASTOPEN_CONNECT (tcp(7))."""

from __future__ import annotations

from collections.abc import Callable
from errno import EALREADY, EINPROGRESS, EISCONN, EOPNOTSUPP

from mptcp_stack.mptcp.early_data import bytes_taken
from mptcp_stack.stack import Stack
from mptcp_stack.tcp.fast_open import Mode
from testbed.packetdrill.stack_under_test import Value
from testbed.packetdrill.userspace_addresses import AddressAndPort, read_socket_address
from testbed.packetdrill.userspace_attempts import Done, Handler, Try, connection_of, number_argument
from testbed.packetdrill.userspace_descriptors import DescriptorTable, StreamSocket
from testbed.packetdrill.userspace_transfer import MSG_FASTOPEN, payload_argument, sending

Connect = Callable[[StreamSocket, AddressAndPort, bytes], None]
"""Begins to connect with data that may go with the SYN."""


class FastOpenCalls:
    """Takes the calls that may begin a connection with data, and passes all others on."""

    def __init__(
        self,
        stack: Stack,
        table: DescriptorTable,
        connect: Connect,
        default: AddressAndPort,
        handlers: dict[str, Handler],
    ) -> None:
        self._stack = stack
        self._table = table
        self._connect = connect
        self._default = default
        self._deferred: dict[StreamSocket, AddressAndPort] = {}
        names = ("write", "send", "sendto")
        self.handlers = {name: self._taking(handlers[name]) for name in names}

    def defers(self, endpoint: StreamSocket, remote: AddressAndPort) -> bool:
        """Whether connect(2) leaves it to the first write to send the SYN."""
        if not endpoint.socket_options.fast_open_connect or endpoint.connection is not None:
            return False
        if not self._stack.may_begin_early(remote[0], endpoint.local_address, endpoint.socket_options):
            return False
        self._deferred[endpoint] = remote
        return True

    def _taking(self, pass_on: Handler) -> Handler:
        def handle(arguments: list[Value]) -> Try:
            flags = number_argument(arguments[3], "flags") if len(arguments) > 3 else 0
            endpoint = self._table.get(number_argument(arguments[0], "descriptor"))
            if isinstance(endpoint, StreamSocket):
                remote = self._deferred.pop(endpoint, None)
                if remote is None and flags & MSG_FASTOPEN and len(arguments) > 4:
                    self._check(endpoint)
                    remote = read_socket_address(arguments[4], self._default, endpoint.domain)
                if remote is not None:
                    data = payload_argument(arguments[1], arguments[2])
                    return self._begin(endpoint, remote, data, flags & ~MSG_FASTOPEN)
            return pass_on(arguments)

        return handle

    def _check(self, endpoint: StreamSocket) -> None:
        if not self._stack.settings.tcp_fastopen & Mode.CLIENT:
            raise OSError(EOPNOTSUPP, "net.ipv4.tcp_fastopen")
        if endpoint.connection is not None:
            raise OSError(EALREADY if endpoint.is_connecting else EISCONN, "connected already")

    def _begin(self, endpoint: StreamSocket, remote: AddressAndPort, data: bytes, flags: int) -> Try:
        self._connect(endpoint, remote, data)
        taken = bytes_taken(connection_of(endpoint))
        rest = sending(endpoint, data[taken:], flags)

        def attempt(now_us: int) -> Done | None:
            connection = connection_of(endpoint)
            if connection.error is None and endpoint.is_connecting:
                if not endpoint.is_nonblocking:
                    return None
                if not taken:
                    raise OSError(EINPROGRESS, "connecting")
                return Done(taken)
            endpoint.connect_was_reported = True
            done = rest(now_us) if taken < len(data) or connection.error is not None else Done(0)
            return None if done is None else Done(taken + done.value)

        return attempt
