"""The Internet checksum (RFC 1071).

The sum of 16-bit words with end-around carry is the value of the whole buffer modulo 2**16 - 1, since
2**16 is congruent to 1: one division of a big integer instead of a loop over words.
"""

from __future__ import annotations

from collections.abc import Iterable

from mptcp_stack.wire.frame import Buffer

_WORTH_HALVING_BYTES = 1024


def ones_complement_sum(data: Buffer) -> int:
    """The folded 16-bit sum of ``data``, not inverted. An odd last byte counts as if a zero followed it."""
    length = len(data)
    # Dividing costs more per byte than all else: for long data it is worth it to add two halves first.
    half = length >> 1 & ~1 if length >= _WORTH_HALVING_BYTES else 0
    value = int.from_bytes(data[half:], "big")
    if length & 1:
        value <<= 8
    if half:
        value += int.from_bytes(data[:half], "big")
    if not value:
        return 0
    # Both 0 and 0xFFFF stand for zero; only an all-zero buffer sums up to the former.
    return value % 0xFFFF or 0xFFFF


def checksum_of(parts: Iterable[Buffer], initial: int = 0) -> int:
    """The checksum (inverted sum) over the concatenation of ``parts``, whose lengths may be odd.

    ``initial`` is a sum to start from, as `pseudo_header_sum` returns it; it need not be folded.
    """
    total = initial
    starts_odd = False
    for part in parts:
        partial = ones_complement_sum(part)
        if starts_odd:
            # RFC 1071 §2 (B): a sum over bytes shifted by one is the byte-swapped sum.
            partial = (partial & 0xFF) << 8 | partial >> 8
        total += partial
        if len(part) & 1:
            starts_odd = not starts_odd
    if not total:
        return 0xFFFF
    return (total % 0xFFFF or 0xFFFF) ^ 0xFFFF


def pseudo_header_sum(source: bytes, destination: bytes, protocol: int, length: int) -> int:
    """The folded sum, not inverted, over the pseudo-header of RFC 9293 §3.1 (IPv4) or RFC 8200 §8.1 (IPv6).

    Both forms sum up to the same terms; the addresses, of 4 or 16 bytes each, say which one it is. ``length``
    counts the transport header and its payload in bytes.
    """
    total = int.from_bytes(source, "big") + int.from_bytes(destination, "big") + protocol + length
    return total % 0xFFFF or 0xFFFF
