"""SipHash-2-4 (Aumasson, Bernstein 2012): a keyed hash of 64 bits for short messages."""

from __future__ import annotations

_MASK = (1 << 64) - 1
_COMPRESSION_ROUNDS, _FINAL_ROUNDS = 2, 4

_State = tuple[int, int, int, int]


def siphash(key: bytes, message: bytes) -> int:
    """``key`` has 16 bytes."""
    low, high = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:16], "little")
    state = (
        low ^ 0x736F6D6570736575,
        high ^ 0x646F72616E646F6D,
        low ^ 0x6C7967656E657261,
        high ^ 0x7465646279746573,
    )
    padded = message + bytes(-(len(message) + 1) % 8) + bytes((len(message) & 0xFF,))
    for start in range(0, len(padded), 8):
        word = int.from_bytes(padded[start : start + 8], "little")
        state = _rounds((*state[:3], state[3] ^ word), _COMPRESSION_ROUNDS)
        state = (state[0] ^ word, *state[1:])
    a, b, c, d = _rounds((state[0], state[1], state[2] ^ 0xFF, state[3]), _FINAL_ROUNDS)
    return a ^ b ^ c ^ d


def _rounds(state: _State, count: int) -> _State:
    a, b, c, d = state
    for _ in range(count):
        a = (a + b) & _MASK
        b = _rotated(b, 13) ^ a
        a = _rotated(a, 32)
        c = (c + d) & _MASK
        d = _rotated(d, 16) ^ c
        a = (a + d) & _MASK
        d = _rotated(d, 21) ^ a
        c = (c + b) & _MASK
        b = _rotated(b, 17) ^ c
        c = _rotated(c, 32)
    return a, b, c, d


def _rotated(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK
