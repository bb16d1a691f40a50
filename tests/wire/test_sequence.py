from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcp_stack.wire.sequence import SEQUENCE_MODULUS, unwrap


@pytest.mark.parametrize(
    ("value", "reference", "expected"),
    [
        (5, 3, 5),
        (5, SEQUENCE_MODULUS - 3, SEQUENCE_MODULUS + 5),
        (SEQUENCE_MODULUS - 3, 5, -3),
        (0, 7 * SEQUENCE_MODULUS + 1, 7 * SEQUENCE_MODULUS),
        (1 << 31, 0, -(1 << 31)),
    ],
)
def test_nearest_integer_is_taken(value: int, reference: int, expected: int) -> None:
    assert unwrap(value, reference) == expected


@given(st.integers(-(1 << 70), 1 << 70), st.sampled_from((8, 32, 64)), st.data())
def test_unwrap_undoes_wrapping(reference: int, bits: int, data: st.DataObject) -> None:
    half = 1 << bits - 1
    original = reference + data.draw(st.integers(-half, half - 1))
    assert unwrap(original % (1 << bits), reference, bits) == original
