"""System calls on the bundled stack that move bytes: the read and write families, sendfile, splice."""

from __future__ import annotations

import socket
from collections.abc import Callable
from errno import EINVAL, ENOTCONN, EPIPE

from mptcp_stack.mptcp import urgent_reading
from testbed.packetdrill.stack_under_test import Value
from testbed.packetdrill.userspace_attempts import (
    Done,
    Handler,
    Try,
    connection_of,
    finished,
    number_argument,
    would_block,
)
from testbed.packetdrill.userspace_descriptors import (
    ByteEndpoint,
    DescriptorTable,
    Endpoint,
    FileContent,
    StreamSocket,
)

MAXIMUM_CALL_BYTES = 64 << 20
MSG_FASTOPEN = 0x20000000
SPLICE_F_NONBLOCK = 2
_KNOWN_RECEIVE_FLAGS = socket.MSG_DONTWAIT | socket.MSG_WAITALL | socket.MSG_PEEK | socket.MSG_NOSIGNAL
_KNOWN_SEND_FLAGS = (
    socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL | socket.MSG_MORE | socket.MSG_OOB | MSG_FASTOPEN
)
_CHUNK_BYTES = 65_536

Deliver = Callable[[bytes], dict[int, Value]]
"""What a call wrote through its pointers, given the bytes it read."""


class TransferCalls:
    def __init__(self, table: DescriptorTable) -> None:
        self._table = table
        self.handlers: dict[str, Handler] = {
            "read": self._read,
            "readv": self._readv,
            "recv": self._recv,
            "recvfrom": self._recvfrom,
            "recvmsg": self._recvmsg,
            "write": self._write,
            "writev": self._writev,
            "send": self._send,
            "sendto": self._send,
            "sendmsg": self._sendmsg,
            "sendfile": self._sendfile,
            "splice": self._splice,
        }

    # --- reading ---

    def _read(self, arguments: list[Value]) -> Try:
        endpoint = self._table.endpoint(number_argument(arguments[0], "descriptor"))
        return _receiving(endpoint, _length(arguments[2]), 0, lambda data: {1: data})

    def _readv(self, arguments: list[Value]) -> Try:
        endpoint = self._table.endpoint(number_argument(arguments[0], "descriptor"))
        lengths = _vector_lengths(arguments[1], arguments[2])
        return _receiving(endpoint, sum(lengths), 0, lambda data: {1: _scattered(data, lengths)})

    def _recv(self, arguments: list[Value]) -> Try:
        endpoint = self._table.socket(number_argument(arguments[0], "descriptor"))
        flags = number_argument(arguments[3], "flags")
        return _receiving(endpoint, _length(arguments[2]), flags, lambda data: {1: data})

    def _recvfrom(self, arguments: list[Value]) -> Try:
        endpoint = self._table.socket(number_argument(arguments[0], "descriptor"))
        flags = number_argument(arguments[3], "flags")
        # TCP leaves the address alone (tcp_recvmsg); only its length is written.
        return _receiving(endpoint, _length(arguments[2]), flags, lambda data: {1: data, 5: [0]})

    def _recvmsg(self, arguments: list[Value]) -> Try:
        endpoint = self._table.socket(number_argument(arguments[0], "descriptor"))
        message = _message(arguments[1])
        lengths = _vector_lengths(message.get("msg_iov"), None)
        flags = number_argument(arguments[2], "flags")

        def deliver(data: bytes) -> dict[int, Value]:
            return {1: {"msg_iov": _scattered(data, lengths), "msg_flags": 0}}

        return _receiving(endpoint, sum(lengths), flags, deliver)

    # --- writing ---

    def _write(self, arguments: list[Value]) -> Try:
        endpoint = self._table.endpoint(number_argument(arguments[0], "descriptor"))
        return sending(endpoint, _payload(arguments[1], _length(arguments[2])), 0)

    def _writev(self, arguments: list[Value]) -> Try:
        endpoint = self._table.endpoint(number_argument(arguments[0], "descriptor"))
        return sending(endpoint, _gathered(arguments[1], arguments[2]), 0)

    def _send(self, arguments: list[Value]) -> Try:
        endpoint = self._table.socket(number_argument(arguments[0], "descriptor"))
        flags = number_argument(arguments[3], "flags")
        return sending(endpoint, _payload(arguments[1], _length(arguments[2])), flags)

    def _sendmsg(self, arguments: list[Value]) -> Try:
        endpoint = self._table.socket(number_argument(arguments[0], "descriptor"))
        data = _gathered(_message(arguments[1]).get("msg_iov"), None)
        return sending(endpoint, data, number_argument(arguments[2], "flags"))

    # --- between descriptors ---

    def _sendfile(self, arguments: list[Value]) -> Try:
        """sendfile(out, in, [offset], count)"""
        target = self._table.endpoint(number_argument(arguments[0], "descriptor"))
        source = self._table.endpoint(number_argument(arguments[1], "descriptor"))
        if not isinstance(source, FileContent):
            raise OSError(EINVAL, "sendfile reads from files")
        count = _length(arguments[3])
        if arguments[2] is None or arguments[2] == 0:
            return sending(target, source.take(count) or b"", 0)
        offset = number_argument(arguments[2], "offset")
        kept, source.position = source.position, offset
        data = source.take(count) or b""
        source.position = kept
        return _with_outputs(sending(target, data, 0), {2: [offset + len(data)]})

    def _splice(self, arguments: list[Value]) -> Try:
        """splice(in, NULL, out, NULL, count, flags)"""
        source = self._table.endpoint(number_argument(arguments[0], "descriptor"))
        target = self._table.endpoint(number_argument(arguments[2], "descriptor"))
        count = _length(arguments[4])
        must_not_wait = bool(number_argument(arguments[5], "flags") & SPLICE_F_NONBLOCK)
        if isinstance(source, StreamSocket) == isinstance(target, StreamSocket):
            raise OSError(EINVAL, "splice is between a pipe and a socket")
        return lambda _now_us: _try_splice(source, target, count, must_not_wait)


