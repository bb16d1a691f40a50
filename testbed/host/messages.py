"""The dataclasses of :mod:`testbed.host.protocol` as JSON, checked strictly on the way in.

Written by hand because a validation library would cost every agent memory and start-up time.
"""

from __future__ import annotations

import dataclasses
import json
import types
from enum import StrEnum
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

MAXIMUM_REQUEST_BYTES = 256 * 1024
MAXIMUM_ANSWER_BYTES = 8 * 1024 * 1024
"""Counters and socket states of a host with thousands of connections fit well within."""

Message = TypeVar("Message")


class MessageError(Exception):
    """A message that is not what the protocol says; the text names every problem."""


def to_json(message: object) -> dict[str, Any]:
    """A dataclass of the protocol as a JSON object. Raises TypeError for anything else."""
    if not dataclasses.is_dataclass(message) or isinstance(message, type):
        raise TypeError(f"not a message: {message!r}")
    return dataclasses.asdict(message)


def from_json(kind: type[Message], value: object) -> Message:
    """The dataclass ``kind`` from a JSON object. Raises MessageError with every problem at once."""
    if not isinstance(value, dict):
        raise MessageError(f"{kind.__name__}: must be an object, not {_describe(value)}")
    problems: list[str] = []
    arguments: dict[str, object] = {}
    known = _fields(kind)
    for name in value:
        if name not in known:
            problems.append(f"{name!s:.60}: unknown")
    for name, (annotation, is_required) in known.items():
        if name in value:
            try:
                arguments[name] = _read(annotation, value[name])
            except MessageError as error:
                problems.append(f"{name}: {error}")
        elif is_required:
            problems.append(f"{name}: missing")
    if problems:
        raise MessageError(f"{kind.__name__}: " + "; ".join(problems))
    return kind(**arguments)


def encode_line(message: dict[str, Any]) -> bytes:
    """One JSON line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode_line(line: bytes) -> dict[str, Any]:
    """The object of one JSON line. Raises MessageError."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"not a JSON line: {error}") from None
    if not isinstance(message, dict):
        raise MessageError(f"a message must be an object, not {_describe(message)}")
    return message


_known_fields: dict[int, dict[str, tuple[Any, bool]]] = {}
"""By the identity of message types, which live as long as the process."""


def _fields(kind: type) -> dict[str, tuple[Any, bool]]:
    """Name → (type, whether it must be given)."""
    found = _known_fields.get(id(kind))
    if found is None:
        found = _known_fields[id(kind)] = _find_fields(kind)
    return found


def _find_fields(kind: type) -> dict[str, tuple[Any, bool]]:
    if not dataclasses.is_dataclass(kind):
        raise TypeError(f"not a message type: {kind!r}")
    hints = get_type_hints(kind)
    return {
        field.name: (
            hints[field.name],
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(kind)
    }


def _read(annotation: Any, value: object) -> object:
    if annotation is Any:
        return value
    if isinstance(annotation, types.UnionType):
        members = get_args(annotation)
        if value is None and types.NoneType in members:
            return None
        return _read(next(member for member in members if member is not types.NoneType), value)
    origin = get_origin(annotation)
    if origin is tuple:
        return _read_tuple(get_args(annotation), value)
    if origin is dict:
        return _read_dict(get_args(annotation), value)
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return from_json(annotation, value)
    if issubclass(annotation, StrEnum):
        return _read_enumeration(annotation, value)
    return _read_plain(annotation, value)


def _read_tuple(members: tuple[Any, ...], value: object) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise MessageError(f"must be a list, not {_describe(value)}")
    if len(members) == 2 and members[1] is Ellipsis:
        return tuple(_read(members[0], item) for item in value)
    if len(value) != len(members):
        raise MessageError(f"must have {len(members)} entries, not {len(value)}")
    return tuple(_read(member, item) for member, item in zip(members, value, strict=True))


def _read_dict(members: tuple[Any, ...], value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise MessageError(f"must be dict, not {_describe(value)}")
    return {name: _read(members[1], item) for name, item in value.items()}


def _read_enumeration(kind: type[StrEnum], value: object) -> StrEnum:
    if isinstance(value, str) and value in list(kind):
        return kind(value)
    raise MessageError(f"must be one of {', '.join(kind)}, not {_describe(value)}")


def _read_plain(kind: type, value: object) -> object:
    # bool is a subclass of int, but "true" is no number of bytes.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise MessageError(f"must be {kind.__name__}, not {_describe(value)}")
    return value


def _describe(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
