"""Single attacks by a peer, or by somebody who knows as much: each has done harm once, or its kin has."""

from __future__ import annotations

import tracemalloc
from errno import ECONNRESET

import pytest

from mptcp_stack.mptcp import fallback
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.mptcp.states import DataState
from mptcp_stack.mptcp.subflow import MptcpSubflow
from mptcp_stack.settings import StackSettings
from mptcp_stack.tcp import acceptance
from mptcp_stack.tcp.reassembly import most_pieces
from mptcp_stack.tcp.states import State
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.mptcp_options import (
    Dss,
    MpCapable,
    MpFail,
    MpFastclose,
    MpJoinSyn,
    MptcpOption,
    RemoveAddr,
)
from mptcp_stack.wire.tcp_options import TcpOptions
from mptcp_stack.wire.tcp_segment import ACK, RST, SYN, TcpSegment
from tests.mptcp.attacker import MASK_32, MASK_64, Attacker, must_be_bounded, must_come_to_rest
from tests.mptcp.network import PORT, Network, Transfer, both_ways, close_both, join_all

SUBFLOW = frozenset({"subflow"})
CHECKSUMS = StackSettings(checksum_enabled=True)


class Scene:
    """A client and a server with a confirmed connection and, if wanted, a second subflow."""

    def __init__(self, subflows: int = 1, settings: StackSettings | None = None) -> None:
        self.network = Network(2, settings=settings)
        if subflows == 2:
            self.network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=SUBFLOW)
        self.attacker = Attacker(self.network, 1)
        self.near, self.far = self.network.establish()
        join_all(self.network, self.near, self.far, subflows)
        self.network.simulator.run_for(1_000_000)

    def inject(
        self, connection: Connection, *options: MptcpOption, payload: bytes = b"", flags: int = ACK
    ) -> int:
        """On the initial subflow, as if its peer had sent it; returns the number of answers."""
        subflow = connection.subflows[0]
        return self.attacker.inject_into(
            subflow, self.attacker.genuine(subflow, flags, payload=payload, mptcp=options)
        )

    def mapping(self, start: int, length: int, subflow_start: int = 0, checksum: int | None = None) -> Dss:
        """For the server: relative to the next byte it expects, in the data and in the subflow."""
        subflow = self.far.subflows[0]
        sequence = self.far.remote_sequence_base + self.far.receive_buffer.next_position + start
        position = subflow.rcv_nxt - subflow.irs + subflow_start
        return Dss(None, False, sequence & MASK_64, True, position & MASK_32, length, checksum, False)

    def data_fin(self, distance: int) -> Dss:
        sequence = self.far.remote_sequence_base + self.far.receive_buffer.next_position + distance
        return Dss(None, False, sequence & MASK_64, True, 0, 1, None, True)

    def must_still_work(self) -> None:
        both_ways(self.network, self.near, self.far, 50_000)
        must_come_to_rest(self.network, self.attacker)


@pytest.mark.parametrize("limit", [0, 8])
def test_flood_of_genuine_announcements(limit: int) -> None:
    scene = Scene()
    scene.network.server.path_manager.set_limits(limit, limit)
    for identifier in range(256):
        address = bytes([10, 0, 1, identifier])
        scene.inject(scene.far, scene.attacker.announcement(scene.far, identifier, address))
        must_be_bounded(scene.network.server)
    assert len(scene.far.subflows) <= 1 + limit
    assert scene.network.server.counters["MPTcpExtEchoAddTx"] == 256
    scene.must_still_work()


@pytest.mark.parametrize("identifiers", [(0,), (1,), (0, 1), tuple(range(5)), (255, 254, 0, 0, 0)])
def test_every_address_removed(identifiers: tuple[int, ...]) -> None:
    scene = Scene(2)
    scene.inject(scene.far, RemoveAddr(identifiers))
    scene.network.simulator.run_for(1_000_000)
    must_come_to_rest(scene.network, scene.attacker)


@pytest.mark.parametrize("flags", [ACK, RST | ACK])
def test_fastclose_with_a_wrong_key(flags: int) -> None:
    scene = Scene(2)
    scene.inject(scene.far, MpFastclose(bytes(8)), flags=flags)
    assert scene.network.server.counters["MPTcpExtMPFastcloseRx"] == 0
    assert len(scene.far.subflows) == (2 if flags == ACK else 1)
    scene.network.simulator.run_for(1_000_000)
    scene.must_still_work()