def _try_splice(source: Endpoint, target: Endpoint, count: int, must_not_wait: bool) -> Done | None:
    if isinstance(target, StreamSocket):
        limit = min(count, connection_of(target).writable_bytes)
    else:
        limit = min(count, _CHUNK_BYTES)
    data = _take(source, limit) if limit else None
    if data is None:
        would_block(source, must_not_wait=must_not_wait)
        return None
    if isinstance(target, StreamSocket):
        return Done(connection_of(target).write(data))
    if isinstance(target, ByteEndpoint):
        return Done(target.put(data))
    raise OSError(EINVAL, "splice")


def _take(source: Endpoint, limit: int) -> bytes | None:
    """Up to ``limit`` bytes, b"" at the end, None while there are none. Raises OSError."""
    if isinstance(source, ByteEndpoint):
        return source.take(limit)
    if not isinstance(source, StreamSocket):
        raise OSError(EINVAL, "nothing can be read from it")
    if source.listener is not None:
        raise OSError(ENOTCONN, "listening")
    connection_of(source)
    data = source.read(limit)
    if data:
        return data
    error = source.take_error()
    if error is not None:
        raise OSError(error, "the connection has failed")
    source.check_connected()
    return b"" if source.is_at_end else None


def _without_urgency(endpoint: Endpoint, flags: int) -> int:
    """As for Linux MSG_OOB means nothing to MPTCP's sockets."""
    return (
        flags & ~socket.MSG_OOB
        if isinstance(endpoint, StreamSocket) and endpoint.protocol == "mptcp"
        else flags
    )


def _receiving(endpoint: Endpoint, length: int, flags: int, deliver: Deliver) -> Try:
    flags = _without_urgency(endpoint, flags)
    if flags & socket.MSG_OOB and isinstance(endpoint, StreamSocket):
        connection, keep = connection_of(endpoint), bool(flags & socket.MSG_PEEK)
        byte = urgent_reading.read_apart(connection, keep=keep) if length else b""
        return finished(len(byte), deliver(byte))
    if flags & ~_KNOWN_RECEIVE_FLAGS:
        raise ValueError("flags: the bundled stack knows MSG_DONTWAIT, MSG_OOB, MSG_PEEK and MSG_WAITALL")
    if not isinstance(endpoint, (StreamSocket, ByteEndpoint)):
        raise OSError(EINVAL, "nothing can be read from it")
    gathered = bytearray()
    must_not_wait = bool(flags & socket.MSG_DONTWAIT)
    wants_all = bool(flags & socket.MSG_WAITALL)

    def attempt(_now_us: int) -> Done | None:
        if flags & socket.MSG_PEEK and isinstance(endpoint, StreamSocket):
            data = endpoint.read(length, keep=True) or _take(endpoint, length)
        else:
            data = _take(endpoint, length - len(gathered)) if length else b""
        gathered.extend(data or b"")
        is_enough = len(gathered) == length or data == b"" or not wants_all
        if (data is not None and is_enough) or (gathered and (must_not_wait or endpoint.is_nonblocking)):
            return Done(len(gathered), deliver(bytes(gathered)))
        if data is None:
            would_block(endpoint, must_not_wait=must_not_wait)
        return None

    return attempt


