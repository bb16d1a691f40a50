"""A script's values as the kernel's system calls take them, and back (see `values` for their form)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from testbed.packetdrill.stack_under_test import Addresses, IpVersion, Value

MAXIMUM_CALL_BYTES = 64 << 20

_SOCKADDR_IN = struct.Struct("=H2s4s8x")
_SOCKADDR_IN6 = struct.Struct("=H2sI16sI")
_V4_MAPPED_PREFIX = bytes(10) + b"\xff\xff"

Address = tuple[str, int] | tuple[str, int, int, int]
"""As Python's socket module has it."""


def number(value: Value, what: str, default: int | None = None) -> int:
    """A number, or the default for ``...``. Raises ValueError."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None and default is not None:
        return default
    if not isinstance(value, int):
        raise ValueError(f"{what}: expected a number")
    return value


def length(value: Value) -> int:
    found = number(value, "length")
    if not 0 <= found <= MAXIMUM_CALL_BYTES:
        raise ValueError(f"length {found}: expected 0 to {MAXIMUM_CALL_BYTES}")
    return found


def payload(value: Value, size: int) -> bytes:
    """``...`` stands for zeros; a string is cut, or filled up with zeros."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None:
        return bytes(size)
    if isinstance(value, bytes):
        return value[:size].ljust(size, b"\0")
    raise ValueError("expected a buffer, a string or ...")


def structures(value: Value, count: Value, what: str) -> list[dict[str, Value]]:
    """An array of structures, at most ``count`` of them. Raises ValueError."""
    if not isinstance(value, list):
        raise ValueError(f"expected an array of {what}")
    entries = value if count is None else value[: number(count, "count")]
    found = [entry for entry in entries if isinstance(entry, dict)]
    if len(found) != len(entries):
        raise ValueError(f"expected an array of {what}")
    return found


def vector_lengths(value: Value, count: Value) -> list[int]:
    lengths = [length(entry.get("iov_len", entry.get("1"))) for entry in _vector(value, count)]
    length(sum(lengths))
    return lengths


def gathered(value: Value, count: Value) -> list[bytes]:
    """The buffers that an array of iovecs points to."""
    sizes = vector_lengths(value, count)
    return [
        payload(entry.get("iov_base", entry.get("0")), size)
        for entry, size in zip(_vector(value, count), sizes, strict=True)
    ]


def _vector(value: Value, count: Value) -> list[dict[str, Value]]:
    return structures(value, count, "iovecs, [{..., 1000}]")


def scattered(data: bytes, lengths: Sequence[int]) -> list[Value]:
    """What was read into the buffers of iovecs."""
    entries: list[Value] = []
    for size in lengths:
        part, data = data[:size], data[size:]
        entries.append({"0": part, "1": size})
    return entries


def message(value: Value) -> dict[str, Value]:
    if not isinstance(value, dict):
        raise ValueError("expected a message, {msg_iov(1)=[{..., 1000}], …}")
    return value


# --- socket addresses ---


@dataclass(frozen=True, slots=True)
class SocketAddress:
    family: int
    address: bytes
    port: int
    flow_info: int = 0
    scope: int = 0

    def to_bytes(self) -> bytes:
        """A ``struct sockaddr_in`` or ``sockaddr_in6``; of another family, its number and zeros."""
        port = (self.port & 0xFFFF).to_bytes(2, "big")
        if self.family == socket.AF_INET6:
            return _SOCKADDR_IN6.pack(self.family, port, self.flow_info, self.address, self.scope)
        return _SOCKADDR_IN.pack(self.family, port, self.address[-4:])


class AddressReader:
    """Reads the socket addresses of one script; knows what ``...`` stands for."""

    def __init__(
        self, addresses: Addresses, version: IpVersion, *, bind_port: int, connect_port: int
    ) -> None:
        self.domain = int(socket.AF_INET if version is IpVersion.IPV4 else socket.AF_INET6)
        self._local = (addresses.local[0], bind_port)
        self._remote = (addresses.remote[0], connect_port)

    def local(self, value: Value, domain: int) -> SocketAddress:
        return self._read(value, domain, self._local)

    def remote(self, value: Value, domain: int) -> SocketAddress:
        return self._read(value, domain, self._remote)

    def _read(self, value: Value, domain: int, default: tuple[bytes, int]) -> SocketAddress:
        fields: Value = {} if value is None else value
        if not isinstance(fields, dict):
            raise ValueError("expected a socket address, {sa_family=…, …} or ...")
        family = fields.get("sa_family", fields.get("sin_family", fields.get("sin6_family")))
        family = number(family, "sa_family", domain)
        prefix = "sin6" if family == socket.AF_INET6 else "sin"
        size = 16 if family == socket.AF_INET6 else 4
        return SocketAddress(
            family,
            _packed(fields.get(f"{prefix}_addr", default[0]), size, default[0]),
            number(fields.get(f"{prefix}_port"), f"{prefix}_port", default[1]),
            number(fields.get("sin6_flowinfo"), "sin6_flowinfo", 0),
            number(fields.get("sin6_scope_id"), "sin6_scope_id", 0),
        )


