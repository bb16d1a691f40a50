"""Which way a packet takes."""

from __future__ import annotations

import pytest

from mptcp_stack.counters import Counters
from mptcp_stack.errors import ConfigurationError
from mptcp_stack.ip.interface import Interface, InterfaceAddress, LinkType
from mptcp_stack.ip.layer import IpLayer
from mptcp_stack.ip.routing import Route, RoutingTable
from mptcp_stack.wire.addresses import parse_address


def interface(index: int, *addresses: str) -> Interface:
    own = [InterfaceAddress(parse_address(each), 24 if "." in each else 64) for each in addresses]
    return Interface(index, f"tun{index}", LinkType.RAW_IP, b"", 1500, own)


def route(
    network: str,
    over: Interface,
    *,
    gateway: str | None = None,
    source: str | None = None,
    metric: int = 0,
) -> Route:
    address, length = network.split("/")
    return Route(
        parse_address(address),
        int(length),
        over,
        gateway=parse_address(gateway) if gateway else None,
        source=parse_address(source) if source else None,
        metric=metric,
    )


def table(*routes: Route) -> RoutingTable:
    result = RoutingTable()
    for each in routes:
        result.add(each)
    return result


FIRST, SECOND = interface(2, "10.0.1.1", "fe80::1"), interface(3, "10.0.2.1", "fe80::2")


def test_longest_prefix_wins_whatever_the_order_and_metric() -> None:
    wide, narrow = route("10.0.0.0/8", FIRST), route("10.7.0.0/16", SECOND, metric=100)
    for routes in ((wide, narrow), (narrow, wide)):
        assert table(*routes).lookup(parse_address("10.7.1.1")) is narrow
        assert table(*routes).lookup(parse_address("10.8.1.1")) is wide


def test_lower_metric_wins_among_equal_prefixes() -> None:
    dear, cheap = route("0.0.0.0/0", FIRST, metric=20), route("0.0.0.0/0", SECOND, metric=10)
    assert table(dear, cheap).lookup(parse_address("192.0.2.1")) is cheap


def test_first_added_wins_among_equals() -> None:
    first, second = route("0.0.0.0/0", FIRST), route("0.0.0.0/0", SECOND)
    assert table(first, second).lookup(parse_address("192.0.2.1")) is first


def test_interface_of_the_source_wins_among_equals() -> None:
    routes = table(route("fe80::/64", FIRST), route("fe80::/64", SECOND))
    found = routes.lookup(parse_address("fe80::9"), parse_address("fe80::2"))
    assert found is not None
    assert found.interface is SECOND


def test_source_route_comes_before_a_longer_prefix() -> None:
    policy = route("0.0.0.0/0", SECOND, source="10.0.2.1")
    main = route("192.0.2.0/24", FIRST)
    routes = table(main, policy)
    destination = parse_address("192.0.2.1")
    assert routes.lookup(destination, parse_address("10.0.2.1")) is policy
    assert routes.lookup(destination, parse_address("10.0.1.1")) is main
    assert routes.lookup(destination) is main


def test_source_table_without_a_match_falls_through_to_the_main_one() -> None:
    policy, main = route("198.51.100.0/24", SECOND, source="10.0.2.1"), route("0.0.0.0/0", FIRST)
    assert table(policy, main).lookup(parse_address("192.0.2.1"), parse_address("10.0.2.1")) is main


def test_dead_interface_is_skipped() -> None:
    dead = interface(4)
    dead.is_up = False
    backup = route("0.0.0.0/0", FIRST, metric=50)
    assert table(route("0.0.0.0/0", dead), backup).lookup(parse_address("192.0.2.1")) is backup


def test_families_do_not_mix() -> None:
    assert table(route("0.0.0.0/0", FIRST)).lookup(parse_address("2001:db8::1")) is None
    assert table(route("::/0", FIRST)).lookup(parse_address("192.0.2.1")) is None


def test_removed_route_is_gone_and_an_unknown_one_is_an_error() -> None:
    default = route("0.0.0.0/0", FIRST)
    routes = table(default)
    before = routes.generation
    routes.remove(default)
    assert routes.lookup(parse_address("192.0.2.1")) is None
    assert routes.generation > before
    assert list(routes) == []
    with pytest.raises(ConfigurationError):
        routes.remove(default)


