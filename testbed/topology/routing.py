"""Derives routes: the shortest ways over routers, and policy routing on hosts with several interfaces.

Hosts do not forward, but they accept a packet for any of their addresses on any of their interfaces, as Linux
does. So two interfaces that no chain of routers joins can still exchange packets: over another interface of
one of the two hosts. Which one must be the same both ways, or a subflow would use two paths and die with
either. Rule: *the path is that of the address of the host that the file names first* (so name clients first).
The other host answers towards that address, and routers know host routes for the addresses that lie behind
hosts.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network

from testbed.topology.model import IpAddress, IpNetwork, Route

METRIC_STEP = 10
"""Between the default routes of a host's interfaces: the first interface gets 10, the second 20, …"""


@dataclass(frozen=True, slots=True)
class Leg:
    """One address of a node: where the node touches a network."""

    node: str
    interface: str
    address: IpAddress
    network: IpNetwork


@dataclass(frozen=True, slots=True)
class _Hop:
    interface: str
    gateway: IpAddress | None


def derive_routes(legs: Iterable[Leg], routers: set[str], nodes: Iterable[str]) -> dict[str, list[Route]]:
    """The routes of every host and router. ``legs`` in the order of each node's interfaces, ``nodes`` in the
    file's. Networks that an interface is in have no route without ``source``: the address itself is one.
    """
    legs = list(legs)
    routes: dict[str, list[Route]] = {node: [] for node in nodes}
    for version in (4, 6):
        network = _Network([leg for leg in legs if leg.network.version == version], routers, list(routes))
        for node in routes:
            derive = network.router_routes if node in routers else network.host_routes
            routes[node] += derive(node)
    return routes


