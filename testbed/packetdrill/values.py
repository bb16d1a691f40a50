"""Arguments and results of system calls: from a script's expressions to values, and back for comparison.

The form of a value (`stack_under_test.Value`), the same for every stack under test:

* a number or constant is an int, a string is bytes, ``...`` is None, an array is a list;
* a structure is a dict by field name; a field without a name has its position as name: ``"0"``, ``"1"``;
* the count of ``msg_iov(1)=[…]`` is kept beside it as ``"msg_iov(count)"``;
* ``htons(N)`` and its kin are N: ports are numbers, not bytes in some order;
* ``inet_addr("…")`` and ``inet_pton(AF_…, "…")`` are packed addresses.
"""

from __future__ import annotations

from collections.abc import Iterator

from mptcp_stack.errors import StackError
from mptcp_stack.wire.addresses import format_address, parse_address
from testbed.packetdrill.stack_under_test import Value
from testbed.packetdrill.syntax import (
    Array,
    BitwiseOr,
    Constant,
    Ellipsis,
    Expression,
    FunctionCall,
    Integer,
    String,
    Structure,
)

MAXIMUM_SHOWN_BYTES = 40


def to_value(expression: Expression) -> Value:
    """The value of an argument. Raises ValueError for text that is no address."""
    match expression:
        case Integer() | Constant():
            return expression.value
        case String():
            return expression.value
        case Ellipsis():
            return None
        case Array():
            return [to_value(item) for item in expression.items]
        case Structure():
            return _structure_value(expression)
        case BitwiseOr():
            return _combined(expression)
        case FunctionCall():
            return _function_value(expression)


def _structure_value(structure: Structure) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for position, field in enumerate(structure.fields):
        name = field.name or str(position)
        values[name] = to_value(field.value)
        if field.count is not None:
            values[f"{name}(count)"] = to_value(field.count)
    return values


def _combined(expression: BitwiseOr) -> int:
    bits = 0
    for term in expression.terms:
        value = to_value(term)
        if not isinstance(value, int):
            raise ValueError("only numbers can be joined with '|'")
        bits |= value
    return bits


def _function_value(call: FunctionCall) -> Value:
    value = to_value(call.arguments[-1])
    if call.name not in ("inet_addr", "inet_pton"):
        return value
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    try:
        return parse_address(text)
    except StackError as error:
        raise ValueError(f"{call.name}: {error}") from None


def differences(expected: Value, got: Value, path: str) -> Iterator[tuple[str, Value, Value]]:
    """Where ``got`` is not what ``expected`` asks for, as (path, expected, got).

    None in ``expected`` is content with anything; fields that it does not name are not compared.
    """
    if expected is None:
        return
    if isinstance(expected, dict) and isinstance(got, dict):
        for name, value in expected.items():
            if name.endswith("(count)"):
                continue
            yield from differences(value, got.get(name), f"{path}.{name}")
    elif isinstance(expected, list) and isinstance(got, list):
        for position, value in enumerate(expected):
            other = got[position] if position < len(got) else None
            yield from differences(value, other, f"{path}[{position}]")
    elif expected != got:
        yield path, expected, got


def format_value(value: Value) -> str:
    """As a script would write it."""
    match value:
        case None:
            return "..."
        case bytes():
            return _format_bytes(value)
        case list():
            return "[" + ", ".join(map(format_value, value)) + "]"
        case dict():
            return (
                "{" + ", ".join(f"{name}={_format_field(name, each)}" for name, each in value.items()) + "}"
            )
        case _:
            return str(value)


def _format_field(name: str, value: Value) -> str:
    if name in ("sin_addr", "sin6_addr") and isinstance(value, bytes) and len(value) in (4, 16):
        function = "inet_addr(" if len(value) == 4 else "inet_pton(AF_INET6, "
        return f'{function}"{format_address(value)}")'
    return format_value(value)


def _format_bytes(data: bytes) -> str:
    shown = data[:MAXIMUM_SHOWN_BYTES]
    text = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in shown
    )
    rest = f"… ({len(data)} bytes)" if len(data) > len(shown) else ""
    return f'"{text}"{rest}'