@pytest.mark.parametrize(
    ("destination", "prefix_length", "gateway"),
    [(bytes(5), 8, None), (bytes(4), 33, None), (bytes(16), -1, None), (bytes(4), 8, bytes(16))],
)
def test_senseless_route_is_refused(destination: bytes, prefix_length: int, gateway: bytes | None) -> None:
    with pytest.raises(ConfigurationError):
        Route(destination, prefix_length, FIRST, gateway=gateway)


def two_links() -> tuple[IpLayer, Interface, Interface]:
    layer = IpLayer(Counters())
    added = [
        layer.add_interface(
            f"tun{number}",
            link_type=LinkType.RAW_IP,
            addresses=[
                InterfaceAddress(parse_address(f"10.0.{number}.1"), 24),
                InterfaceAddress(parse_address(f"fd00:{number}::1"), 64),
                InterfaceAddress(parse_address(f"fe80::{number}"), 64),
            ],
        )
        for number in (1, 2)
    ]
    return layer, added[0], added[1]


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        ("10.0.2.9", "10.0.2.1"),
        ("192.0.2.1", "10.0.1.1"),
        ("fd00:2::9", "fd00:2::1"),
        ("fe80::99", "fe80::1"),
        ("2001:db8::1", None),
        ("10.0.2.1", "10.0.2.1"),
        ("127.0.0.5", "127.0.0.5"),
        ("224.0.0.1", None),
        ("10.0.1.255", None),
    ],
)
def test_selected_source(destination: str, expected: str | None) -> None:
    layer, first, _ = two_links()
    layer.routes.add(route("0.0.0.0/0", first, gateway="10.0.1.254"))
    selected = layer.select_source(parse_address(destination))
    assert selected == (parse_address(expected) if expected else None)


def test_selected_source_is_borrowed_when_the_route_has_only_a_link_local_one() -> None:
    layer, first, second = two_links()
    layer.remove_address(first, parse_address("fd00:1::1"))
    layer.routes.add(route("::/0", first, gateway="fe80::77"))
    assert layer.select_source(parse_address("2001:db8::1")) == parse_address("fd00:2::1")
    layer.set_up(second, False)
    assert layer.select_source(parse_address("2001:db8::1")) == parse_address("fe80::1")


def test_addresses_bring_and_take_their_connected_routes() -> None:
    layer, first, _ = two_links()
    new = InterfaceAddress(parse_address("172.16.5.4"), 16)
    neighbour = parse_address("172.16.9.9")
    assert layer.route_for(neighbour, None) is None
    layer.add_address(first, new)
    found = layer.route_for(neighbour, None)
    assert found is not None
    assert (found.interface, found.gateway, found.destination) == (first, None, parse_address("172.16.0.0"))
    assert layer.is_local(new.address)
    layer.remove_address(first, new.address)
    assert layer.route_for(neighbour, None) is None
    assert not layer.is_local(new.address)


def test_interface_down_takes_its_addresses_and_routes_away_until_it_is_up() -> None:
    layer, first, _ = two_links()
    ours, peer = parse_address("10.0.1.1"), parse_address("10.0.1.9")
    layer.set_up(first, False)
    assert not layer.is_local(ours)
    assert layer.route_for(peer, ours) is None
    layer.set_up(first, True)
    assert layer.is_local(ours)
    assert layer.route_for(peer, ours) is not None


def test_route_to_ourselves_is_the_loopback() -> None:
    layer, _, _ = two_links()
    for text in ("10.0.2.1", "127.0.0.1", "127.8.8.8", "::1", "fd00:1::1"):
        found = layer.route_for(parse_address(text), None)
        assert found is not None
        assert found.interface is layer.loopback


def test_cached_answer_follows_a_new_route() -> None:
    layer, first, second = two_links()
    far = parse_address("192.0.2.1")
    layer.routes.add(route("0.0.0.0/0", first))
    found = layer.route_for(far, None)
    assert found is not None
    assert found.interface is first
    layer.routes.add(route("192.0.2.0/24", second))
    found = layer.route_for(far, None)
    assert found is not None
    assert found.interface is second
