"""What goes wrong: no MPTCP at the other end, lost packets, dead paths, sudden ends."""

from __future__ import annotations

from errno import ECONNREFUSED, ECONNRESET, ETIMEDOUT

import pytest

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.settings import StackSettings
from mptcp_stack.wire.addresses import parse_address
from tests.mptcp.network import Network, Transfer, advance_all, both_ways, close_both, join_all, with_loss

SUBFLOW = frozenset({"subflow"})


@pytest.mark.parametrize("address", ["10.0.1.1", "fd00:1::1"])
@pytest.mark.parametrize(("client", "server"), [("mptcp", "tcp"), ("tcp", "mptcp"), ("tcp", "tcp")])
def test_falls_back_to_tcp(client: str, server: str, address: str) -> None:
    network = Network()
    near, far = network.establish(address, client, server)
    assert not near.is_mptcp
    assert not far.is_mptcp
    both_ways(network, near, far, 500_000)
    assert network.client.counters["MPTcpExtMPCapableFallbackSYNACK"] == (client == "mptcp")
    assert network.server.counters["MPTcpExtMPCapableFallbackACK"] == 0
    assert network.client.counters["TcpOutRsts"] == network.server.counters["TcpOutRsts"] == 0


def test_path_that_drops_mptcp_syns() -> None:
    network = Network()
    network.simulator.links()["1"].forward.drop_if = lambda frame, index: b"\x1e\x04\x01" in frame
    near, far = network.establish()
    assert not near.is_mptcp
    assert network.client.counters["MPTcpExtMPCapableSYNTXDrop"] == 1
    assert 3_000_000 < network.simulator.now_us < 3_200_000
    both_ways(network, near, far, 10_000)


@pytest.mark.parametrize("dropped", range(8))
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_each_early_packet_lost_in_turn(dropped: int, direction: str) -> None:
    network = Network()
    wire = network.simulator.links()["1"]
    chosen = wire.forward if direction == "forward" else wire.backward
    chosen.drop_if = lambda frame, index: index == dropped
    near, far = network.establish()
    both_ways(network, near, far, 5_000)


@pytest.mark.parametrize("dropped", range(6))
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_each_closing_packet_lost_in_turn(dropped: int, direction: str) -> None:
    network = Network()
    near, far = network.establish()
    transfer = Transfer(near, far, 1000).without_shutdown()
    network.simulator.run_until(transfer.advance)
    network.simulator.run_for(300_000)
    seen = 0

    def drop(frame: bytes, index: int) -> bool:
        nonlocal seen
        seen += 1
        return seen == dropped + 1

    link = network.simulator.links()["1"]
    (link.forward if direction == "forward" else link.backward).drop_if = drop
    close_both(network, near, far)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("loss", [0.01, 0.05])
def test_data_is_intact_with_loss_on_two_paths(seed: int, loss: float) -> None:
    network = Network(2, seed=seed, wire=with_loss(loss))
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=SUBFLOW)
    near, far = network.establish()
    both_ways(network, near, far, 400_000)
    assert near.is_mptcp


def test_without_sack_loss_is_repaired_too() -> None:
    network = Network(seed=3, wire=with_loss(0.02), settings=StackSettings(tcp_sack=False))
    near, far = network.establish()
    both_ways(network, near, far, 300_000)
    assert network.client.counters["TcpExtTCPSackRecovery"] == 0
    assert network.client.counters["TcpExtTCPRenoRecovery"] > 0


@pytest.mark.parametrize("cut", ["1", "2"])
def test_data_goes_on_when_a_path_dies(cut: str) -> None:
    network = Network(2)
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=SUBFLOW)
    near, far = network.establish()
    transfers = [Transfer(near, far, 4_000_000), Transfer(far, near, 4_000_000)]

    def all_done() -> bool:
        return advance_all(transfers)

    network.simulator.run_until(lambda: all_done() or len(transfers[0].received) > 1_000_000)
    started_us = network.simulator.now_us
    network.simulator.set_link(cut, up=False)
    network.simulator.run_until(all_done)
    for transfer in transfers:
        transfer.must_be_intact()
    assert network.simulator.now_us - started_us < 3_000_000
    assert network.client.counters["MPTcpExtMPTCPRetrans"] > 0


