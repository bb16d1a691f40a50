"""A path manager that is told what to do (``net.mptcp.path_manager=userspace``), and its events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from errno import EINVAL, ENOBUFS, ESRCH

import pytest

from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.mptcp.path_events import MAXIMUM_WAITING_EVENTS, PathEvent, Subscription
from mptcp_stack.settings import StackSettings, apply_sysctl
from mptcp_stack.wire.mptcp_options import MpTcpRst
from tests.mptcp.network import PORT, Network, Transfer, join_all
from tests.mptcp.test_joins import SUBFLOW, client_address, server_address

USERSPACE = apply_sysctl(StackSettings(), "net.mptcp.pm_type", "1")
JOIN_PORT = 10100


def managed(*, client: StackSettings = USERSPACE) -> tuple[Network, Subscription, Subscription]:
    network = Network(2, settings=client, server_settings=USERSPACE)
    return network, network.client.path_events.subscribe(), network.server.path_events.subscribe()


def establish(network: Network) -> tuple[Connection, Connection]:
    near, far = network.establish()
    exchange(network, near, far)
    return near, far


def exchange(network: Network, near: Connection, far: Connection) -> None:
    transfer = Transfer(near, far, 100).without_shutdown()
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()


def names(events: list[PathEvent]) -> list[str]:
    return [event.name for event in events]


def join(network: Network, near: Connection, far: Connection, *, backup: bool = False) -> None:
    network.client.userspace_path_manager.create_subflow(
        near.local_key.token, 5, client_address(4, 2), near.remote, backup=backup
    )
    join_all(network, near, far)


def test_events_of_a_connection_s_life() -> None:
    network, at_client, at_server = managed()
    near, far = establish(network)
    join(network, near, far, backup=True)
    ends = (client_address(4, 2), near.subflows[1].local_port), near.remote
    network.client.userspace_path_manager.set_backup(near.local_key.token, *ends, backup=False)
    network.simulator.run_until(lambda: network.server.counters["MPTcpExtMPPrioRx"] == 1)
    network.client.userspace_path_manager.destroy_subflow(near.local_key.token, *ends)
    network.simulator.run_until(lambda: len(far.subflows) == 1)
    network.simulator.run_for(1_000_000)
    near.close()
    far.close()
    first, second, third, *rest = at_client.take()
    assert names([first, second, third, *rest]) == [
        "created",
        "established",
        "sub_established",
        "sub_closed",
        "closed",
    ]
    assert (first.token, first.local, first.remote) == (near.local_key.token, near.local, near.remote)
    assert (first.server_side, first.local_id, first.remote_id, first.deny_join_id0) == (False, 0, 0, False)
    assert (third.local, third.remote) == ends
    assert (third.local_id, third.remote_id, third.backup) == (5, 0, True)
    seen = at_server.take()
    assert names(seen) == [
        "listener_created",
        "created",
        "established",
        "sub_established",
        "sub_priority",
        "sub_closed",
        "closed",
    ]
    assert seen[0].local == (bytes(16), PORT)
    assert seen[1].server_side
    assert (seen[4].remote_id, seen[4].backup) == (5, False)
    assert seen[6].token == far.local_key.token


def test_the_reason_of_a_reset_is_told_where_it_arrives() -> None:
    """RFC 8684 §3.6: whether to try again is the controller's decision."""
    network, at_client, at_server = managed()
    near, far = establish(network)
    join(network, near, far)
    far.subflows[1].reset(network.simulator.now_us, None, (MpTcpRst(reason=2, transient=True),))
    network.simulator.run_until(lambda: len(near.subflows) == 1)
    told, own = (events.take()[-1] for events in (at_client, at_server))
    assert (told.name, told.reset_reason, told.reset_flags) == ("sub_closed", 2, 1)
    assert (own.name, own.reset_reason, own.reset_flags) == ("sub_closed", None, None)


def test_announced_address_is_echoed_and_joined_on_command() -> None:
    network, at_client, _ = managed()
    near, far = establish(network)
    server = network.server.userspace_path_manager
    server.announce(far.local_key.token, 7, server_address(4, 2), JOIN_PORT)
    network.server.listen(server_address(4, 2), JOIN_PORT)
    network.simulator.run_until(lambda: network.server.counters["MPTcpExtEchoAdd"] == 1)
    network.simulator.run_for(5_000_000)
    assert network.server.counters["MPTcpExtAddAddrTx"] == 1
    assert len(near.subflows) == 1, "nothing happens by itself"
    announced = at_client.take()[-1]
    assert (announced.name, announced.remote, announced.remote_id) == (
        "announced",
        (server_address(4, 2), JOIN_PORT),
        7,
    )
    network.client.userspace_path_manager.create_subflow(
        near.local_key.token, 3, client_address(4, 2), (server_address(4, 2), JOIN_PORT), remote_id=7
    )
    join_all(network, near, far)
    assert far.subflows[1].local_id == 7
    assert network.server.counters["MPTcpExtMPJoinPortAckRx"] == 1
    server.remove(far.local_key.token, 7)
    network.simulator.run_until(lambda: len(near.subflows) == len(far.subflows) == 1)
    assert "removed" in names(at_client.take())
    assert server.addresses(far.local_key.token) == {}
    assert network.server.counters["MPTcpExtRmSubflow"] == 0, "it is the peer that closes them"