def test_reset_with_a_wrong_key_on_the_only_subflow_is_no_leak() -> None:
    scene = Scene()
    scene.inject(scene.far, MpFastclose(bytes(8)), flags=RST | ACK)
    assert not scene.far.subflows
    scene.network.simulator.run_for(120_000_000)
    assert scene.far.is_closed
    must_come_to_rest(scene.network, scene.attacker)


@pytest.mark.parametrize("flags", [ACK, RST | ACK])
def test_fastclose_with_the_right_key(flags: int) -> None:
    scene = Scene(2)
    scene.inject(scene.far, MpFastclose(scene.far.local_key.value), flags=flags)
    assert scene.far.is_closed
    assert scene.far.error == ECONNRESET
    assert not scene.network.server.environment.subflows
    must_come_to_rest(scene.network, scene.attacker)


@pytest.mark.parametrize("subflows", [1, 2])
@pytest.mark.parametrize("payload", [b"", b"data"])
def test_infinite_mapping(subflows: int, payload: bytes) -> None:
    scene = Scene(subflows)
    scene.inject(scene.far, scene.mapping(0, 0), payload=payload)
    assert scene.far.is_mptcp == (subflows == 2 or not payload)
    scene.network.simulator.run_for(1_000_000)
    must_come_to_rest(scene.network, scene.attacker)


def test_announcement_in_the_segment_that_ends_mptcp() -> None:
    """Nothing may be signalled any more: the signal would wait for ever for a segment that takes it."""
    scene = Scene()
    announcement = scene.attacker.announcement(scene.far, 9, parse_address("10.0.1.9"))
    subflow = scene.far.subflows[0]
    segment = scene.attacker.genuine(subflow, mptcp=(scene.mapping(0, 0), announcement))
    segment.options.timestamp_value = None
    segment.payload = b"data"
    scene.attacker.inject_into(subflow, segment)
    assert not scene.far.is_mptcp
    assert not subflow.pending_signals
    must_come_to_rest(scene.network, scene.attacker)


def test_join_whose_connection_fell_back_meanwhile_is_refused() -> None:
    """Else it would carry a part of a plain TCP stream."""
    scene = Scene()
    server, source = scene.network.server, parse_address("10.0.1.77")
    scene.attacker.inject(server, source, scene.far.local[0], scene.attacker.join_syn(scene.far, 999))
    (request,) = server.environment.requests.all()
    scene.inject(scene.far, scene.mapping(0, 0), payload=b"data")
    assert not scene.far.is_mptcp
    third = scene.attacker.third_of_join(scene.far, request)
    scene.attacker.inject(server, source, scene.far.local[0], third)
    assert server.counters["MPTcpExtMPJoinRejected"] == 1
    assert len(scene.far.subflows) == 1
    must_come_to_rest(scene.network, scene.attacker)


def test_fallback_after_the_data_fin_closes_with_a_fin() -> None:
    scene = Scene()
    wire = scene.network.simulator.links()["1"].forward
    wire.drop_if = lambda frame, index: True
    scene.near.shutdown_write()
    scene.network.simulator.run_for(1000)
    assert scene.near.state is DataState.FIN_WAIT_1
    fallback.fall_back(scene.near, None)
    wire.drop_if = None
    scene.network.simulator.run_for(1000)
    assert scene.near.subflows[0].state is State.FIN_WAIT_1
    must_come_to_rest(scene.network, scene.attacker)


def test_fallback_forgets_what_was_to_be_sent_again_at_data_level() -> None:
    """In plain TCP the same bytes sent twice are in the stream twice."""
    scene = Scene()
    wire = scene.network.simulator.links()["1"].forward
    wire.drop_if = lambda frame, index: True
    scene.near.write(b"just once")
    scene.network.simulator.run_for(0)
    assert scene.near.send_buffer.queue_again(scene.near.subflows[0])
    for connection in (scene.near, scene.far):
        fallback.fall_back(connection, None)
    wire.drop_if = None
    scene.near.write(b", all of it")
    scene.network.simulator.run_for(1_000_000)
    assert scene.far.read(100) == b"just once, all of it"
    must_come_to_rest(scene.network, scene.attacker)


