"""Arguments of system calls as scripts write them, for both stacks: numbers, buffers, arrays of iovecs."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.packetdrill.stack_under_test import Value

MAXIMUM_CALL_BYTES = 64 << 20


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