def test_paths_that_are_all_silent_keep_their_data() -> None:
    network = Network(2)
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=SUBFLOW)
    near, far = network.establish()
    join_all(network, near, far)
    transfer = Transfer(near, far, 1_000_000).without_shutdown()
    network.simulator.run_until(
        lambda: transfer.advance() or all(len(each.retransmission_queue) > 5 for each in near.subflows)
    )
    for link in ("1", "2"):
        network.simulator.set_link(link, up=False)
    network.simulator.run_until(lambda: all(each.consecutive_timeouts == 3 for each in near.subflows))
    assert network.client.counters["MPTcpExtMPTCPRetrans"] == 0
    assert near.send_buffer.next_reinjection() is None
    for link in ("1", "2"):
        network.simulator.set_link(link, up=True)
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()


def test_abort_is_a_fastclose() -> None:
    network = Network(2)
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=SUBFLOW)
    near, far = network.establish()
    join_all(network, near, far)
    near.abort()
    network.simulator.run_until(lambda: far.is_closed)
    assert far.error == ECONNRESET
    client, server = network.client.counters, network.server.counters
    assert client["MPTcpExtMPFastcloseTx"] == server["MPTcpExtMPFastcloseRx"] == 1
    assert client["MPTcpExtMPRstTx"] >= 1
    assert server["MPTcpExtMPRstRx"] >= 1
    network.simulator.run_for(1_000_000)
    assert not list(network.client.connections())
    assert not list(network.server.connections())
    assert not network.client.environment.subflows
    assert not network.server.environment.subflows


def test_close_with_unread_data_is_an_abort() -> None:
    network = Network()
    near, far = network.establish()
    Transfer(far, near, 1000).without_shutdown().sender.write(b"unread")
    network.simulator.run_until(lambda: near.readable_bytes == 6)
    near.close()
    network.simulator.run_until(lambda: far.is_closed)
    assert far.error == ECONNRESET


def test_connection_refused() -> None:
    network = Network()
    near = network.connect()
    network.simulator.run_until(lambda: near.is_closed)
    assert near.error == ECONNREFUSED


def test_connection_to_nowhere_times_out() -> None:
    network = Network(settings=StackSettings(tcp_syn_retries=2))
    network.simulator.set_link("1", up=False)
    near = network.connect()
    network.simulator.run_until(lambda: near.is_closed)
    assert near.error in (ETIMEDOUT, 113)


def test_half_close() -> None:
    network = Network()
    near, far = network.establish()
    request = Transfer(near, far, 50_000)
    network.simulator.run_until(request.advance)
    network.simulator.run_for(90_000_000)
    answer = Transfer(far, near, 50_000)
    network.simulator.run_until(answer.advance)
    close_both(network, near, far)


def test_reader_that_stops_and_goes_on() -> None:
    network = Network(settings=StackSettings(receive_buffer_bytes=100_000, send_buffer_bytes=500_000))
    near, far = network.establish()
    data = bytes(500_000)
    sent = near.write(data)
    assert sent == len(data)
    network.simulator.run_for(5_000_000)
    assert 90_000 < far.readable_bytes <= 100_000
    received = 0

    def read_all() -> bool:
        nonlocal received
        received += len(far.read(20_000))
        return received == len(data)

    network.simulator.run_until(read_all)


def test_same_seed_gives_the_same_packets() -> None:
    def run(seed: int) -> list[tuple[int, str, bytes]]:
        network = Network(2, seed=seed, wire=with_loss(0.02))
        packets: list[tuple[int, str, bytes]] = []
        network.simulator.add_tap(
            lambda now_us, wire, direction, frame: packets.append((now_us, wire, frame.to_bytes()))
        )
        network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=SUBFLOW)
        near, far = network.establish()
        both_ways(network, near, far, 100_000)
        return packets

    assert run(5) == run(5)
    assert run(5) != run(6)