@pytest.mark.parametrize("settings", [StackSettings(), CHECKSUMS], ids=["plain", "checksums"])
@pytest.mark.parametrize("start", [0, -1, 1, -60_000, 1 << 30, 1 << 62, -(1 << 62)])
@pytest.mark.parametrize("subflow_start", [0, -1, -10_000, 10, 1 << 30])
@pytest.mark.parametrize("length", [1, 100, 65535])
def test_absurd_mappings(settings: StackSettings, start: int, subflow_start: int, length: int) -> None:
    scene = Scene(1, settings)
    checksum = 0x1234 if settings.checksum_enabled else None
    for _ in range(3):
        if scene.far.subflows:
            scene.inject(
                scene.far, scene.mapping(start, length, subflow_start, checksum), payload=bytes(1000)
            )
        must_be_bounded(scene.network.server)
    must_come_to_rest(scene.network, scene.attacker)


def test_mapping_before_the_start_of_the_subflow_with_a_checksum() -> None:
    """The position in the checksum's pseudo-header is a field of 32 bits, also when it is negative here."""
    scene = Scene(1, CHECKSUMS)
    subflow = scene.far.subflows[0]
    before = subflow.irs - subflow.rcv_nxt - 20
    scene.inject(scene.far, scene.mapping(0, 100, before, 0x1234), payload=bytes(200))
    assert scene.network.server.counters["MPTcpExtDataCsumErr"] == 1


@pytest.mark.parametrize("settings", [StackSettings(), CHECKSUMS], ids=["plain", "checksums"])
def test_more_than_four_gigabytes_on_one_subflow(settings: StackSettings) -> None:
    """Positions in the subflow are 32 bits on the wire and unbounded inside."""
    scene = Scene(1, settings)
    for connection in (scene.near, scene.far):
        # As if 4 GiB less 20 kB had gone each way before.
        subflow = connection.subflows[0]
        subflow.snd_iss -= (1 << 32) - 20_000
        subflow.irs -= (1 << 32) - 20_000
    scene.must_still_work()


def test_flood_of_tiny_segments_under_one_checksum() -> None:
    scene = Scene(1, CHECKSUMS)
    subflow = scene.far.subflows[0]
    dss = scene.mapping(0, 5000, 0, 1)
    for _ in range(1000):
        scene.inject(scene.far, dss, payload=b"x")
    entry = subflow.mappings.find(subflow.rcv_nxt - subflow.irs)
    assert entry is not None
    assert entry.held is not None
    assert len(entry.held) == 1
    must_come_to_rest(scene.network, scene.attacker)


def test_mappings_far_ahead_are_bounded_by_the_buffer() -> None:
    scene = Scene()
    most = most_pieces(scene.far.receive_buffer.limit)
    for number in range(9000):
        segment = scene.attacker.genuine(
            scene.far.subflows[0], mptcp=(scene.mapping(0, 1, 10_000 + 2 * number),)
        )
        scene.network.server.environment.timers.clock_us = scene.network.simulator.now_us
        scene.far.subflows[0].on_segment(segment, scene.network.simulator.now_us)
    must_be_bounded(scene.network.server)
    assert len(scene.far.subflows[0].mappings) == most < 1000
    assert scene.network.server.counters["StackDropReceiveQueueFull"] == 9000 - most


@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_bytes_that_each_leave_a_hole_take_no_more_than_the_buffer(protocol: str) -> None:
    """In segments of their own; Linux counts what a packet takes, and drops those that go beyond."""
    network = Network()
    _, far = network.establish(client=protocol, server=protocol)
    network.simulator.run_for(1_000_000)
    subflow, now_us = far.subflows[0], network.simulator.now_us
    tracemalloc.start()
    for position in range(1, 20_000, 2):
        mapping = Dss(None, False, position, True, position + 1, 1, None, False)
        if protocol == "mptcp":
            mapping.data_sequence = (far.remote_sequence_base + 1 + position) & MASK_64
        segment = TcpSegment(
            subflow.remote_port,
            subflow.local_port,
            (subflow.rcv_nxt + position) & MASK_32,
            subflow.snd_nxt & MASK_32,
            ACK,
            500,
            TcpOptions(mptcp=(mapping,) if protocol == "mptcp" else ()),
            memoryview(bytes(1514))[-1:],
        )
        acceptance.process(subflow, segment, now_us)
        network.server.frames_to_send(now_us)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert far.mode.name == ("MPTCP" if protocol == "mptcp" else "PLAIN_TCP")
    assert subflow.reassembly.piece_count > 200
    assert taken < 4 * far.receive_buffer.limit
    assert network.server.counters["TcpExtTCPOFOQueue"] + (
        network.server.counters["StackDropReceiveQueueFull"]
    ) == len(range(1, 20_000, 2))


