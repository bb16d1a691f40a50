"""Quantities need their units and are exact."""

from __future__ import annotations

import pytest

from testbed.topology.units import parse_duration_us, parse_percentage, parse_rate_bit_s, rate_text


@pytest.mark.parametrize(
    ("text", "rate_bit_s"),
    [("1bit", 1), ("64kbit", 64_000), ("1.5Mbit", 1_500_000), ("0.1gbit", 10**8), ("1tbit", 10**12)],
)
def test_rates(text: str, rate_bit_s: int) -> None:
    assert parse_rate_bit_s(text) == rate_bit_s
    assert parse_rate_bit_s(rate_text(rate_bit_s)) == rate_bit_s


@pytest.mark.parametrize(("text", "duration_us"), [("5us", 5), ("1.5ms", 1500), ("3s", 3_000_000)])
def test_durations(text: str, duration_us: int) -> None:
    assert parse_duration_us(text) == duration_us


@pytest.mark.parametrize(("text", "share"), [("0%", 0.0), ("0.1%", 0.001), ("100%", 1.0)])
def test_shares(text: str, share: float) -> None:
    assert parse_percentage(text) == share


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        5.0,
        True,
        [],
        {},
        "",
        "mbit",
        "-1mbit",
        "1 0mbit",
        "1e3mbit",
        "١mbit",
        "1mbit/s",
        "2tbit",
        "nan%",
    ],
)
def test_nonsense(value: object) -> None:
    for parse in (parse_rate_bit_s, parse_duration_us, parse_percentage):
        with pytest.raises(ValueError, match=r"rate|time|share"):
            parse(value)
