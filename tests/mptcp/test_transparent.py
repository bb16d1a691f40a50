"""Transparent sockets: connections at addresses that no interface has, between two stacks of ours."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace
from errno import EADDRNOTAVAIL

import pytest

from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.sockets.common_options import IP_TRANSPARENT, IPV6_TRANSPARENT, get_common, set_common
from mptcp_stack.tcp.socket_options import DEFAULT_SOCKET_OPTIONS
from mptcp_stack.wire.addresses import parse_address
from tests.mptcp.network import PORT, Network, both_ways, close_both, join_all

FOREIGN = {4: "203.0.113.7", 6: "2001:db8::7"}
TRANSPARENT = replace(DEFAULT_SOCKET_OPTIONS, transparent=True)


def connect(network: Network, family: int = 4, protocol: str = "mptcp") -> Connection:
    """From an address that has a way there."""
    return network.connect(FOREIGN[family], protocol, local={4: "10.0.1.2", 6: "fd00:1::2"}[family])


@pytest.mark.parametrize("protocol", ["mptcp", "tcp"])
@pytest.mark.parametrize("family", [4, 6])
def test_a_connection_at_a_foreign_address(family: int, protocol: str) -> None:
    network = Network()
    listener = network.server.listen(None, PORT, protocol=protocol, options=TRANSPARENT)
    near = connect(network, family, protocol)
    far = network.accept(listener, near)
    assert near.remote == far.local == (parse_address(FOREIGN[family]), PORT)
    assert near.is_mptcp == far.is_mptcp == (protocol == "mptcp")
    both_ways(network, near, far, 300_000)


def test_joins_come_to_the_foreign_address() -> None:
    network = Network(2)
    network.client.path_manager.set_limits(1, 0)
    network.server.path_manager.set_limits(1, 0)
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=frozenset({"subflow"}))
    listener = network.server.listen(None, PORT, options=TRANSPARENT)
    near = connect(network)
    far = network.accept(listener, near)
    join_all(network, near, far)
    assert {subflow.local for subflow in far.subflows} == {parse_address(FOREIGN[4])}
    both_ways(network, near, far, 300_000)


def test_what_outlives_the_listener_is_answered() -> None:
    network = Network()
    listener = network.server.listen(None, PORT, options=TRANSPARENT)
    near = connect(network)
    far = network.accept(listener, near)
    listener.close()
    both_ways(network, near, far, 1000)


@pytest.mark.parametrize(("port", "is_transparent"), [(PORT, False), (PORT + 1, True)])
def test_others_are_not_taken(port: int, is_transparent: bool) -> None:
    """Without the option, and at other ports: no reset either, for the packet was not ours."""
    network = Network()
    options = TRANSPARENT if is_transparent else DEFAULT_SOCKET_OPTIONS
    listener = network.server.listen(None, port, options=options)
    near = connect(network)
    network.simulator.run_for(500_000)
    assert not near.is_established
    assert near.error is None
    assert listener.accept() is None
    assert (network.server.counters["StackDropNotForUs"], network.server.counters["TcpOutSegs"]) == (1, 0)


def test_a_client_borrows_an_address() -> None:
    """What a transparent proxy tells the real server: the client's address as its own."""
    network = Network()
    listener = network.client.listen(None, PORT)
    borrowed = parse_address("203.0.113.9")
    with pytest.raises(OSError, match="no interface") as refused:
        network.server.connect(parse_address("10.0.1.2"), PORT, local=borrowed)
    assert refused.value.errno == EADDRNOTAVAIL
    near = network.server.connect(parse_address("10.0.1.2"), PORT, local=borrowed, options=TRANSPARENT)
    far = network.accept(listener, near)
    assert far.remote[0] == borrowed
    both_ways(network, far, near, 1000)


def test_a_listener_at_one_foreign_address() -> None:
    network = Network()
    with pytest.raises(OSError, match="no interface"):
        network.server.listen(parse_address(FOREIGN[4]), PORT)
    listener = network.server.listen(parse_address(FOREIGN[4]), PORT, options=TRANSPARENT)
    near = connect(network)
    close_both(network, near, network.accept(listener, near))


@pytest.mark.parametrize(
    ("level", "option"), [(socket.IPPROTO_IP, IP_TRANSPARENT), (socket.IPPROTO_IPV6, IPV6_TRANSPARENT)]
)
def test_the_socket_option(level: int, option: int) -> None:
    settings = Network().server.settings
    options = set_common(DEFAULT_SOCKET_OPTIONS, settings, level, option, struct.pack("=i", 1))
    assert options.transparent
    assert get_common(options, settings, level, option, 4) == struct.pack("=i", 1)