class _Network:
    """All legs of one family, and the distances between them."""

    def __init__(self, legs: list[Leg], routers: set[str], order: list[str]) -> None:
        self._routers = routers
        self._rank = {node: position for position, node in enumerate(order)}
        self._legs_of_node: dict[str, list[Leg]] = defaultdict(list)
        self._legs_of_network: dict[IpNetwork, list[Leg]] = defaultdict(list)
        for leg in legs:
            self._legs_of_node[leg.node].append(leg)
            self._legs_of_network[leg.network].append(leg)
        self._routers_of_network = {
            network: [leg for leg in members if leg.node in routers]
            for network, members in self._legs_of_network.items()
        }
        self._router_distances: dict[IpNetwork, dict[str, int]] = {}

    # Distances ------------------------------------------------------------------------------------------

    def _distances_to(self, target: IpNetwork) -> dict[str, int]:
        """For every router that can reach ``target``: how many more routers are on the way."""
        known = self._router_distances.get(target)
        if known is not None:
            return known
        distances: dict[str, int] = {}
        entered = {target}
        waiting = deque([(target, 0)])
        while waiting:
            network, distance = waiting.popleft()
            for router in self._routers_of_network[network]:
                if router.node in distances:
                    continue
                distances[router.node] = distance
                for leg in self._legs_of_node[router.node]:
                    if leg.network not in entered:
                        entered.add(leg.network)
                        waiting.append((leg.network, distance + 1))
        self._router_distances[target] = distances
        return distances

    def _distance(self, start: IpNetwork, target: IpNetwork) -> int | None:
        """How many routers a packet passes from ``start`` to ``target``; None if routers do not join them."""
        if start == target:
            return 0
        distances = self._distances_to(target)
        found = [distances[leg.node] for leg in self._routers_of_network[start] if leg.node in distances]
        return min(found) + 1 if found else None

    def _hop(self, leg: Leg, target: IpNetwork, address: IpAddress | None = None) -> _Hop:
        """The first step from ``leg`` to ``target``, which must be reachable. In the target network itself
        ``address`` is the gateway.
        """
        if leg.network == target:
            return _Hop(leg.interface, address)
        distances = self._distances_to(target)
        candidates = [router for router in self._routers_of_network[leg.network] if router.node in distances]
        nearest = min(candidates, key=lambda router: distances[router.node])
        return _Hop(leg.interface, nearest.address)

    def _nearest(self, legs: list[Leg], target: IpNetwork) -> Leg | None:
        """Of ``legs`` the one that is nearest to ``target``, the first of equals."""
        reaching = [
            (distance, leg) for leg in legs if (distance := self._distance(leg.network, target)) is not None
        ]
        return min(reaching, key=lambda pair: pair[0])[1] if reaching else None

    def _nearest_leg_seen_from(self, start: IpNetwork, legs: list[Leg]) -> Leg | None:
        reachable = [
            (distance, leg) for leg in legs if (distance := self._distance(start, leg.network)) is not None
        ]
        return min(reachable, key=lambda pair: pair[0])[1] if reachable else None

    # Routers --------------------------------------------------------------------------------------------

    def router_routes(self, router: str) -> list[Route]:
        own = self._legs_of_node[router]
        connected = {leg.network for leg in own}
        routes = []
        for target, members in self._legs_of_network.items():
            if target in connected:
                continue
            nearest = self._nearest(own, target)
            if nearest is not None:
                hop = self._hop(nearest, target)
                routes.append(Route(target, hop.interface, hop.gateway))
                continue
            for leg in members:
                behind = self._hop_behind_host(own, leg)
                if behind is not None:
                    routes.append(Route(_host_network(leg.address), behind.interface, behind.gateway))
        return routes

    def _hop_behind_host(self, own: list[Leg], target: Leg) -> _Hop | None:
        """The way to an address in a network that only hosts lead to: over the host that has it."""
        if target.node in self._routers:
            return None
        best: tuple[int, Leg, Leg] | None = None
        for door in self._legs_of_node[target.node]:
            nearest = self._nearest(own, door.network)
            if nearest is None:
                continue
            distance = self._distance(nearest.network, door.network) or 0
            if best is None or distance < best[0]:
                best = (distance, nearest, door)
        return self._hop(best[1], best[2].network, best[2].address) if best else None

    # Hosts ----------------------------------------------------------------------------------------------

    def host_routes(self, host: str) -> list[Route]:
        own = self._legs_of_node[host]
        if not own:
            return []
        is_multihomed = len({leg.interface for leg in own}) > 1
        tables = {leg: dict(self._source_table(leg)) for leg in own}
        defaults: dict[str, _Hop] = {}
        for leg in own:
            if leg.interface not in defaults and (hop := self._default_hop(leg, tables[leg])):
                defaults[leg.interface] = hop
        routes = list(self._main_routes(own, defaults))
        if is_multihomed:
            for leg in own:
                routes += self._policy_routes(leg, tables[leg], defaults.get(leg.interface))
        return routes

    def _main_routes(self, own: list[Leg], defaults: dict[str, _Hop]) -> Iterator[Route]:
        """For packets whose source is not chosen yet: the nearest way, else a default per interface."""
        first_default = next(iter(defaults.values()), None)
        connected = {leg.network for leg in own}
        for target in self._legs_of_network:
            nearest = None if target in connected else self._nearest(own, target)
            hop = self._hop(nearest, target) if nearest else None
            if hop is not None and hop != first_default:
                yield Route(target, hop.interface, hop.gateway)
        everything = _everything(own[0].network)
        for position, hop in enumerate(defaults.values(), 1):
            yield Route(everything, hop.interface, hop.gateway, metric=METRIC_STEP * position)

    def _policy_routes(self, leg: Leg, table: dict[IpNetwork, _Hop], default: _Hop | None) -> Iterator[Route]:
        yield Route(leg.network, leg.interface, source=leg.address)
        for target, hop in table.items():
            if hop != default:
                yield Route(target, hop.interface, hop.gateway, source=leg.address)
        if default is not None:
            everything = _everything(leg.network)
            yield Route(everything, default.interface, default.gateway, source=leg.address)

    def _default_hop(self, leg: Leg, table: dict[IpNetwork, _Hop]) -> _Hop | None:
        """The gateway that most of the table uses over this interface, else any router that is there."""
        used = Counter(
            hop for hop in table.values() if hop.interface == leg.interface and hop.gateway is not None
        )
        if used:
            return used.most_common(1)[0][0]
        routers = self._routers_of_network[leg.network]
        return _Hop(leg.interface, routers[0].address) if routers else None

    def _source_table(self, leg: Leg) -> Iterator[tuple[IpNetwork, _Hop]]:
        """Where packets from ``leg``'s address go, for every network but its own."""
        for target, members in self._legs_of_network.items():
            if target == leg.network:
                continue
            if self._distance(leg.network, target) is not None:
                yield target, self._hop(leg, target)
                continue
            hops = {
                member: hop
                for member in members
                if member.node != leg.node
                and member.node not in self._routers
                and (hop := self._hop_between_hosts(leg, member)) is not None
            }
            if len(set(hops.values())) == 1 and len(hops) == len([m for m in members if m.node != leg.node]):
                yield target, next(iter(hops.values()))
            else:
                yield from ((_host_network(member.address), hop) for member, hop in hops.items())

    def _hop_between_hosts(self, leg: Leg, target: Leg) -> _Hop | None:
        """The first step to an address that routers do not join with ``leg``'s: the rule in the module's
        docstring.
        """
        if self._rank[leg.node] < self._rank[target.node]:
            door = self._nearest_leg_seen_from(leg.network, self._legs_of_node[target.node])
            if door is not None:
                return self._hop(leg, door.network, door.address)
        own = self._nearest(self._legs_of_node[leg.node], target.network)
        return self._hop(own, target.network) if own else None


def _host_network(address: IpAddress) -> IpNetwork:
    return ip_network(address)


def _everything(network: IpNetwork) -> IpNetwork:
    return ip_network("0.0.0.0/0" if network.version == 4 else "::/0")
