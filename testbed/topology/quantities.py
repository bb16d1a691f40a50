"""Values that several models of the file format have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from testbed.topology import units, values
from testbed.topology.model import IpAddress

Parsed = TypeVar("Parsed")


def validator(parse: Callable[[object], Parsed]) -> Callable[[object], Parsed]:
    def validate(value: object) -> Parsed:
        try:
            return parse(value)
        except ValueError as error:
            raise PydanticCustomError("topology", "{message}", {"message": str(error)}) from None

    return validate


def text_schema(pattern: str | None = None, example: str = "") -> WithJsonSchema:
    schema: dict[str, object] = {"type": "string", "examples": [example]}
    if pattern is not None:
        schema["pattern"] = pattern
    return WithJsonSchema(schema)


DurationUs = Annotated[
    int, PlainValidator(validator(units.parse_duration_us)), text_schema(units.DURATION_PATTERN, "5ms")
]
Address = Annotated[IpAddress, PlainValidator(validator(values.parse_address)), text_schema(None, "10.0.1.1")]