def sending(endpoint: Endpoint, data: bytes, flags: int) -> Try:
    flags = _without_urgency(endpoint, flags)
    if flags & ~_KNOWN_SEND_FLAGS:
        raise ValueError("flags: the bundled stack knows MSG_DONTWAIT, MSG_MORE, MSG_NOSIGNAL and MSG_OOB")
    if isinstance(endpoint, ByteEndpoint):
        return finished(endpoint.put(data))
    if not isinstance(endpoint, StreamSocket):
        raise OSError(EINVAL, "nothing can be written to it")
    must_not_wait = bool(flags & socket.MSG_DONTWAIT)
    sent = 0

    def attempt(_now_us: int) -> Done | None:
        nonlocal sent
        try:
            accepted = _write_some(endpoint, data[sent:], flags)
        except OSError:
            if sent:
                return Done(sent)
            raise
        sent += accepted
        if sent == len(data) or (sent and (must_not_wait or endpoint.is_nonblocking)):
            return Done(sent)
        would_block(endpoint, must_not_wait=must_not_wait)
        return None

    return attempt


def _write_some(endpoint: StreamSocket, data: bytes, flags: int) -> int:
    """As tcp_sendmsg() has it: the connection's error once, from then on EPIPE."""
    connection = endpoint.connection
    if connection is None or endpoint.listener is not None:
        raise OSError(EPIPE, "not connected")
    error = endpoint.take_error()
    if error is not None:
        raise OSError(error, "the connection has failed")
    if connection.write_closed or connection.is_closed:
        raise OSError(EPIPE, "sending was shut down")
    if endpoint.is_connecting or not data:
        return 0
    more_follows, urgent = bool(flags & socket.MSG_MORE), bool(flags & socket.MSG_OOB)
    return connection.write(data, more_follows=more_follows, urgent=urgent)


def _with_outputs(attempt: Try, outputs: dict[int, Value]) -> Try:
    def run(now_us: int) -> Done | None:
        done = attempt(now_us)
        return None if done is None else Done(done.value, outputs)

    return run


# --- buffers as scripts write them ---


def _length(value: Value) -> int:
    length = number_argument(value, "length")
    if not 0 <= length <= MAXIMUM_CALL_BYTES:
        raise ValueError(f"length {length}: expected 0 to {MAXIMUM_CALL_BYTES}")
    return length


def payload_argument(buffer: Value, length: Value) -> bytes:
    """What a call is given to send."""
    return _payload(buffer, _length(length))


def _payload(value: Value, length: int) -> bytes:
    """``...`` stands for zeros; a string is cut, or filled up with zeros."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None:
        return bytes(length)
    if isinstance(value, bytes):
        return value[:length].ljust(length, b"\0")
    raise ValueError("expected a buffer, a string or ...")


def _vector(value: Value, count: Value) -> list[dict[str, Value]]:
    """An array of iovecs: ``[{..., 1000}, {"abc", 3}]``."""
    if not isinstance(value, list):
        raise ValueError("expected an array of iovecs, [{..., 1000}]")
    entries = value if count is None else value[: number_argument(count, "count")]
    found = [entry for entry in entries if isinstance(entry, dict)]
    if len(found) != len(entries):
        raise ValueError("expected an array of iovecs, [{..., 1000}]")
    return found


def _entry_length(entry: dict[str, Value]) -> int:
    return _length(entry.get("iov_len", entry.get("1")))


def _vector_lengths(value: Value, count: Value) -> list[int]:
    lengths = [_entry_length(entry) for entry in _vector(value, count)]
    _length(sum(lengths))
    return lengths


def _gathered(value: Value, count: Value) -> bytes:
    _vector_lengths(value, count)
    entries = _vector(value, count)
    return b"".join(
        _payload(entry.get("iov_base", entry.get("0")), _entry_length(entry)) for entry in entries
    )


def _scattered(data: bytes, lengths: list[int]) -> Value:
    entries: list[Value] = []
    for length in lengths:
        part, data = data[:length], data[length:]
        entries.append({"0": part, "1": length})
    return entries


def _message(value: Value) -> dict[str, Value]:
    if not isinstance(value, dict):
        raise ValueError("expected a message, {msg_iov(1)=[{..., 1000}], …}")
    return value