@pytest.mark.parametrize(("client", "server"), [(True, True), (True, False), (False, True)])
def test_checksums_when_either_end_wants_them(client: bool, server: bool) -> None:
    network = Network(
        2,
        settings=StackSettings(checksum_enabled=client),
        server_settings=StackSettings(checksum_enabled=server),
    )
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=SUBFLOW)
    near, far = network.establish()
    both_ways(network, near, far, 300_000)
    assert (
        network.client.counters["MPTcpExtDataCsumErr"] == network.server.counters["MPTcpExtDataCsumErr"] == 0
    )
    assert near.checksum_enabled
    assert far.checksum_enabled


def test_hundred_connections_at_once() -> None:
    network = Network()
    listener = network.listen()
    near = [network.connect() for _ in range(100)]
    far = []

    def all_accepted() -> bool:
        while (connection := listener.accept()) is not None:
            far.append(connection)
        return len(far) == 100 and all(connection.is_established for connection in near)

    network.simulator.run_until(all_accepted)
    assert network.client.counters["MPTcpExtMPCurrEstab"] == 100
    transfers = [
        Transfer(one, other, 10_000, seed) for seed, (one, other) in enumerate(zip(near, far, strict=True))
    ]
    ports = {connection.remote[1]: connection for connection in far}
    transfers = [Transfer(one, ports[one.local[1]], 10_000, seed) for seed, one in enumerate(near)]
    network.simulator.run_until(lambda: advance_all(transfers))
    for transfer in transfers:
        transfer.must_be_intact()


def test_slow_peer_gets_everything_after_close() -> None:
    wire = WireSettings(delay_us=5_000, rate_bit_s=100_000, queue_limit_packets=20)
    network = Network(wire=wire, settings=StackSettings(send_buffer_bytes=2_000_000))
    near, far = network.establish()
    data = bytes(2_000_000)
    assert near.write(data) == len(data)
    near.close()
    received = 0

    def read_all() -> bool:
        nonlocal received
        received += len(far.read(1 << 17))
        return received == len(data)

    network.simulator.run_until(read_all, 400_000_000)
    assert network.simulator.now_us > 120_000_000
    network.simulator.run_until(lambda: far.end_of_stream)


def test_client_that_sends_nothing_closes_in_order() -> None:
    network = Network()
    near, far = network.establish()
    near.close()
    network.simulator.run_until(lambda: far.end_of_stream, 1_000_000)
    far.close()
    network.simulator.run_until(lambda: near.is_closed and far.is_closed, 1_000_000)
    assert near.error is None
    assert far.error is None


def test_close_after_a_long_silence_is_in_order() -> None:
    network = Network()
    near, far = network.establish()
    transfer = Transfer(near, far, 1000).without_shutdown()
    network.simulator.run_until(transfer.advance)
    network.simulator.run_for(600_000_000)
    near.write(b"the last words")
    near.close()
    network.simulator.run_until(lambda: far.readable_bytes == 14)
    far.read(14)
    close_both(network, near, far)
    assert network.client.counters["TcpOutRsts"] == 0


def test_connects_at_one_instant_have_ports_of_their_own() -> None:
    network = Network()
    network.listen()
    ports = [network.connect().local[1] for _ in range(3000)]
    assert len(set(ports)) == len(ports)


def test_aborted_connect_gives_its_port_back() -> None:
    network = Network()
    near = network.connect()
    near.abort()
    network.simulator.run_until(lambda: near.is_closed)
    assert not network.client.environment.subflows
    assert not list(network.client.connections())


def test_endpoint_added_after_a_silence_is_announced_once() -> None:
    network = Network(2)
    network.client.path_manager.set_limits(2, 2)
    near, far = network.establish()
    transfer = Transfer(near, far, 1000).without_shutdown()
    network.simulator.run_until(transfer.advance)
    network.simulator.run_for(600_000_000)
    network.server.path_manager.add_endpoint(parse_address("10.0.2.1"), flags=frozenset({"signal"}))
    join_all(network, near, far)
    assert network.server.counters["MPTcpExtAddAddrTx"] == 1
