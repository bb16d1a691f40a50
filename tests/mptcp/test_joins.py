"""Further subflows: from endpoints, from announced addresses, within the limits (RFC 8684 §3.2, §3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from errno import ENOTCONN

import pytest

from mptcp_stack.counters import Counters
from mptcp_stack.errors import ConfigurationError
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.settings import StackSettings
from mptcp_stack.wire.addresses import parse_address
from tests.mptcp.network import Network, Transfer, advance_all, both_ways, join_all

SUBFLOW = frozenset({"subflow"})
SIGNAL = frozenset({"signal"})
PLACES = {4: ("10.0.{}.2", "10.0.{}.1"), 6: ("fd00:{}::2", "fd00:{}::1")}


def client_address(family: int, link: int) -> bytes:
    return parse_address(PLACES[family][0].format(link))


def server_address(family: int, link: int) -> bytes:
    return parse_address(PLACES[family][1].format(link))


def counted(counters: Counters, prefix: str) -> dict[str, int]:
    """The counters with the prefix that are not zero, without it."""
    values: Mapping[str, int] = counters.snapshot()
    return {
        name.removeprefix("MPTcpExt"): value for name, value in values.items() if value and prefix in name
    }


def establish(network: Network, family: int) -> tuple[Connection, Connection]:
    return network.establish(PLACES[family][1].format(1))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("endpoints", "client_limit", "server_limit", "synacks", "accepted", "rejected"),
    [
        (0, 2, 2, 0, 0, 0),
        (1, 0, 2, 0, 0, 0),
        (1, 1, 0, 1, 0, 1),
        (1, 1, 1, 1, 1, 0),
        (2, 2, 2, 2, 2, 0),
        (2, 2, 1, 2, 1, 1),
    ],
    ids=[
        "none",
        "limited by client",
        "limited by server",
        "single",
        "multiple",
        "multiple, limited by server",
    ],
)
def test_joins_from_the_clients_endpoints(
    family: int,
    endpoints: int,
    client_limit: int,
    server_limit: int,
    synacks: int,
    accepted: int,
    rejected: int,
) -> None:
    network = Network(3)
    network.client.path_manager.set_limits(client_limit, 0)
    network.server.path_manager.set_limits(server_limit, 0)
    for link in range(2, 2 + endpoints):
        network.client.path_manager.add_endpoint(client_address(family, link), flags=SUBFLOW)
    near, far = establish(network, family)
    both_ways(network, near, far, 300_000)
    client = counted(network.client.counters, "MPJoin")
    server = counted(network.server.counters, "MPJoin")
    expected_client = {"MPJoinSynTx": synacks, "MPJoinSynAckRx": synacks}
    expected_server = {"MPJoinSynRx": synacks, "MPJoinAckRx": accepted, "MPJoinRejected": rejected}
    assert client == {name: value for name, value in expected_client.items() if value}
    assert server == {name: value for name, value in expected_server.items() if value}
    assert network.client.counters["MPTcpExtMPRstRx"] == rejected


@pytest.mark.parametrize("family", [4, 6])
def test_join_to_an_announced_address(family: int) -> None:
    network = Network(2)
    network.client.path_manager.set_limits(1, 1)
    network.server.path_manager.set_limits(1, 0)
    network.server.path_manager.add_endpoint(server_address(family, 2), flags=SIGNAL)
    near, far = establish(network, family)
    both_ways(network, near, far, 300_000)
    client, server = network.client.counters, network.server.counters
    assert client["MPTcpExtAddAddr"] == client["MPTcpExtEchoAddTx"] == 1
    assert server["MPTcpExtAddAddrTx"] == server["MPTcpExtEchoAdd"] == 1
    assert client["MPTcpExtMPJoinSynTx"] == client["MPTcpExtMPJoinSynAckRx"] == 1
    assert server["MPTcpExtMPJoinAckRx"] == 1


def test_an_announcement_beyond_the_limit_is_echoed_only() -> None:
    network = Network(2)
    network.server.path_manager.add_endpoint(server_address(4, 2), flags=SIGNAL)
    near, far = establish(network, 4)
    both_ways(network, near, far, 100_000)
    assert network.server.counters["MPTcpExtEchoAdd"] == 1
    assert network.client.counters["MPTcpExtMPJoinSynTx"] == 0


def test_three_announced_addresses_one_after_the_other() -> None:
    network = Network(4)
    network.client.path_manager.set_limits(3, 3)
    network.server.path_manager.set_limits(3, 3)
    for link in (2, 3, 4):
        network.server.path_manager.add_endpoint(server_address(4, link), flags=SIGNAL)
    near, far = establish(network, 4)
    join_all(network, near, far, 4)
    both_ways(network, near, far, 500_000)
    assert network.client.counters["MPTcpExtAddAddr"] == 3
    assert network.server.counters["MPTcpExtMPJoinAckRx"] == 3


def test_ipv4_subflow_joins_an_ipv6_connection() -> None:
    network = Network(2)
    network.client.path_manager.set_limits(1, 1)
    network.server.path_manager.set_limits(1, 1)
    network.server.path_manager.add_endpoint(server_address(4, 2), flags=SIGNAL)
    near, far = establish(network, 6)
    join_all(network, near, far)
    assert len(near.subflows[1].remote) == 4
    both_ways(network, near, far, 200_000)
    assert network.server.counters["MPTcpExtMPJoinAckRx"] == 1


def test_ipv4_socket_takes_no_ipv6_subflow() -> None:
    network = Network(2)
    network.client.path_manager.set_limits(2, 2)
    network.client.path_manager.add_endpoint(client_address(6, 2), flags=SUBFLOW)
    near, far = establish(network, 4)
    both_ways(network, near, far, 100_000)
    assert network.client.counters["MPTcpExtMPJoinSynTx"] == 0


def test_two_paths_carry_more_than_one() -> None:
    network = Network(2)
    network.client.path_manager.add_endpoint(client_address(4, 2), flags=SUBFLOW)
    near, far = establish(network, 4)
    transfer = Transfer(near, far, 8_000_000)
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()
    seconds = network.simulator.now_us / 1e6
    assert 8_000_000 * 8 / seconds > 1.5 * 50_000_000


def test_backup_carries_nothing_while_the_other_lives() -> None:
    network = Network(2)
    network.client.path_manager.add_endpoint(client_address(4, 2), flags=SUBFLOW | {"backup"})
    near, far = establish(network, 4)
    join_all(network, near, far)
    assert network.server.counters["MPTcpExtMPJoinSynBackupRx"] == 1
    transfer = Transfer(near, far, 1_000_000)
    network.simulator.run_until(transfer.advance)
    assert near.subflows[1].snd_nxt == near.subflows[1].snd_iss + 1


def test_priority_change_is_signalled() -> None:
    network = Network(2)
    identifier = network.client.path_manager.add_endpoint(client_address(4, 2), flags=SUBFLOW)
    near, far = establish(network, 4)
    join_all(network, near, far)
    network.client.path_manager.set_flags(identifier, frozenset({"backup"}))
    network.simulator.run_until(lambda: far.subflows[1].peer_backup)
    assert network.client.counters["MPTcpExtMPPrioTx"] == network.server.counters["MPTcpExtMPPrioRx"] == 1


def test_removed_endpoint_ends_its_subflow_and_the_data_goes_on() -> None:
    network = Network(2)
    identifier = network.client.path_manager.add_endpoint(client_address(4, 2), flags=SUBFLOW)
    near, far = establish(network, 4)
    transfers = [Transfer(near, far, 4_000_000), Transfer(far, near, 4_000_000)]

    def all_done() -> bool:
        return advance_all(transfers)

    network.simulator.run_until(lambda: all_done() or len(transfers[0].received) > 1_000_000)
    assert len(near.subflows) == 2
    network.client.path_manager.delete_endpoint(identifier)
    network.simulator.run_until(all_done)
    for transfer in transfers:
        transfer.must_be_intact()
    client, server = network.client.counters, network.server.counters
    assert client["MPTcpExtRmAddrTx"] == client["MPTcpExtRmSubflow"] == server["MPTcpExtRmAddr"] == 1
    assert client["TcpOutRsts"] == server["TcpOutRsts"] == 0


def test_withdrawn_announcement_ends_the_subflow_at_the_peer() -> None:
    network = Network(2)
    network.client.path_manager.set_limits(1, 1)
    identifier = network.server.path_manager.add_endpoint(server_address(4, 2), flags=SIGNAL)
    near, far = establish(network, 4)
    join_all(network, near, far)
    network.server.path_manager.delete_endpoint(identifier)
    network.simulator.run_until(lambda: len(near.subflows) == len(far.subflows) == 1)
    assert network.client.counters["MPTcpExtRmAddr"] == network.server.counters["MPTcpExtRmSubflow"] == 1
    both_ways(network, near, far, 100_000)


def test_add_addr_is_repeated_without_an_echo() -> None:
    network = Network(2)
    network.client.path_manager.set_limits(1, 1)
    network.server.path_manager.add_endpoint(server_address(4, 2), flags=SIGNAL)
    wire = network.simulator.links()["1"].forward
    wire.drop_if = lambda frame, index: b"\x1e\x08\x31" in frame
    near, far = establish(network, 4)
    network.simulator.run_until(lambda: network.server.counters["MPTcpExtAddAddrTx"] == 4)
    network.simulator.run_for(10_000_000)
    assert network.server.counters["MPTcpExtAddAddrTx"] == 4
    assert network.server.counters["MPTcpExtEchoAdd"] == 0
    assert network.client.counters["MPTcpExtMPJoinSynTx"] == 1
    wire.drop_if = None
    both_ways(network, near, far, 1000)


@pytest.mark.parametrize(
    ("flags", "identifier", "problem"),
    [
        ({"fullmesh", "signal"}, None, "fullmesh exclude each other"),
        ({"circular"}, None, "circular"),
        ({"subflow"}, 256, "1 to 255"),
        ({"subflow"}, 7, "id 7 is taken"),
    ],
)
def test_bad_endpoints_are_refused(flags: set[str], identifier: int | None, problem: str) -> None:
    manager = Network(2).client.path_manager
    manager.add_endpoint(client_address(4, 1), flags=SUBFLOW, identifier=7)
    with pytest.raises(ConfigurationError, match=problem):
        manager.add_endpoint(client_address(4, 2), flags=frozenset(flags), identifier=identifier)


def test_bad_limits_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="0 to 8"):
        Network().client.path_manager.set_limits(9, 0)


def test_connection_without_subflows_goes_on_from_another_address() -> None:
    network = Network(2)
    near, far = establish(network, 4)
    first = Transfer(near, far, 10_000).without_shutdown()
    network.simulator.run_until(first.advance)
    network.client.path_manager.delete_endpoint(0)
    network.simulator.run_until(lambda: not near.subflows and not far.subflows)
    network.simulator.run_for(5_000_000)
    assert near.is_established
    assert far.is_established
    network.client.path_manager.add_endpoint(client_address(4, 2), flags=SUBFLOW)
    both_ways(network, near, far, 300_000)
    assert network.server.counters["MPTcpExtMPJoinAckRx"] == 1


def test_connection_whose_subflows_stay_away_ends() -> None:
    network = Network(2)
    near, far = establish(network, 4)
    transfer = Transfer(near, far, 10_000).without_shutdown()
    network.simulator.run_until(transfer.advance)
    network.client.path_manager.delete_endpoint(0)
    network.simulator.run_until(lambda: near.is_closed and far.is_closed, 70_000_000)
    assert near.error == far.error == ENOTCONN
    assert network.client.counters["MPTcpExtMPCurrEstab"] == 0


def test_peer_may_deny_joins_to_its_initial_address() -> None:
    network = Network(3, server_settings=StackSettings(allow_join_initial_addr_port=False))
    network.client.path_manager.set_limits(2, 1)
    network.server.path_manager.add_endpoint(server_address(4, 3), flags=SIGNAL)
    network.client.path_manager.add_endpoint(client_address(4, 2), flags=SUBFLOW)
    near, far = establish(network, 4)
    join_all(network, near, far)
    assert near.subflows[1].remote == server_address(4, 3)
    both_ways(network, near, far, 100_000)
    assert network.client.counters["MPTcpExtMPJoinSynTx"] == 1


def test_key_whose_token_is_taken_is_not_used() -> None:
    network = Network()
    network.establish()
    taken = next(iter(network.server.connections())).local_key.value
    fresh = bytes(range(8))
    answers = [taken, taken, fresh]
    genuine = network.server.environment.random_bytes
    network.server.environment.random_bytes = lambda count: (
        answers.pop(0) if count == 8 and answers else genuine(count)
    )
    network.connect()
    network.simulator.run_until(lambda: len(list(network.server.connections())) == 2)
    keys = {connection.local_key.value for connection in network.server.connections()}
    assert keys == {taken, fresh}


def test_after_four_taken_tokens_the_connection_is_plain_tcp() -> None:
    network = Network()
    near, _ = network.establish()
    genuine = network.client.environment.random_bytes
    network.client.environment.random_bytes = lambda count: (
        near.local_key.value if count == 8 else genuine(count)
    )
    second = network.connect()
    network.simulator.run_until(lambda: second.is_established)
    assert not second.is_mptcp
    assert network.client.counters["MPTcpExtMPFallbackTokenInit"] == 1


def test_lost_fourth_packet_is_sent_again() -> None:
    network = Network(2)
    network.client.path_manager.add_endpoint(client_address(4, 2), flags=SUBFLOW)
    near, far = establish(network, 4)
    is_first = True

    def drop_fourth(frame: bytes, index: int) -> bool:
        nonlocal is_first
        joined = len(far.subflows) == 2 and far.subflows[1].was_established
        dropped, is_first = joined and is_first, is_first and not joined
        return dropped

    network.simulator.links()["2"].backward.drop_if = drop_fourth
    join_all(network, near, far)
    assert not is_first
    assert near.subflows[1].is_confirmed
    # That it took two tries says nothing against the path from now on.
    before = near.subflows[1].snd_nxt
    transfer = Transfer(near, far, 1_000_000)
    network.simulator.run_until(transfer.advance)
    assert near.subflows[1].snd_nxt - before > 100_000


def test_reason_of_a_received_reset_is_told() -> None:
    network = Network(2)
    network.client.path_manager.add_endpoint(client_address(4, 2), flags=SUBFLOW)
    network.server.path_manager.set_limits(0, 0)
    near, far = establish(network, 4)
    assert near.describe()["last_reset"] is None
    transfer = Transfer(near, far, 1).without_shutdown()
    network.simulator.run_until(transfer.advance)
    network.simulator.run_until(lambda: network.client.counters["MPTcpExtMPRstRx"] == 1)
    assert near.describe()["last_reset"] == {"reason": 3, "transient": False}
    assert far.describe()["last_reset"] is None


def test_reading_sends_nothing_amid_the_handshake_of_a_join() -> None:
    """Reading makes room, which may be told; from there it would pass for the fourth packet."""
    network = Network(2)
    network.client.path_manager.add_endpoint(client_address(4, 2), flags=SUBFLOW)
    near, far = establish(network, 4)
    near.write(bytes(1000))
    requests = network.server.environment.requests
    network.simulator.run_until(lambda: far.readable_bytes == 1000 and len(requests) == 1)
    wire = network.simulator.links()["2"].backward
    network.simulator.run_for(1)
    answers = wire.counters.offered
    assert len(requests) == 1
    assert len(far.read(1000)) == 1000
    network.simulator.run_for(1)
    assert len(requests) == 1
    assert wire.counters.offered == answers
    join_all(network, near, far)
