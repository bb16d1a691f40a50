"""The mappings of a network address translator (RFC 4787, RFC 5382): who inside has which port outside.

Mappings are endpoint-independent: an inner address and port has the same outer port towards everybody, and
whoever sends to that port gets through. The port stays the same where it is free.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

MAXIMUM_MAPPINGS: Final = 4096
"""Beyond these, what is new does not get through until one has expired."""
TRANSITORY_US: Final = 240_000_000
"""While a connection is opened or closed (RFC 5382, REQ-5)."""
_FIRST_PORT: Final = 1024
_LAST_PORT: Final = 65_535
_ATTEMPTS: Final = 64


@dataclass(slots=True)
class Mapping:
    """Both names of one end inside."""

    inner_address: bytes
    inner_port: int
    outer_port: int
    expires_us: int = 0
    was_answered: bool = False
    is_closing: bool = False


class NatTable:
    """The mappings of one outer address."""

    def __init__(self, seed: int, idle_timeout_us: int, limit: int = MAXIMUM_MAPPINGS) -> None:
        self._random = random.Random(f"nat:{seed}")
        self._idle_timeout_us = idle_timeout_us
        self._limit = limit
        self._by_inner: dict[tuple[bytes, int], Mapping] = {}
        self._by_port: dict[int, Mapping] = {}

    def __len__(self) -> int:
        return len(self._by_port)

    def outbound(self, address: bytes, port: int, now_us: int) -> Mapping | None:
        """The mapping of an end inside, a new one if need be; None when there is no room."""
        mapping = self._by_inner.get((address, port))
        if mapping is not None and mapping.expires_us > now_us:
            return mapping
        if mapping is not None:
            self._forget(mapping)
        if len(self._by_port) >= self._limit:
            self._expire(now_us)
        outer_port = self._free_port(port) if len(self._by_port) < self._limit else None
        if outer_port is None:
            return None
        mapping = Mapping(address, port, outer_port, now_us + TRANSITORY_US)
        self._by_inner[address, port] = self._by_port[outer_port] = mapping
        return mapping

    def known(self, address: bytes, port: int, now_us: int) -> Mapping | None:
        """The mapping of an end inside, if there is one."""
        mapping = self._by_inner.get((address, port))
        return mapping if mapping is not None and mapping.expires_us > now_us else None

    def inbound(self, port: int, now_us: int) -> Mapping | None:
        """The mapping with an outer port."""
        mapping = self._by_port.get(port)
        return mapping if mapping is not None and mapping.expires_us > now_us else None

    def used(self, mapping: Mapping, now_us: int, *, from_outside: bool, closes: bool) -> None:
        """A segment passed: the mapping lives on, as long as suits the state of its connection."""
        mapping.was_answered |= from_outside
        mapping.is_closing |= closes
        is_established = mapping.was_answered and not mapping.is_closing
        timeout_us = self._idle_timeout_us
        if not is_established:
            timeout_us = min(timeout_us, TRANSITORY_US)
        mapping.expires_us = now_us + timeout_us

    def _free_port(self, wanted: int) -> int | None:
        port = wanted
        for _ in range(_ATTEMPTS):
            if port not in self._by_port:
                return port
            port = self._random.randint(_FIRST_PORT, _LAST_PORT)
        return None

    def _expire(self, now_us: int) -> None:
        for mapping in list(self._by_port.values()):
            if mapping.expires_us <= now_us:
                self._forget(mapping)

    def _forget(self, mapping: Mapping) -> None:
        del self._by_inner[mapping.inner_address, mapping.inner_port]
        del self._by_port[mapping.outer_port]
