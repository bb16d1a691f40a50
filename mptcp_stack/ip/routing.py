"""The routing table: longest prefix first, with source-specific routes tried before the main ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.ip.interface import Interface


@dataclass(slots=True, frozen=True)
class Route:
    """One way to a network.

    ``source`` makes it a policy route: it counts only for packets from that address, and before all routes
    without one, as ``ip rule add from SOURCE lookup TABLE`` has it.
    """

    destination: bytes
    prefix_length: int
    interface: Interface
    gateway: bytes | None = None
    source: bytes | None = None
    metric: int = 0

    def __post_init__(self) -> None:
        bits = 8 * len(self.destination)
        if bits not in (32, 128) or not 0 <= self.prefix_length <= bits:
            raise ConfigurationError(
                f"no network: address of {bits} bits with a prefix of {self.prefix_length} bits"
            )
        for other in (self.gateway, self.source):
            if other is not None and 8 * len(other) != bits:
                raise ConfigurationError("destination, gateway and source of a route must be of one family")

    def matches(self, destination: bytes) -> bool:
        """Whether ``destination`` lies in this route's network (False for the other family)."""
        if len(destination) != len(self.destination):
            return False
        shift = 8 * len(destination) - self.prefix_length
        return int.from_bytes(destination, "big") >> shift == int.from_bytes(self.destination, "big") >> shift


class RoutingTable:
    """All routes of a host. ``generation`` changes whenever an earlier lookup may no longer hold."""

    def __init__(self) -> None:
        self._routes: list[Route] = []
        self.generation = 0

    def __iter__(self) -> Iterator[Route]:
        return iter(tuple(self._routes))

    def __len__(self) -> int:
        return len(self._routes)

    def add(self, route: Route) -> None:
        """Add a route; an equal one added before stays and counts again."""
        self._routes.append(route)
        # The sort is stable: among equals, what was added first wins, as in the kernel.
        self._routes.sort(key=lambda each: (each.source is None, -each.prefix_length, each.metric))
        self.generation += 1

    def remove(self, route: Route) -> None:
        """Remove one route that equals ``route``; ConfigurationError if there is none."""
        try:
            self._routes.remove(route)
        except ValueError:
            raise ConfigurationError("no such route") from None
        self.generation += 1

    def invalidate(self) -> None:
        """Make holders of cached lookups look again: an interface or an address changed."""
        self.generation += 1

    def lookup(self, destination: bytes, source: bytes | None = None) -> Route | None:
        """The best route for a packet to ``destination``; None if there is none over a live interface.

        Of routes that are otherwise equal, one whose interface owns ``source`` is preferred: on-link prefixes
        that several interfaces share (fe80::/64 always) name no interface by themselves.
        """
        best: Route | None = None
        for route in self._routes:
            if best is not None and not _rank_equals(route, best):
                break
            if not route.interface.is_up or not route.matches(destination):
                continue
            if route.source is not None and route.source != source:
                continue
            if source is None or route.interface.owns(source):
                return route
            best = best or route
        return best


def _rank_equals(first: Route, second: Route) -> bool:
    return (first.source, first.prefix_length, first.metric) == (
        second.source,
        second.prefix_length,
        second.metric,
    )
