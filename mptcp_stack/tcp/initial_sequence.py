"""Numbers that nobody off the path may guess, and that grow for a peer (RFC 6528, RFC 7323 §5.4).

Each is a keyed hash of addresses and ports. The key is drawn from the host's randomness when the first
number is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2s
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mptcp_stack.tcp.environment import FourTuple

SECRET_BYTES = 16
SEQUENCE_MASK = 0xFFFFFFFF
_PORT_TABLE_SIZE = 256
"""RFC 6056 §3.3.4: how many sequences of ports run independently of each other."""


class KeyedNumbers:
    """One host's secret, and what is derived from it."""

    __slots__ = ("_drawn", "_port_table", "_random_bytes")

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._drawn: bytes | None = None
        self._port_table: dict[int, int] = {}

    def digest(self, purpose: bytes, message: bytes, size: int = 4) -> bytes:
        """A keyed hash; those of different purposes (up to 8 bytes) tell nothing of each other."""
        if self._drawn is None:
            self._drawn = self._random_bytes(SECRET_BYTES)
        return blake2s(message, digest_size=size, key=self._drawn, person=purpose).digest()

    def initial_sequence(self, four_tuple: FourTuple, now_us: int) -> int:
        """RFC 6528 §3: a clock plus a hash of the four-tuple. The clock ticks each 64 ns, as Linux's."""
        hashed = int.from_bytes(self.digest(b"sequence", packed(four_tuple)), "big")
        return (hashed + now_us * 125 // 8) & SEQUENCE_MASK

    def timestamp_offset(self, local: bytes, remote: bytes) -> int:
        """RFC 7323 §5.4: the same for all connections between two addresses, so that RFC 6191 works."""
        return int.from_bytes(self.digest(b"stamps", local + remote), "big")

    def first_port(self, local: bytes, remote: bytes, remote_port: int) -> int:
        """Where the search for a free local port begins (RFC 6056 §3.3.4, double hash), to be taken modulo.

        It moves on by a random step each time, as in Linux, so that the next port is not known to a peer.
        """
        message = local + remote + remote_port.to_bytes(2, "big")
        slot = int.from_bytes(self.digest(b"slot", message, 2), "big") % _PORT_TABLE_SIZE
        position = self._port_table.get(slot, 0)
        self._port_table[slot] = (position + 1 + self._random_bytes(1)[0] % 8) & 0xFFFF
        return int.from_bytes(self.digest(b"port", message), "big") + position


def packed(four_tuple: FourTuple) -> bytes:
    """The four-tuple as bytes, the same only for the same one."""
    local, local_port, remote, remote_port = four_tuple
    return local + local_port.to_bytes(2, "big") + remote + remote_port.to_bytes(2, "big")
