from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcp_stack.wire.checksum import checksum_of, ones_complement_sum, pseudo_header_sum
from tests.wire.strategies import ipv4_addresses, ipv6_addresses, uint8, uint16


def sum_by_words(data: bytes) -> int:
    """RFC 1071 §1 to the letter."""
    padded = data + bytes(len(data) & 1)
    total = 0
    for position in range(0, len(padded), 2):
        total += padded[position] << 8 | padded[position + 1]
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_example_of_rfc_1071() -> None:
    assert ones_complement_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0", bytes(7)])
def test_zeros_sum_up_to_zero(data: bytes) -> None:
    assert ones_complement_sum(data) == 0
    assert checksum_of((data,)) == 0xFFFF


@pytest.mark.parametrize("data", [b"\xff\xff", b"\xff\xff" * 9, b"\xff\xfe\0\x01"])
def test_anything_else_never_sums_up_to_zero(data: bytes) -> None:
    assert ones_complement_sum(data) == 0xFFFF
    assert checksum_of((data,)) == 0


@given(st.binary(max_size=200))
def test_sum_is_that_of_the_words(data: bytes) -> None:
    assert ones_complement_sum(data) == sum_by_words(data)
    assert ones_complement_sum(memoryview(data)) == sum_by_words(data)


@pytest.mark.parametrize("length", [*range(1022, 1030), 1460, 65_535])
def test_sum_of_long_data_is_that_of_the_words(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert ones_complement_sum(memoryview(data)) == sum_by_words(data)
    assert ones_complement_sum(bytes(length)) == 0
    assert ones_complement_sum(b"\xff" * (length & ~1)) == 0xFFFF


@given(st.lists(st.binary(max_size=9), max_size=8), uint16)
def test_checksum_does_not_depend_on_the_cuts(parts: list[bytes], initial: int) -> None:
    joined = b"".join(parts)
    expected = sum_by_words(initial.to_bytes(2, "big") + joined) ^ 0xFFFF
    assert checksum_of(parts, initial) == expected


@given(ipv4_addresses, ipv4_addresses, uint8, uint16)
def test_pseudo_header_of_ipv4(source: bytes, destination: bytes, protocol: int, length: int) -> None:
    header = source + destination + bytes((0, protocol)) + length.to_bytes(2, "big")
    assert pseudo_header_sum(source, destination, protocol, length) == (sum_by_words(header) or 0xFFFF)


@given(ipv6_addresses, ipv6_addresses, uint8, st.integers(0, 1 << 20))
def test_pseudo_header_of_ipv6(source: bytes, destination: bytes, protocol: int, length: int) -> None:
    header = source + destination + length.to_bytes(4, "big") + bytes((0, 0, 0, protocol))
    assert pseudo_header_sum(source, destination, protocol, length) == (sum_by_words(header) or 0xFFFF)
