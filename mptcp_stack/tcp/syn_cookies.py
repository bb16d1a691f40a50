"""SYN cookies (RFC 4987 §3.6) in the form of Linux: a SYN is answered and nothing of it is kept.

The initial sequence number says when it was made and which of four segment sizes to use, under a keyed hash;
what else the SYN negotiated travels in the low bits of the timestamp, which the third packet echoes.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mptcp_stack.tcp.initial_sequence import SEQUENCE_MASK, KeyedNumbers, packed

if TYPE_CHECKING:
    from mptcp_stack.tcp.environment import FourTuple

PERIOD_US = 60_000_000
MAXIMUM_AGE = 2
"""In periods: a cookie is good for one to two minutes."""
VALID_US = MAXIMUM_AGE * PERIOD_US
_HASH_BITS = 24
_HASH_MASK = (1 << _HASH_BITS) - 1
_SEGMENT_SIZES = {4: (536, 1300, 1440, 1460), 16: (1220, 1420, 1440, 8940)}
"""Linux's tables: what the Internet uses, with room for tunnels; by the length of an address."""
ABSENT_MSS = {4: 536, 16: 1220}
"""What a SYN without the option stands for (RFC 9293 §3.7.1), by the length of an address."""
_OPTION_BITS = 6
_OPTION_MASK = (1 << _OPTION_BITS) - 1
_NO_WINDOW_SCALE = 0xF
_SACK_BIT = 1 << 4


@dataclass(slots=True)
class Negotiated:
    """What a timestamp brings back."""

    window_scale: int | None
    sack_permitted: bool


def make_cookie(
    numbers: KeyedNumbers, four_tuple: FourTuple, peer_sequence: int, peer_mss: int, now_us: int
) -> int:
    """The initial sequence number to answer a SYN with."""
    period = now_us // PERIOD_US
    index = max(0, bisect_right(_SEGMENT_SIZES[len(four_tuple[0])], peer_mss) - 1)
    base = _hash(numbers, four_tuple, 0, b"\0", 32) + peer_sequence + (period << _HASH_BITS)
    dated = _hash(numbers, four_tuple, period, b"\1", _HASH_BITS) + index
    return (base + (dated & _HASH_MASK)) & SEQUENCE_MASK


def check_cookie(
    numbers: KeyedNumbers, four_tuple: FourTuple, peer_sequence: int, cookie: int, now_us: int
) -> int | None:
    """The segment size that the SYN asked for, rounded down; None for what is no cookie of ours."""
    period = now_us // PERIOD_US
    rest = (cookie - _hash(numbers, four_tuple, 0, b"\0", 32) - peer_sequence) & SEQUENCE_MASK
    age = (period - (rest >> _HASH_BITS)) & 0xFF
    if age >= MAXIMUM_AGE:
        return None
    index = (rest - _hash(numbers, four_tuple, period - age, b"\1", _HASH_BITS)) & _HASH_MASK
    sizes = _SEGMENT_SIZES[len(four_tuple[0])]
    return sizes[index] if index < len(sizes) else None


def _hash(numbers: KeyedNumbers, four_tuple: FourTuple, period: int, kind: bytes, bits: int) -> int:
    message = packed(four_tuple) + max(0, period).to_bytes(8, "big") + kind
    return int.from_bytes(numbers.digest(b"cookie", message), "big") & ((1 << bits) - 1)


def encode_timestamp(clock: int, window_scale: int | None, sack_permitted: bool) -> int:
    """The largest timestamp up to ``clock`` whose low bits say what was negotiated."""
    bits = _NO_WINDOW_SCALE if window_scale is None else min(window_scale, 14)
    bits |= _SACK_BIT if sack_permitted else 0
    value = clock & ~_OPTION_MASK | bits
    return value if value <= clock else value - (1 << _OPTION_BITS)


def decode_timestamp(echo: int) -> Negotiated:
    """From an echo without the offset of this host's timestamps."""
    scale = echo & _NO_WINDOW_SCALE
    return Negotiated(None if scale == _NO_WINDOW_SCALE else scale, bool(echo & _SACK_BIT))
