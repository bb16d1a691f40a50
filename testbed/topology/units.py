"""Quantities with their units, as a topology file writes them: ``10mbit``, ``5ms``, ``0.1%``."""

from __future__ import annotations

import re
from decimal import Decimal

# The words of tc(8). Its "bps" means bytes per second, which everybody misreads: it is not accepted.
RATE_UNITS_BIT_S = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9, "tbit": 10**12}
SIZE_UNITS_BYTES = {"B": 1, "kB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20}
DURATION_UNITS_US = {"us": 1, "ms": 10**3, "s": 10**6}

RATE_PATTERN = r"^[0-9]{1,12}(\.[0-9]{1,6})?([kKmMgGtT]?[bB][iI][tT])$"
DURATION_PATTERN = r"^[0-9]{1,12}(\.[0-9]{1,6})?(us|ms|s)$"
PERCENTAGE_PATTERN = r"^[0-9]{1,3}(\.[0-9]{1,12})?%$"
SIZE_PATTERN = r"^-?[0-9]{1,12}(\.[0-9]{1,12})?(B|kB|KiB|MB|MiB)$"

MAXIMUM_RATE_BIT_S = 10**12
MAXIMUM_DURATION_US = 24 * 3600 * 10**6
MAXIMUM_SIZE_BYTES = 2**31 - 1

MAXIMUM_WHOLE_DIGITS = 12

_QUANTITY = re.compile(r"(-?([0-9]{1,60})(?:\.[0-9]{1,12})?)([A-Za-z/%]*)", re.ASCII)


def _split(value: object, kind: str, example: str) -> tuple[Decimal, str]:
    match = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        if isinstance(value, int) and not isinstance(value, bool):
            raise ValueError(f"a {kind} needs a unit, like {example!r}")
        raise ValueError(f"a {kind} is a number and a unit, like {example!r}")
    if not match[3]:
        raise ValueError(f"a {kind} needs a unit, like {example!r}")
    if len(match[2]) > MAXIMUM_WHOLE_DIGITS:
        raise ValueError(f"a {kind} has at most {MAXIMUM_WHOLE_DIGITS} digits before its point")
    number = Decimal(match[1])
    if number < 0 and kind != "size":
        raise ValueError(f"a {kind} is never negative, unlike {match[0]!r}; write it like {example!r}")
    return number, match[3]


def parse_rate_bit_s(value: object) -> int:
    """Bits per second of ``10mbit``. Raises ValueError that says what is wrong."""
    number, unit = _split(value, "rate", "10mbit")
    factor = RATE_UNITS_BIT_S.get(unit.lower())
    if factor is None:
        known = ", ".join(RATE_UNITS_BIT_S)
        raise ValueError(f"unknown unit of rate {unit!r}; units are {known} (bits per second)")
    rate_bit_s = int(number * factor)
    if not 0 < rate_bit_s <= MAXIMUM_RATE_BIT_S:
        raise ValueError("a rate lies between 1bit and 1tbit")
    return rate_bit_s


def parse_duration_us(value: object) -> int:
    """Microseconds of ``5ms``. Raises ValueError that says what is wrong."""
    number, unit = _split(value, "time", "5ms")
    factor = DURATION_UNITS_US.get(unit)
    if factor is None:
        raise ValueError(f"unknown unit of time {unit!r}; units are {', '.join(DURATION_UNITS_US)}")
    duration_us = int(number * factor)
    if duration_us > MAXIMUM_DURATION_US:
        raise ValueError("a time is at most a day")
    return duration_us


def parse_percentage(value: object) -> float:
    """The share (0 to 1) of ``0.1%``. Raises ValueError that says what is wrong."""
    number, unit = _split(value, "share", "0.1%")
    if unit != "%":
        raise ValueError(f"unknown unit of share {unit!r}; write '0.1%'")
    if number > 100:
        raise ValueError("a share lies between 0% and 100%")
    return float(number / 100)


def rate_text(rate_bit_s: int) -> str:
    """The shortest exact way to write a rate: ``10mbit``."""
    for unit, factor in reversed(RATE_UNITS_BIT_S.items()):
        if rate_bit_s % factor == 0:
            return f"{rate_bit_s // factor}{unit}"
    raise AssertionError("every integer is a multiple of one bit per second")


def parse_size_bytes(value: object) -> int:
    """Bytes of ``64kB``; may be negative, as the overhead of a packet is. Raises ValueError."""
    number, unit = _split(value, "size", "64kB")
    factor = SIZE_UNITS_BYTES.get(unit)
    if factor is None:
        raise ValueError(f"unknown unit of size {unit!r}; units are {', '.join(SIZE_UNITS_BYTES)} (bytes)")
    size_bytes = number * factor
    if size_bytes != int(size_bytes) or abs(size_bytes) > MAXIMUM_SIZE_BYTES:
        raise ValueError("a size is a whole number of bytes, at most 2 GiB")
    return int(size_bytes)


def duration_text(duration_us: int) -> str:
    """The shortest exact way to write a time: ``10ms``."""
    for unit, factor in reversed(DURATION_UNITS_US.items()):
        if duration_us and duration_us % factor == 0:
            return f"{duration_us // factor}{unit}"
    return f"{duration_us}ms"


def percentage_text(share: float) -> str:
    """A share as it is written: ``0.1%``."""
    text = f"{Decimal(repr(share)) * 100:f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}%"
