"""Whatever a peer or an attacker sends: no exception, no storm, nothing that grows without bound, no leak."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.mptcp.subflow import MptcpSubflow
from mptcp_stack.settings import StackSettings
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.tcp_segment import ACK, RST, SYN, TcpSegment
from tests.mptcp.attacker import SECOND_US, Attacker, must_be_bounded, must_come_to_rest, trim
from tests.mptcp.middlebox import Tamperer
from tests.mptcp.network import Network, Transfer, advance_all, join_all

SUBFLOW = frozenset({"subflow"})

IMPATIENT = StackSettings(
    tcp_syn_retries=2,
    tcp_synack_retries=2,
    tcp_retries2=4,
    close_timeout_us=5 * SECOND_US,
    time_wait_us=2 * SECOND_US,
    tcp_fin_timeout_us=2 * SECOND_US,
    maximum_rto_us=4 * SECOND_US,
    add_addr_timeout_us=2 * SECOND_US,
    receive_buffer_bytes=200_000,
    send_buffer_bytes=200_000,
)
"""Everything ends soon, so that virtual hours are not needed to see that it ends."""


@dataclass(slots=True)
class Party:
    """An application that does whatever it likes with its connection, and now and then with the paths."""

    rng: random.Random
    network: Network
    connection: Connection

    def act(self) -> None:
        connection, rng = self.connection, self.rng
        match rng.randrange(40):
            case 0 | 1 | 2 | 3:
                if connection.writable_bytes:
                    connection.write(rng.randbytes(rng.choice([1, 100, 5000, 40_000])))
            case 4 | 5 | 6 | 7:
                connection.read(rng.choice([1, 1000, 100_000]))
            case 8:
                connection.shutdown_write()
            case 9 if rng.random() < 0.3:
                connection.close()
            case 10 if rng.random() < 0.1:
                connection.abort()
            case 11:
                self._manage_paths()
            case _:
                pass

    def _manage_paths(self) -> None:
        rng = self.rng
        stack = rng.choice([self.network.client, self.network.server])
        manager = stack.path_manager
        try:
            match rng.randrange(4):
                case 0:
                    manager.set_flags(rng.randrange(4), frozenset(rng.choice([(), ("backup",)])))
                case 1:
                    manager.delete_endpoint(rng.randrange(4))
                case 2:
                    manager.set_limits(rng.randrange(4), rng.randrange(4))
                case _:
                    address = stack.ip.interfaces[1].addresses[rng.randrange(2)].address
                    manager.add_endpoint(address, flags=frozenset({rng.choice(["subflow", "signal"])}))
        except ConfigurationError:
            # Of an id that does not exist, or an address that has one already: the user is told.
            return


class Chaos:
    """Two hosts with a few connections at any time, whose applications act at random."""

    def __init__(self, seed: int, settings: StackSettings = IMPATIENT) -> None:
        self.rng = random.Random(seed)
        self.network = Network(2, seed=seed, settings=settings)
        self.network.client.path_manager.set_limits(2, 2)
        self.network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=SUBFLOW)
        self.network.listen()
        self.attacker = Attacker(self.network, f"attacker {seed}")
        self._parties: dict[Connection, Party] = {}

    def step(self) -> None:
        network, rng = self.network, self.rng
        if len(list(network.client.connections())) < 2:
            network.connect(rng.choice(["10.0.1.1", "fd00:1::1"]), rng.choice(["mptcp", "mptcp", "tcp"]))
        is_long = rng.random() < 0.1
        network.simulator.run_for(3 * SECOND_US if is_long else rng.choice([0, 100, 1000, 5000, 100_000]))
        for stack in (network.client, network.server):
            for connection in stack.connections():
                self._parties.setdefault(connection, Party(rng, network, connection))
        for listener in network.server.listeners():
            listener.accept()
        for party in self._parties.values():
            party.act()

    def subflows(self) -> list[MptcpSubflow]:
        """Also those whose connection is gone: in TIME_WAIT, say."""
        return [
            subflow
            for stack in (self.network.client, self.network.server)
            for subflow in stack.environment.subflows.values()
            if isinstance(subflow, MptcpSubflow)
        ]

    def must_be_sane(self) -> None:
        must_be_bounded(self.network.client)
        must_be_bounded(self.network.server)


@pytest.mark.parametrize("seed", range(40))
def test_segments_made_up_for_live_connections(seed: int) -> None:
    """Any segment with the right four-tuple, in every state, while both applications do as they like."""
    settings = replace(
        IMPATIENT, checksum_enabled=seed % 3 == 0, tcp_sack=seed % 4 != 0, tcp_timestamps=seed % 5 != 0
    )
    chaos = Chaos(seed, settings)
    for _ in range(250):
        chaos.step()
        subflows = chaos.subflows()
        if subflows and chaos.rng.random() < 0.7:
            chaos.attacker.inject_random(chaos.rng.choice(subflows))
        chaos.must_be_sane()
    must_come_to_rest(chaos.network, chaos.attacker)


@pytest.mark.parametrize("seed", range(25))
def test_genuine_packets_changed_on_their_way(seed: int) -> None:
    """Fields and options changed, cut short, repeated, kept back: between two hosts that mean well."""
    chaos = Chaos(seed, replace(IMPATIENT, checksum_enabled=seed % 2 == 0))
    for link in chaos.network.simulator.links().values():
        for wire in (link.forward, link.backward):
            wire.rewrite = Tamperer(random.Random(f"{seed} {wire.name}"), mutates=True).rewrite
    for _ in range(200):
        chaos.step()
        chaos.must_be_sane()
    for link in chaos.network.simulator.links().values():
        link.forward.rewrite = link.backward.rewrite = None
    must_come_to_rest(chaos.network, chaos.attacker)


@pytest.mark.parametrize("seed", range(6))
def test_random_and_mutated_frames(seed: int) -> None:
    """Noise, and genuine frames with bytes changed anywhere, their checksums left as they are."""
    rng = random.Random(seed)
    network = Network(2, seed=seed)
    frames: list[bytes] = []
    network.simulator.add_tap(
        lambda now_us, wire, direction, frame: frames.append(frame.to_bytes()) if len(frames) < 300 else None
    )
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=SUBFLOW)
    near, far = network.establish(rng.choice(["10.0.1.1", "fd00:1::1"]))
    transfers = [Transfer(near, far, 20_000), Transfer(far, near, 20_000)]
    attacker = Attacker(network, seed)
    network.simulator.run_for(30_000)
    for _ in range(400):
        stack = rng.choice([network.client, network.server])
        data = bytearray(rng.choice(frames))
        for _ in range(rng.choice([1, 2, 5])):
            data[rng.randrange(12, len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(1, len(data)) :]
        if rng.random() < 0.1:
            data[14:] = rng.randbytes(rng.randrange(200))
        attacker.inject_bytes(stack, rng.choice(stack.ip.interfaces), bytes(data))
        must_be_bounded(stack)
    network.simulator.run_until(lambda: advance_all(transfers))
    for transfer in transfers:
        transfer.must_be_intact()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sack", [True, False])
def test_data_is_intact_when_packets_are_repeated_and_out_of_order(seed: int, sack: bool) -> None:
    network = Network(2, seed=seed, settings=StackSettings(tcp_sack=sack, tcp_timestamps=seed % 2 == 0))
    for link in network.simulator.links().values():
        for wire in (link.forward, link.backward):
            wire.rewrite = Tamperer(random.Random(f"{seed} {wire.name}"), mutates=False).rewrite
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=SUBFLOW)
    attacker = Attacker(network, seed)
    near, far = network.establish()
    transfers = [Transfer(near, far, 200_000), Transfer(far, near, 200_000)]
    network.simulator.run_until(lambda: advance_all(transfers))
    for transfer in transfers:
        transfer.must_be_intact()
    assert near.is_mptcp
    assert far.is_mptcp
    assert network.server.counters["MPTcpExtDSSNotMatching"] == 0
    must_come_to_rest(network, attacker)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("protocol", ["mptcp", "tcp"])
def test_data_is_intact_while_garbage_comes_from_outside_the_window(seed: int, protocol: str) -> None:
    """What somebody sends who knows the four-tuple but must guess the numbers (RFC 5961)."""
    rng = random.Random(seed)
    network = Network(2, seed=seed)
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=SUBFLOW)
    attacker = Attacker(network, seed)
    near, far = network.establish(rng.choice(["10.0.1.1", "fd00:1::1"]), protocol)
    transfers = [Transfer(near, far, 300_000), Transfer(far, near, 300_000)]

    def attack_and_advance() -> bool:
        for connection in (near, far):
            for subflow in connection.subflows:
                attacker.inject_into(subflow, garbage(attacker, subflow))
        return advance_all(transfers)

    network.simulator.run_until(attack_and_advance)
    for transfer in transfers:
        transfer.must_be_intact()
    for connection in (near, far):
        assert connection.error is None
        assert connection.is_mptcp == (protocol == "mptcp")
    for counters in (network.client.counters, network.server.counters):
        assert counters["StackDropOutOfWindow"] > 0
        assert counters["TcpEstabResets"] == counters["MPTcpExtFallbackFailed"] == 0


def garbage(attacker: Attacker, subflow: MptcpSubflow) -> TcpSegment:
    """Outside of every window, or with an impossible acknowledgement, or a SYN or RST beside the mark."""
    rng = attacker.rng
    segment = attacker.random_segment(subflow)
    segment.options.timestamp_value = subflow.timestamp_recent if subflow.timestamps_enabled else None
    trim(segment.options)
    match rng.randrange(4):
        case 0:
            outside = rng.choice([-1_000_000, -70_000, (6 << 20) + 70_000, 1 << 30])
            segment.sequence = (subflow.rcv_nxt + outside) & 0xFFFFFFFF
        case 1:
            segment.acknowledgement = (subflow.snd_nxt + rng.choice([1, 5000, 1 << 30])) & 0xFFFFFFFF
            segment.flags = ACK
        case 2:
            segment.flags = rng.choice([RST, RST | ACK])
            segment.sequence = (subflow.rcv_nxt + rng.randrange(1, 50_000)) & 0xFFFFFFFF
        case _:
            segment.flags = rng.choice([SYN, SYN | ACK])
    return segment


def test_no_acknowledgement_war_when_both_ends_are_out_of_step() -> None:
    """Each end took bytes that the other never sent: each finds the other's acknowledgements senseless."""
    network = Network()
    attacker = Attacker(network, 1)
    near, far = network.establish("10.0.1.1", "tcp", "tcp")
    network.simulator.run_for(1_000_000)
    for connection in (near, far):
        subflow = connection.subflows[0]
        attacker.inject_into(subflow, attacker.genuine(subflow, payload=b"injected"))
    before = sum(attacker.sent.values())
    network.simulator.run_for(10 * SECOND_US)
    assert sum(attacker.sent.values()) - before < 100


def test_join_flood_with_a_known_token() -> None:
    network = Network(2)
    attacker = Attacker(network, 1)
    near, far = network.establish()
    join_all(network, near, far, 1)
    for number in range(500):
        segment = attacker.join_syn(far, 1024 + number)
        assert attacker.inject(network.server, parse_address("10.0.1.77"), far.local[0], segment) <= 2
        must_be_bounded(network.server)
    transfer = Transfer(near, far, 100_000)
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()
    must_come_to_rest(network, attacker)


def test_syn_flood_leaves_no_more_than_one_beyond_the_backlog() -> None:
    network = Network()
    attacker = Attacker(network, 1)
    network.server.listen(None, 4433, backlog=16)
    for number in range(300):
        attacker.inject(
            network.server, parse_address("10.0.1.77"), parse_address("10.0.1.1"), attacker.syn(1024 + number)
        )
        assert len(list(network.server.connections())) <= 17
    assert network.server.counters["TcpExtSyncookiesSent"] == 300 - 17
    must_come_to_rest(network, attacker)