def test_announcement_without_echo_is_repeated_and_ends_with_its_removal() -> None:
    network, _, _ = managed()
    near, far = establish(network)
    for link in network.simulator.links().values():
        link.backward.settings = replace(link.backward.settings, loss=1.0)
    manager, counters = network.server.userspace_path_manager, network.server.counters
    manager.announce(far.local_key.token, 7, server_address(4, 2))
    network.simulator.run_until(lambda: counters["MPTcpExtAddAddrTx"] == 2)
    manager.remove(far.local_key.token, 7)
    network.simulator.run_for(10_000_000)
    assert counters["MPTcpExtAddAddrTx"] == 2
    manager.announce(far.local_key.token, 8, server_address(4, 1))
    network.simulator.run_for(10_000_000)
    assert counters["MPTcpExtAddAddrTx"] == 6
    assert near.is_established


def test_port_withdrawn_amid_the_handshake() -> None:
    network, _, _ = managed()
    near, far = establish(network)
    server = network.server.userspace_path_manager
    server.announce(far.local_key.token, 7, server_address(4, 2), JOIN_PORT)
    network.server.listen(server_address(4, 2), JOIN_PORT)
    network.client.userspace_path_manager.create_subflow(
        near.local_key.token, 3, client_address(4, 2), (server_address(4, 2), JOIN_PORT)
    )
    network.simulator.run_until(lambda: network.server.counters["MPTcpExtMPJoinPortSynRx"] == 1)
    server.remove(far.local_key.token, 7)
    network.simulator.run_until(lambda: len(near.subflows) == len(far.subflows) == 1)
    assert network.server.counters["MPTcpExtMismatchPortAckRx"] == 1
    assert network.server.counters["MPTcpExtMPJoinAckRx"] == 0


def test_without_a_listener_joins_and_addresses_are_refused() -> None:
    network, at_client, at_server = managed(client=StackSettings())
    at_client.close()
    at_server.close()
    network.client.path_manager.add_endpoint(client_address(4, 2), flags=SUBFLOW | {"signal"})
    near, far = establish(network)
    network.simulator.run_until(lambda: network.client.counters["MPTcpExtMPRstRx"] == 1)
    network.simulator.run_for(3_000_000)
    assert network.server.counters["MPTcpExtMPJoinRejected"] == 1
    assert network.server.counters["MPTcpExtAddAddrDrop"] == network.client.counters["MPTcpExtAddAddrTx"]
    assert network.client.counters["MPTcpExtEchoAdd"] == 0
    exchange(network, near, far)


def test_endpoints_leave_such_connections_alone() -> None:
    network, _, _ = managed()
    near, far = establish(network)
    network.client.path_manager.add_endpoint(client_address(4, 2), flags=SUBFLOW)
    network.client.path_manager.delete_endpoint(0)
    network.simulator.run_for(1_000_000)
    assert len(near.subflows) == len(far.subflows) == 1


def test_bad_commands() -> None:
    network, _, _ = managed()
    near, far = establish(network)
    manager, token = network.client.userspace_path_manager, near.local_key.token
    here, there = client_address(4, 2), server_address(4, 2)
    manager.announce(token, 9, here)
    commands: list[tuple[int, Callable[[], None]]] = [
        (ESRCH, lambda: manager.announce(token ^ 1, 1, here)),
        (EINVAL, lambda: manager.announce(token, 0, here)),
        (EINVAL, lambda: manager.announce(token, 256, here)),
        (EINVAL, lambda: manager.announce(token, 9, client_address(4, 1))),
        (EINVAL, lambda: manager.announce(token, 8, here)),
        (EINVAL, lambda: manager.announce(token, 1, there, 65536)),
        (EINVAL, lambda: manager.remove(token, 3)),
        (EINVAL, lambda: manager.create_subflow(token, 1, there, (there, PORT))),
        (EINVAL, lambda: manager.create_subflow(token, 1, here, (there, 0))),
        (EINVAL, lambda: manager.create_subflow(token, 1, here, (server_address(6, 2), PORT))),
        (ESRCH, lambda: manager.destroy_subflow(token, (here, 1), (there, PORT))),
        (ESRCH, lambda: manager.set_backup(token, (here, 0), (there, 0), backup=True)),
    ]
    for number, command in commands:
        with pytest.raises(OSError, match=r"\[Errno") as caught:
            command()
        assert caught.value.errno == number
    near.close()
    far.close()
    network.simulator.run_for(5_000_000)
    with pytest.raises(OSError, match="no connection"):
        manager.announce(token, 9, here)


def test_connection_of_the_other_path_manager_takes_no_commands() -> None:
    network, _, _ = managed(client=StackSettings())
    near, _ = establish(network)
    with pytest.raises(OSError, match="another path manager"):
        network.client.userspace_path_manager.announce(near.local_key.token, 1, client_address(4, 2))


def test_events_that_nobody_takes_are_bounded() -> None:
    network, at_client, _ = managed()
    for _ in range(MAXIMUM_WAITING_EVENTS + 1):
        network.client.path_events.tell(PathEvent("removed"))
    with pytest.raises(OSError, match="lost") as caught:
        at_client.take()
    assert caught.value.errno == ENOBUFS
    assert len(at_client.take()) == MAXIMUM_WAITING_EVENTS
