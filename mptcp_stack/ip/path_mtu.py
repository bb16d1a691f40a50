"""What is known of the MTUs of paths (RFC 1191 §6.3, RFC 8201 §5.3): for each destination and first link."""

from __future__ import annotations

from dataclasses import dataclass

from mptcp_stack.ip.host_configuration import MAXIMUM_CACHED
from mptcp_stack.ip.interface import Interface

LIFETIME_US = 600_000_000
"""Linux's mtu_expires: after so long a larger MTU is tried again."""
IPV4_MINIMUM_MTU = 552
"""Linux's min_pmtu. Beyond it segments are not made smaller, since who forges errors would wish them tiny."""
IPV6_MINIMUM_MTU = 1280


@dataclass(slots=True)
class PathMtu:
    """``may_fragment``: the path is said to carry less than the smallest MTU, so that routers must cut."""

    mtu: int
    may_fragment: bool
    expires_us: int


class PathMtus:
    """Bounded; what was learnt longest ago goes first."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        # In the order in which they expire.
        self._entries: dict[tuple[int, bytes], PathMtu] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, interface: Interface, destination: bytes) -> PathMtu | None:
        if not self._entries:
            return None
        return self._entries.get((interface.index, destination))

    def learn(self, interface: Interface, destination: bytes, reported_mtu: int, now_us: int) -> bool:
        """A router says that no more fits. Whether this makes the path's MTU smaller than it was."""
        is_ipv6 = len(destination) == 16
        if is_ipv6 and reported_mtu < IPV6_MINIMUM_MTU:
            # RFC 8201 §4: every link carries 1280 bytes.
            return False
        key = (interface.index, destination)
        known = self._entries.get(key)
        before = interface.mtu if known is None else min(known.mtu, interface.mtu)
        if reported_mtu > before or (known is not None and known.may_fragment):
            return False
        may_fragment = not is_ipv6 and reported_mtu < IPV4_MINIMUM_MTU
        mtu = min(before, IPV4_MINIMUM_MTU) if may_fragment else reported_mtu
        if mtu == before and not may_fragment and known is None:
            return False
        self._entries.pop(key, None)
        if len(self._entries) >= MAXIMUM_CACHED:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = PathMtu(mtu, may_fragment, now_us + LIFETIME_US)
        return mtu < before or may_fragment

    @property
    def next_deadline_us(self) -> int | None:
        for entry in self._entries.values():
            return entry.expires_us
        return None

    def take_expired(self, now_us: int) -> list[bytes]:
        """The destinations of which nothing is known any more."""
        expired = []
        for key, entry in self._entries.items():
            if entry.expires_us > now_us:
                break
            expired.append(key)
        for key in expired:
            del self._entries[key]
        return [destination for _, destination in expired]