def _packed(value: Value, size: int, default: bytes) -> bytes:
    """A packed address of that size; numbers, such as INADDR_ANY, are in host order."""
    if value is None:
        value = default
    if isinstance(value, int) and 0 <= value < 1 << 8 * size:
        return value.to_bytes(size, "big")
    if isinstance(value, bytes) and len(value) in (4, 16):
        return (_V4_MAPPED_PREFIX + value)[-size:] if len(value) <= size else value[-size:]
    raise ValueError("expected an address")


def address_value(address: Address) -> dict[str, Value]:
    """What a call wrote to a ``struct sockaddr``."""
    if len(address) == 2:
        packed = socket.inet_pton(socket.AF_INET, address[0])
        return {"sa_family": int(socket.AF_INET), "sin_port": address[1], "sin_addr": packed}
    packed = socket.inet_pton(socket.AF_INET6, address[0].partition("%")[0])
    return {"sa_family": int(socket.AF_INET6), "sin6_port": address[1], "sin6_addr": packed}


def address_length(address: Address) -> int:
    return _SOCKADDR_IN.size if len(address) == 2 else _SOCKADDR_IN6.size


# --- socket options ---

_LINGER = struct.Struct("=ii")
_TIME = struct.Struct("=qq")
_INTEGER = struct.Struct("=i")
_LONGEST_SIGNATURE_KEY = 80
_SIGNATURE = struct.Struct(f"=128sBBHi{_LONGEST_SIGNATURE_KEY}s")
"""The peer's address, flags, length of a prefix, length of the key, interface, key."""


def option_bytes(value: Value, size: int) -> bytes:
    """What ``setsockopt`` takes for a script's value. Raises ValueError for a structure it does not know."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bytes):
        return value[:size].ljust(size, b"\0")
    if isinstance(value, int):
        return (
            (value & (1 << 64) - 1)
            .to_bytes(8, "little" if _INTEGER.pack(1)[0] else "big")[:size]
            .ljust(size, b"\0")
        )
    if isinstance(value, dict):
        return _structure_bytes(value)
    if value is None:
        return bytes(size)
    raise ValueError("expected a number, a string or a structure")


def _structure_bytes(fields: dict[str, Value]) -> bytes:
    if "onoff" in fields or "l_onoff" in fields:
        return _LINGER.pack(
            number(fields.get("onoff", fields.get("l_onoff")), "onoff"),
            number(fields.get("linger", fields.get("l_linger")), "linger", 0),
        )
    if "tv_sec" in fields or "tv_usec" in fields:
        return _TIME.pack(
            number(fields.get("tv_sec"), "tv_sec", 0), number(fields.get("tv_usec"), "tv_usec", 0)
        )
    raise ValueError("of structures, options have {onoff=…, linger=…} and {tv_sec=…, tv_usec=…}")


def signature_address(value: Value) -> Value:
    """Whose segments a key of TCP_MD5SIG is for; None for the script's own address."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value.get("tcpm_addr") if isinstance(value, dict) else None


def signature_bytes(peer: SocketAddress, key: bytes) -> bytes:
    """``struct tcp_md5sig``. Raises ValueError for a key that it has no room for."""
    if len(key) > _LONGEST_SIGNATURE_KEY:
        raise ValueError(f"tcpm_key: at most {_LONGEST_SIGNATURE_KEY} bytes")
    return _SIGNATURE.pack(peer.to_bytes(), 0, 0, len(key), 0, key)


def option_value(data: bytes, level: int, option: int) -> Value:
    """What ``getsockopt`` wrote: a structure by its fields, a number in a list, other bytes as they are."""
    if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER) and len(data) == _LINGER.size:
        is_on, seconds = _LINGER.unpack(data)
        return {"onoff": is_on, "linger": seconds}
    if level == socket.SOL_SOCKET and option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        seconds, microseconds = _TIME.unpack(data)
        return {"tv_sec": seconds, "tv_usec": microseconds}
    if len(data) == _INTEGER.size:
        return [_INTEGER.unpack(data)[0]]
    return data
