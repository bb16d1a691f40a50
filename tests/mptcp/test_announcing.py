"""Addresses that are announced in vain, again, or in the other family's form (RFC 8684 §3.2, §3.4.1)."""

from __future__ import annotations

import pytest

from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.frame import Frame
from tests.mptcp.network import Network, join_all

SIGNAL = frozenset({"signal"})
MAPPED_SERVER, MAPPED_CLIENT = parse_address("::ffff:10.0.2.1"), parse_address("::ffff:10.0.2.2")


def test_what_finds_no_room_is_dropped_once_and_the_next_is_announced() -> None:
    """An IPv6 address with a port takes 32 bytes, which do not fit beside timestamps."""
    network = Network(3)
    network.server.path_manager.add_endpoint(parse_address("fd00:2::1"), flags=SIGNAL, port=10100)
    network.server.path_manager.add_endpoint(parse_address("fd00:3::1"), flags=SIGNAL)
    near, _ = network.establish("fd00:1::1")
    near.write(bytes(1000))
    network.simulator.run_for(5_000_000)
    counters = network.server.counters
    assert (counters["MPTcpExtAddAddrTxDrop"], counters["MPTcpExtAddAddrTx"]) == (1, 1)
    assert counters["MPTcpExtEchoAdd"] == 1


def test_the_first_address_has_the_id_0_when_it_is_announced_again() -> None:
    network = Network(2)
    network.client.path_manager.set_limits(2, 2)
    manager = network.server.path_manager
    manager.add_endpoint(parse_address("10.0.1.1"), flags=SIGNAL, identifier=42)
    manager.add_endpoint(parse_address("10.0.2.1"), flags=SIGNAL, identifier=1)
    near, far = network.establish()
    join_all(network, near, far)
    assert manager.counts(far).add_addr_signal == 1
    assert network.client.path_manager.counts(near).add_addr_accepted == 1
    for identifier, again in ((42, 42), (42, 88)):
        manager.delete_endpoint(identifier)
        network.simulator.run_until(lambda: len(near.subflows) == 1)
        manager.add_endpoint(parse_address("10.0.1.1"), flags=SIGNAL, identifier=again)
        join_all(network, near, far)
        assert near.subflows[-1].remote_id == 0
        assert manager.counts(far).add_addr_signal == 2
        assert network.client.path_manager.counts(near).add_addr_accepted == 1


def test_an_ipv4_address_may_be_written_as_ipv6() -> None:
    network = Network(2)
    network.client.path_manager.set_limits(2, 2)
    network.server.path_manager.add_endpoint(MAPPED_SERVER, flags=SIGNAL)
    identifier = network.client.path_manager.add_endpoint(MAPPED_CLIENT, flags=frozenset({"subflow"}))
    near, far = network.establish()
    join_all(network, near, far, 3)
    assert {subflow.local for subflow in near.subflows[1:]} == {parse_address("10.0.2.2")}
    network.client.path_manager.delete_endpoint(identifier, MAPPED_CLIENT)
    network.simulator.run_until(lambda: len(near.subflows) == 1)


def test_a_withdrawal_comes_before_the_end_of_its_subflows() -> None:
    """A Linux that sees the FIN first does not count the address as given back."""
    network = Network(2)
    identifier = network.client.path_manager.add_endpoint(
        parse_address("10.0.2.2"), flags=frozenset({"subflow"})
    )
    near, far = network.establish()
    join_all(network, near, far)
    sent: list[str] = []

    def note(_now_us: int, wire: str, direction: str, _frame: Frame) -> None:
        if direction == "sent" and wire.startswith("client"):
            sent.append(wire)

    network.simulator.add_tap(note)
    network.client.path_manager.delete_endpoint(identifier)
    network.simulator.run_until(lambda: len(far.subflows) == 1)
    assert sent[0].startswith("client:eth1"), sent
    assert network.server.counters["MPTcpExtRmAddr"] == 1


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ((None, None, 100, None, 254, None, None, None), (1, 2, 100, 101, 254, 255, 3, 4)),
        ((None, 254, None, None, 253, None, None, None), (1, 254, 255, 2, 253, 3, 4, 5)),
    ],
)
def test_ids_follow_the_highest_and_wrap_around(
    wanted: tuple[int | None, ...], given: tuple[int, ...]
) -> None:
    manager = Network().client.path_manager
    ids = [
        manager.add_endpoint(parse_address(f"10.0.1.{100 + number}"), identifier=identifier)
        for number, identifier in enumerate(wanted)
    ]
    assert tuple(ids) == given
