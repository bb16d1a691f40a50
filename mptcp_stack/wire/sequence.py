"""Sequence numbers: fields of 32 or 64 bits on the wire, unbounded integers inside the stack."""

from __future__ import annotations

SEQUENCE_MODULUS = 1 << 32
"""TCP sequence numbers count modulo this (RFC 9293 §3.4)."""


def unwrap(value: int, reference: int, bits: int = 32) -> int:
    """The integer congruent to ``value`` modulo ``2**bits`` that is nearest to ``reference``.

    The result may be negative. Of two equally near ones it is the lower: a field half the space away counts
    as old.
    """
    half = 1 << bits - 1
    return reference + ((value - reference + half) & (2 * half - 1)) - half
