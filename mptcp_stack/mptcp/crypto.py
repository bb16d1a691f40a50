"""Keys, tokens and message authentication of MPTCP version 1 (RFC 8684 §3.1, §3.2, §3.4.1)."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

KEY_BYTES = 8


@dataclass(frozen=True, slots=True)
class Key:
    """One side's key and what both sides derive from it."""

    value: bytes
    token: int
    """The first 32 bits of its SHA-256: names the connection in MP_JOIN."""
    initial_data_sequence: int
    """The last 64 bits of its SHA-256."""


def derive(value: bytes) -> Key:
    digest = hashlib.sha256(value).digest()
    return Key(value, int.from_bytes(digest[:4], "big"), int.from_bytes(digest[-8:], "big"))


def join_hmac(sender_key: bytes, receiver_key: bytes, sender_nonce: int, receiver_nonce: int) -> bytes:
    """The 32 bytes that prove the sender's knowledge of both keys; MP_JOIN carries the first 8 or 20."""
    message = sender_nonce.to_bytes(4, "big") + receiver_nonce.to_bytes(4, "big")
    return hmac.digest(sender_key + receiver_key, message, "sha256")


def address_hmac(
    sender_key: bytes, receiver_key: bytes, address_id: int, address: bytes, port: int | None
) -> bytes:
    """The last 64 bits over the announced address; a port that is not given counts as 0."""
    message = bytes([address_id]) + address + (port or 0).to_bytes(2, "big")
    return hmac.digest(sender_key + receiver_key, message, "sha256")[-8:]


def equal(first: bytes, second: bytes) -> bool:
    """Compares secrets in constant time."""
    return hmac.compare_digest(first, second)
