"""A script's system calls as real ones: each is checked first, then runs in a thread that may block."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from mptcp_stack.sockets.tcp_info import parse_tcp_info
from testbed.packetdrill import md5_signature
from testbed.packetdrill.kernel_descriptors import KernelDescriptors, OpenDescriptor
from testbed.packetdrill.kernel_polling import PollingCalls
from testbed.packetdrill.kernel_values import (
    AddressReader,
    SocketAddress,
    address_length,
    address_value,
    gathered,
    length,
    message,
    number,
    option_bytes,
    option_value,
    payload,
    scattered,
    signature_address,
    signature_bytes,
    vector_lengths,
)
from testbed.packetdrill.stack_under_test import Value

_ANCILLARY_BYTES = 4096
_LARGEST_TCP_INFO_BYTES = 512
"""More than any kernel has; it says how many bytes it wrote."""
_MAXIMUM_OPTION_BYTES = 1 << 16
_MSG_FASTOPEN = 0x20000000

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Done:
    """What a call returned, and what it wrote through its pointers, by argument position."""

    value: int
    outputs: dict[int, Value] = field(default_factory=dict)


Call = Callable[[], Done]
"""Does the call. Raises OSError with the kernel's errno."""


class KernelCalls:
    """All system calls of one script; see `prepare`."""

    def __init__(self, addresses: AddressReader, wake: int) -> None:
        """``wake`` is a descriptor that becomes readable when waiting calls must return."""
        self._addresses = addresses
        self.descriptors = KernelDescriptors()
        self._handlers: dict[str, Callable[[list[Value]], Call]] = {
            "socket": self._socket,
            "bind": self._bind,
            "listen": self._listen,
            "accept": self._accept,
            "accept4": self._accept,
            "connect": self._connect,
            "read": self._read,
            "readv": self._readv,
            "recv": self._recv,
            "recvfrom": self._recvfrom,
            "recvmsg": self._recvmsg,
            "write": self._write,
            "writev": self._writev,
            "send": self._send,
            "sendto": self._sendto,
            "sendmsg": self._sendmsg,
            "sendfile": self._sendfile,
            "splice": self._splice,
            "shutdown": self._shutdown,
            "close": self._close,
            "fcntl": self._fcntl,
            "ioctl": self._ioctl,
            "getsockopt": self._getsockopt,
            "setsockopt": self._setsockopt,
            "getsockname": self._getsockname,
            "getpeername": self._getpeername,
            "pipe": self._pipe,
            "open": self._open,
        }
        self._polling = PollingCalls(self.descriptors, wake)

    def prepare(self, name: str, arguments: list[Value]) -> Call:
        """The call, ready to be made.

        Raises ValueError for a call or an argument that can't be carried out, OSError where the kernel would
        refuse the descriptor.
        """
        handler = self._handlers.get(name)
        if handler is not None:
            return handler(arguments)
        waiting = self._polling.prepare(name, arguments)

        def call() -> Done:
            return Done(*waiting())

        return call

    def tcp_info(self, descriptor: int) -> dict[str, int]:
        """Raises OSError."""
        stream = self.descriptors.stream(descriptor)
        return parse_tcp_info(stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LARGEST_TCP_INFO_BYTES))

    def close_all(self) -> None:
        """Everything that the script left open. Nothing of it may be in use any more."""
        for opened in self.descriptors.take_all():
            try:
                opened.close()
            except OSError:
                # Somebody's reset: the descriptor is gone all the same.
                continue

    def unblock(self) -> None:
        """Lets calls return that wait for sockets."""
        self.descriptors.for_each(OpenDescriptor.unblock)

    def _stream(self, value: Value) -> socket.socket:
        return self.descriptors.stream(number(value, "descriptor"))

    def _number(self, value: Value) -> int:
        """The kernel's number for the script's."""
        return self.descriptors.get(number(value, "descriptor")).number

    # --- making descriptors ---

    def _socket(self, arguments: list[Value]) -> Call:
        domain = number(arguments[0], "domain", self._addresses.domain)
        kind = number(arguments[1], "type", socket.SOCK_STREAM)
        protocol = number(arguments[2], "protocol", 0)

        def call() -> Done:
            return Done(self._add_stream(socket.socket(domain, kind, protocol)))

        return call

    def _add_stream(self, stream: socket.socket) -> int:
        return self.descriptors.add(OpenDescriptor(stream.fileno(), stream))

    def _pipe(self, _arguments: list[Value]) -> Call:
        def call() -> Done:
            ends = [self.descriptors.add(OpenDescriptor(end)) for end in os.pipe()]
            return Done(0, {0: [*ends]})

        return call

    def _open(self, arguments: list[Value]) -> Call:
        path = arguments[0]
        if not isinstance(path, bytes):
            raise ValueError("open: expected a path")
        flags = number(arguments[1], "flags")
        mode = number(arguments[2], "mode") if len(arguments) > 2 else 0o600

        def call() -> Done:
            return Done(self.descriptors.add(OpenDescriptor(os.open(path, flags, mode))))

        return call

    # --- opening connections ---

    def _bind(self, arguments: list[Value]) -> Call:
        stream = self._stream(arguments[0])
        address = self._addresses.local(arguments[1], stream.family)
        size = number(arguments[2], "length", len(address.to_bytes()))
        return lambda: _with_address(_libc.bind, stream.fileno(), address, size)

    def _connect(self, arguments: list[Value]) -> Call:
        stream = self._stream(arguments[0])
        address = self._addresses.remote(arguments[1], stream.family)
        size = number(arguments[2], "length", len(address.to_bytes()))
        return lambda: _with_address(_libc.connect, stream.fileno(), address, size)

    def _listen(self, arguments: list[Value]) -> Call:
        stream, backlog = self._stream(arguments[0]), number(arguments[1], "backlog")

        def call() -> Done:
            stream.listen(backlog)
            return Done(0)

        return call

    def _accept(self, arguments: list[Value]) -> Call:
        stream = self._stream(arguments[0])
        flags = number(arguments[3], "flags") if len(arguments) > 3 else 0

        def call() -> Done:
            accepted, address = stream.accept()
            if flags & socket.SOCK_NONBLOCK:
                os.set_blocking(accepted.fileno(), False)
            return Done(self._add_stream(accepted), {1: address_value(address), 2: [address_length(address)]})

        return call

    # --- reading ---

    def _read(self, arguments: list[Value]) -> Call:
        descriptor, size = self._number(arguments[0]), length(arguments[2])

        def call() -> Done:
            data = os.read(descriptor, size)
            return Done(len(data), {1: data})

        return call

    def _readv(self, arguments: list[Value]) -> Call:
        descriptor, lengths = self._number(arguments[0]), vector_lengths(arguments[1], arguments[2])

        def call() -> Done:
            buffers = [bytearray(size) for size in lengths]
            count = os.readv(descriptor, buffers)
            return Done(count, {1: scattered(b"".join(buffers)[:count], lengths)})

        return call

    def _recv(self, arguments: list[Value]) -> Call:
        stream, size, flags = (
            self._stream(arguments[0]),
            length(arguments[2]),
            number(arguments[3], "flags", 0),
        )

        def call() -> Done:
            data = stream.recv(size, flags)
            return Done(len(data), {1: data})

        return call

    def _recvfrom(self, arguments: list[Value]) -> Call:
        stream, size, flags = (
            self._stream(arguments[0]),
            length(arguments[2]),
            number(arguments[3], "flags", 0),
        )

        def call() -> Done:
            data, address = stream.recvfrom(size, flags)
            outputs: dict[int, Value] = {1: data, 5: [0]}
            if address:
                outputs[4], outputs[5] = address_value(address), [address_length(address)]
            return Done(len(data), outputs)

        return call

    def _recvmsg(self, arguments: list[Value]) -> Call:
        stream, flags = self._stream(arguments[0]), number(arguments[2], "flags", 0)
        lengths = vector_lengths(message(arguments[1]).get("msg_iov"), None)
        ancillary = _ANCILLARY_BYTES if "msg_control" in message(arguments[1]) else 0

        def call() -> Done:
            data, items, got_flags, _ = stream.recvmsg(sum(lengths), ancillary, flags)
            control: list[Value] = [
                {"cmsg_level": level, "cmsg_type": kind, "cmsg_data": option_value(content, -1, -1)}
                for level, kind, content in items
            ]
            received: dict[str, Value] = {"msg_iov": scattered(data, lengths), "msg_flags": got_flags}
            return Done(len(data), {1: {**received, "msg_control": control}})

        return call

    # --- writing ---

    def _write(self, arguments: list[Value]) -> Call:
        descriptor, data = self._number(arguments[0]), payload(arguments[1], length(arguments[2]))
        return lambda: Done(os.write(descriptor, data))

    def _writev(self, arguments: list[Value]) -> Call:
        descriptor, buffers = self._number(arguments[0]), gathered(arguments[1], arguments[2])
        return lambda: Done(os.writev(descriptor, buffers))

    def _send(self, arguments: list[Value]) -> Call:
        stream, data = self._stream(arguments[0]), payload(arguments[1], length(arguments[2]))
        flags = number(arguments[3], "flags", 0) | socket.MSG_NOSIGNAL
        return lambda: Done(stream.send(data, flags))

    def _sendto(self, arguments: list[Value]) -> Call:
        stream, flags = self._stream(arguments[0]), number(arguments[3], "flags", 0)
        if not flags & _MSG_FASTOPEN:
            # TCP ignores the address of a connection (tcp_sendmsg).
            return self._send(arguments)
        data = payload(arguments[1], length(arguments[2]))
        address = self._addresses.remote(arguments[4], stream.family)
        name = address.to_bytes()

        def call() -> Done:
            return _checked(
                _libc.sendto(
                    stream.fileno(),
                    data,
                    ctypes.c_size_t(len(data)),
                    flags | socket.MSG_NOSIGNAL,
                    name,
                    len(name),
                )
            )

        return call

    def _sendmsg(self, arguments: list[Value]) -> Call:
        stream, fields = self._stream(arguments[0]), message(arguments[1])
        flags = number(arguments[2], "flags", 0)
        buffers = gathered(fields.get("msg_iov"), None)
        if flags & _MSG_FASTOPEN:
            joined = b"".join(buffers)
            name = fields.get("msg_name")
            return self._sendto([arguments[0], joined, len(joined), flags, name, None])
        return lambda: Done(stream.sendmsg(buffers, [], flags | socket.MSG_NOSIGNAL))

    def _sendfile(self, arguments: list[Value]) -> Call:
        target, source = self._number(arguments[0]), self._number(arguments[1])
        size = length(arguments[3])
        offset = None if arguments[2] in (None, 0) else number(arguments[2], "offset")

        def call() -> Done:
            count = _sendfile(target, source, offset, size)
            return Done(count, {} if offset is None else {2: [offset + count]})

        return call

    def _splice(self, arguments: list[Value]) -> Call:
        source, target = self._number(arguments[0]), self._number(arguments[2])
        size, flags = length(arguments[4]), number(arguments[5], "flags", 0)
        return lambda: Done(os.splice(source, target, size, flags=flags))

    # --- ending ---

    def _shutdown(self, arguments: list[Value]) -> Call:
        stream, how = self._stream(arguments[0]), number(arguments[1], "how")

        def call() -> Done:
            stream.shutdown(how)
            return Done(0)

        return call

    def _close(self, arguments: list[Value]) -> Call:
        descriptor = number(arguments[0], "descriptor")
        self.descriptors.get(descriptor)

        def call() -> Done:
            self.descriptors.take(descriptor).close()
            return Done(0)

        return call

    # --- what a descriptor is ---

    def _fcntl(self, arguments: list[Value]) -> Call:
        descriptor, command = self._number(arguments[0]), number(arguments[1], "command")
        argument = number(arguments[2], "argument") if len(arguments) > 2 else 0
        if command in (fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC):
            raise ValueError("fcntl: scripts cannot duplicate descriptors")
        return lambda: Done(fcntl.fcntl(descriptor, command, argument))

    def _ioctl(self, arguments: list[Value]) -> Call:
        descriptor, request = self._number(arguments[0]), number(arguments[1], "request")
        argument = struct.pack("=i", number(arguments[2], "argument", 0)) if len(arguments) > 2 else bytes(4)

        def call() -> Done:
            answer = fcntl.ioctl(descriptor, request, argument)
            return Done(0, {2: [struct.unpack("=i", answer)[0]]})

        return call

    def _getsockname(self, arguments: list[Value]) -> Call:
        stream = self._stream(arguments[0])
        return lambda: _name(stream.getsockname())

    def _getpeername(self, arguments: list[Value]) -> Call:
        stream = self._stream(arguments[0])
        return lambda: _name(stream.getpeername())

    def _getsockopt(self, arguments: list[Value]) -> Call:
        stream = self._stream(arguments[0])
        level, option = number(arguments[1], "level"), number(arguments[2], "option")
        is_tcp_info = (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        size = number(arguments[4], "length", _LARGEST_TCP_INFO_BYTES if is_tcp_info else 4)
        if not 0 <= size <= _MAXIMUM_OPTION_BYTES:
            raise ValueError(f"getsockopt: expected a length up to {_MAXIMUM_OPTION_BYTES}")

        def call() -> Done:
            data = _read_option(stream, level, option, size)
            value: Value = {**parse_tcp_info(data)} if is_tcp_info else option_value(data, level, option)
            return Done(0, {3: value, 4: [len(data)]})

        return call

    def _setsockopt(self, arguments: list[Value]) -> Call:
        stream = self._stream(arguments[0])
        level, option = number(arguments[1], "level"), number(arguments[2], "option")
        key = md5_signature.key_of_call("setsockopt", arguments)
        if key is None:
            data = option_bytes(arguments[3], number(arguments[4], "length", 4))
        else:
            data = signature_bytes(
                self._addresses.remote(signature_address(arguments[3]), stream.family), key
            )

        def call() -> Done:
            stream.setsockopt(level, option, data)
            return Done(0)

        return call


def _checked(result: int) -> Done:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return Done(result)


def _with_address(
    function: Callable[[int, bytes, int], int], descriptor: int, address: SocketAddress, size: int
) -> Done:
    """The C library's ``bind`` or ``connect``: Python's have no AF_UNSPEC and no lengths that are wrong."""
    return _checked(function(descriptor, address.to_bytes(), size))


def _sendfile(target: int, source: int, offset: int | None, size: int) -> int:
    if offset is not None:
        return os.sendfile(target, source, offset, size)
    return _checked(_libc.sendfile(target, source, None, ctypes.c_size_t(size))).value


def _read_option(stream: socket.socket, level: int, option: int, size: int) -> bytes:
    """Python's getsockopt() takes at most 1 KiB."""
    buffer = ctypes.create_string_buffer(max(1, size))
    written = ctypes.c_uint32(size)
    _checked(_libc.getsockopt(stream.fileno(), level, option, buffer, ctypes.byref(written)))
    return buffer.raw[: written.value]


def _name(address: tuple[str, int]) -> Done:
    return Done(0, {1: address_value(address), 2: [address_length(address)]})