@pytest.mark.parametrize("distance", [-1, -1000, 7_000_000, 1 << 40, 1 << 62])
def test_data_fin_where_none_can_be(distance: int) -> None:
    scene = Scene()
    scene.inject(scene.far, scene.data_fin(distance))
    assert scene.far.state is DataState.ESTABLISHED
    scene.must_still_work()


@pytest.mark.parametrize("near_closes", [False, True])
@pytest.mark.parametrize("far_closes", [False, True])
@pytest.mark.parametrize("repetitions", [1, 3])
def test_data_fin_in_every_state(near_closes: bool, far_closes: bool, repetitions: int) -> None:
    scene = Scene()
    if near_closes:
        scene.near.shutdown_write()
    if far_closes:
        scene.far.shutdown_write()
    for wait_us in (0, 1000, 5000, 100_000):
        for _ in range(repetitions):
            for connection in (scene.near, scene.far):
                for subflow in connection.subflows:
                    inject_data_fin(scene.attacker, subflow)
        scene.network.simulator.run_for(wait_us)
    must_come_to_rest(scene.network, scene.attacker)


def inject_data_fin(attacker: Attacker, subflow: MptcpSubflow) -> None:
    """DATA_FIN at the next position, with an acknowledgement of the peer's own."""
    connection = subflow.connection
    sequence = (connection.remote_sequence_base + connection.receive_buffer.next_position) & MASK_64
    acknowledged = (connection.local_sequence_base + connection.send_buffer.nxt + 1) & MASK_64
    dss = Dss(acknowledged, True, sequence, True, 0, 1, None, True)
    attacker.inject_into(subflow, attacker.genuine(subflow, mptcp=(dss,)))


@pytest.mark.parametrize(
    "option",
    [
        MpCapable(1, 1, bytes(8), bytes(8), 1000, None),
        MpCapable(1, 0x81, bytes(8), bytes(8), 65535, 1),
        MpCapable(0, 0, None, None, None, None),
        MpFail(0),
        MpFail(MASK_64),
        MpJoinSyn(True, 0, 0, 0),
    ],
)
def test_options_that_belong_elsewhere(option: MptcpOption) -> None:
    scene = Scene(2)
    for connection in (scene.near, scene.far):
        for _ in range(5):
            assert scene.inject(connection, option) <= 2
    scene.must_still_work()


def test_priority_change_while_a_join_is_in_its_handshake() -> None:
    """A signal waits until acknowledgements can carry it; once nothing else could happen meanwhile."""
    network = Network(2)
    identifier = network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=SUBFLOW)
    near, far = network.establish()
    near.write(b"x")
    network.simulator.run_until(lambda: len(near.subflows) == 2)
    network.client.path_manager.set_flags(identifier, frozenset({"backup"}))
    network.simulator.run_until(lambda: far.readable_bytes == 1)
    network.simulator.run_until(lambda: len(far.subflows) == 2 and far.subflows[1].peer_backup)
    assert far.read(10) == b"x"
    close_both(network, near, far)


def test_address_withdrawn_before_the_handshake_is_confirmed() -> None:
    network = Network(2)
    identifier = network.client.path_manager.add_endpoint(parse_address("10.0.1.2"), flags=SUBFLOW)
    near, far = network.establish()
    assert not near.subflows[0].is_confirmed
    network.client.path_manager.delete_endpoint(identifier)
    network.simulator.run_for(1_000_000)
    for connection in (near, far):
        connection.close()
    network.simulator.run_for(100_000_000)
    assert near.is_closed
    assert far.is_closed


def test_crossing_syn_on_a_join_ends_only_the_join() -> None:
    network = Network(2)
    attacker = Attacker(network, 1)
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=SUBFLOW)
    near, far = network.establish()
    near.write(b"x")
    network.simulator.run_until(lambda: len(near.subflows) == 2)
    network.simulator.run_for(0)
    joining = near.subflows[1]
    syn = TcpSegment(PORT, joining.local_port, 5, 0, SYN, 100, TcpOptions())
    attacker.inject_into(joining, syn)
    assert near.is_mptcp
    assert joining not in near.subflows
    transfer = Transfer(near, far, 1000).without_shutdown()
    transfer.data = b"x" + transfer.data
    transfer.offset = 1
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()
    assert near.is_mptcp
