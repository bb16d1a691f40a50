"""An attacker who sees everything, keys included, and can send anything: segments and options to inject."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from mptcp_stack.ip.interface import Interface
from mptcp_stack.mptcp import crypto
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.mptcp.mapping_table import MAXIMUM_MAPPINGS
from mptcp_stack.mptcp.subflow import MptcpSubflow
from mptcp_stack.stack import Stack
from mptcp_stack.tcp.reassembly import MAXIMUM_PIECES
from mptcp_stack.tcp.request import Request
from mptcp_stack.wire.checksum import checksum_of, pseudo_header_sum
from mptcp_stack.wire.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader, emit_ethernet
from mptcp_stack.wire.frame import Frame
from mptcp_stack.wire.ip_packet import emit_ipv4_header, emit_ipv6_header
from mptcp_stack.wire.mptcp_options import (
    AddAddr,
    Dss,
    MpCapable,
    MpFail,
    MpFastclose,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
    MpPrio,
    MptcpOption,
    MpTcpRst,
    RemoveAddr,
    UnknownMptcpOption,
)
from mptcp_stack.wire.tcp_options import TcpOptions, options_length
from mptcp_stack.wire.tcp_segment import ACK, FIN, PSH, RST, SYN, TcpSegment, emit_tcp_header
from tests.mptcp.network import PORT, Network

MASK_32 = 0xFFFFFFFF
MASK_64 = (1 << 64) - 1
FLAGS = [ACK] * 8 + [
    ACK | PSH,
    ACK | FIN,
    ACK | FIN,
    SYN,
    SYN | ACK,
    RST,
    RST | ACK,
    FIN,
    0,
    SYN | FIN,
    SYN | RST,
    0xFF,
]
SECOND_US = 1_000_000
MAXIMUM_SUBFLOWS = 64
MAXIMUM_SIGNALS = 64
MAXIMUM_ANSWERS = 4
"""Packets without data that one segment may cause, besides one for each subflow."""
LENGTHS = [0, 1, 2, 3, 100, 1000, 1400, 32768, 65534, 65535]


def frame_of(source: bytes, destination: bytes, segment: TcpSegment, macs: tuple[bytes, bytes]) -> bytes:
    """A whole Ethernet frame with good checksums; ``macs`` are the sender's and the receiver's."""
    head = emit_tcp_header(segment)
    length = len(head) + len(segment.payload)
    head[16:18] = checksum_of(
        (head, segment.payload), pseudo_header_sum(source, destination, 6, length)
    ).to_bytes(2, "big")
    if len(source) == 4:
        ether_type = ETHERTYPE_IPV4
        ip_header = emit_ipv4_header(source, destination, 6, length, identification=1)
    else:
        ether_type, ip_header = ETHERTYPE_IPV6, emit_ipv6_header(source, destination, 6, length)
    ethernet = emit_ethernet(EthernetHeader(macs[1], macs[0], ether_type))
    return b"".join((ethernet, ip_header, head, segment.payload))


def must_be_bounded(stack: Stack) -> None:
    """Every table and queue that a packet can make grow."""
    for connection in stack.connections():
        assert len(connection.subflows) <= MAXIMUM_SUBFLOWS
        assert connection.receive_buffer.readable_bytes <= connection.receive_buffer.limit
        assert 1 <= connection.send_buffer.una <= connection.send_buffer.nxt
        for subflow in connection.subflows:
            assert len(subflow.mappings) <= MAXIMUM_MAPPINGS
            assert subflow.reassembly.piece_count <= MAXIMUM_PIECES
            assert len(subflow.pending_signals) <= MAXIMUM_SIGNALS
    for known in stack.environment.subflows.values():
        queue = known.retransmission_queue
        assert queue.bytes_in_flight == sum(chunk.length for chunk in queue.chunks if chunk.in_pipe)
        assert known.snd_una <= known.snd_nxt
    for name in ("TcpCurrEstab", "MPTcpExtMPCurrEstab"):
        assert stack.counters[name] >= 0


def must_be_empty(stack: Stack) -> None:
    """Nothing is left of any connection."""
    assert not list(stack.connections())
    assert not stack.environment.subflows
    assert not len(stack.environment.requests)
    assert stack.counters["TcpCurrEstab"] == stack.counters["MPTcpExtMPCurrEstab"] == 0
    assert not stack.path_manager._paths
    assert not stack._tokens
    for listener in stack.listeners():
        assert not listener.half_open


def must_come_to_rest(network: Network, attacker: Attacker) -> None:
    """When the applications have closed and the attacker is gone nothing is left, and nobody talks."""
    for _ in range(3):
        for stack in (network.client, network.server):
            for connection in stack.connections():
                connection.close()
        network.simulator.run_for(130 * SECOND_US)
    must_be_empty(network.client)
    must_be_empty(network.server)
    before = dict(attacker.sent)
    network.simulator.run_for(60 * SECOND_US)
    assert attacker.sent == before


def trim(options: TcpOptions) -> None:
    """Drops MPTCP options until the rest fits into a header."""
    while options_length(options) > 40:
        options.mptcp = options.mptcp[:-1]


class Attacker:
    """Injects what it makes up into either host, and counts what the host sends in answer."""

    def __init__(self, network: Network, seed: int | str) -> None:
        self.network = network
        self.rng = random.Random(seed)
        self.sent = {"client": 0, "server": 0}
        network.simulator.add_tap(self._count)

    def _count(self, now_us: int, wire: str, direction: str, frame: Frame) -> None:
        if direction == "sent":
            self.sent[wire.split(":")[0]] += 1

    # --- injecting ---

    def inject(self, victim: Stack, source: bytes, destination: bytes, segment: TcpSegment) -> int:
        """Returns how many packets the victim sent at once."""
        interface = self._interface_of(victim, destination)
        # The other end of the same link, so that the neighbour cache learns nothing new.
        peer_mac = interface.mac[:5] + bytes([3 - interface.mac[5]])
        return self.inject_bytes(
            victim, interface, frame_of(source, destination, segment, (peer_mac, interface.mac))
        )

    def inject_bytes(self, victim: Stack, interface: Interface, frame: bytes) -> int:
        name = "client" if victim is self.network.client else "server"
        # What its own user had it do, such as REMOVE_ADDR and FINs, is no answer to what comes now.
        self.network.simulator.run_for(0)
        before = self.sent[name]
        victim.receive_frame(Frame(frame), interface, self.network.simulator.now_us)
        self.network.simulator.run_for(0)
        return self.sent[name] - before

    def inject_into(self, subflow: MptcpSubflow, segment: TcpSegment) -> int:
        """As if it came from the subflow's peer."""
        network = self.network
        victim = network.client if subflow.environment is network.client.environment else network.server
        return self.inject(victim, subflow.remote, subflow.local, segment)

    def inject_random(self, subflow: MptcpSubflow) -> None:
        """One segment, which must not be answered by a burst of packets that carry no data."""
        # What waits to be sent is no answer to it.
        self.network.simulator.run_for(0)
        counters = subflow.environment.counters
        subflows = len(subflow.environment.subflows)
        before = counters["TcpExtTCPOrigDataSent"] + counters["TcpRetransSegs"]
        answers = self.inject_into(subflow, self.random_segment(subflow))
        answers -= counters["TcpExtTCPOrigDataSent"] + counters["TcpRetransSegs"] - before
        assert answers <= MAXIMUM_ANSWERS + subflows

    def _interface_of(self, stack: Stack, address: bytes) -> Interface:
        for interface in stack.ip.interfaces:
            if any(known.address == address for known in interface.addresses):
                return interface
        return stack.ip.interfaces[0]

    # --- making up ---

    def genuine(
        self,
        subflow: MptcpSubflow,
        flags: int = ACK,
        *,
        offset: int = 0,
        acknowledgement: int | None = None,
        window: int = 1000,
        payload: bytes = b"",
        mptcp: Sequence[MptcpOption] = (),
    ) -> TcpSegment:
        """What the peer could send now, ``offset`` bytes beyond what is expected."""
        options = TcpOptions(mptcp=tuple(mptcp))
        if subflow.timestamps_enabled:
            options.timestamp_value = subflow.timestamp_recent
        return TcpSegment(
            subflow.remote_port,
            subflow.local_port,
            (subflow.rcv_nxt + offset) & MASK_32,
            (subflow.snd_nxt if acknowledgement is None else acknowledgement) & MASK_32,
            flags,
            window,
            options,
            payload,
        )

    def syn(self, port: int, mptcp: Sequence[MptcpOption] = ()) -> TcpSegment:
        """A first segment from the given port to the server's."""
        options = TcpOptions(maximum_segment_size=1460, mptcp=tuple(mptcp))
        return TcpSegment(port, PORT, self.rng.randrange(1 << 32), 0, SYN, 65535, options)

    def join_syn(self, connection: Connection, port: int) -> TcpSegment:
        """A further subflow, by somebody who has seen the token."""
        join = MpJoinSyn(False, port & 0xFF, connection.local_key.token, self.rng.randrange(1 << 32))
        return self.syn(port, (join,))

    def third_of_join(self, connection: Connection, request: Request) -> TcpSegment:
        """The genuine third packet for a join that waits for it, by somebody who knows the keys."""
        (asked,), (answered,) = request.offered.mptcp, request.agreed.mptcp
        assert isinstance(asked, MpJoinSyn)
        assert isinstance(answered, MpJoinSynAck)
        keys = connection.require_remote_key().value, connection.local_key.value
        digest = crypto.join_hmac(*keys, asked.nonce, answered.nonce)
        numbers = request.rcv_nxt & MASK_32, request.snd_nxt & MASK_32
        options = TcpOptions(mptcp=(MpJoinAck(digest[:20]),))
        return TcpSegment(request.four_tuple[3], request.four_tuple[1], *numbers, ACK, 1000, options)

    def random_segment(self, subflow: MptcpSubflow) -> TcpSegment:
        """In the window or at its edges, mostly."""
        rng = self.rng
        window = subflow.receive_window()
        offset = rng.choice(
            [0, 0, 0, 0, 0, -1, 1, 2, 1400, -1400, window, window - 1, window + 1, rng.randrange(1 << 32)]
        )
        acknowledgement = rng.choice(
            [subflow.snd_nxt] * 4
            + [subflow.snd_una] * 3
            + [subflow.snd_iss, subflow.snd_nxt + 1, subflow.snd_una - 1, rng.randrange(1 << 32)]
        )
        payload = rng.randbytes(rng.choice([0, 0, 0, 1, 2, 50, 1300]))
        segment = self.genuine(
            subflow,
            rng.choice(FLAGS),
            offset=offset,
            acknowledgement=acknowledgement,
            window=rng.choice([0, 1, 100, 65535, rng.randrange(65536)]),
            payload=payload,
        )
        segment.options = self._random_options(subflow)
        return segment

    def _random_options(self, subflow: MptcpSubflow) -> TcpOptions:
        rng = self.rng
        options = TcpOptions()
        if rng.random() < 0.9:
            options.timestamp_value = (subflow.timestamp_recent + rng.choice([0, 0, 0, 1, -1, 100])) & MASK_32
            options.timestamp_echo = rng.randrange(1 << 32)
        if rng.random() < 0.2:
            options.sack_blocks = (self._sack_block(subflow),)
        if rng.random() < 0.05:
            options.maximum_segment_size = rng.choice([0, 1, 64, 536, 65535])
            options.window_scale = rng.randrange(16)
        options.mptcp = tuple(self.random_option(subflow) for _ in range(rng.choice([0, 1, 1, 1, 2])))
        trim(options)
        return options

    def _sack_block(self, subflow: MptcpSubflow) -> tuple[int, int]:
        start = subflow.snd_una + self.rng.randrange(-10, 20_000)
        return start & MASK_32, (start + self.rng.randrange(-10, 5_000)) & MASK_32

    def random_option(self, subflow: MptcpSubflow) -> MptcpOption:
        """Any option of RFC 8684, often one that passes every check."""
        makers: list[Callable[[MptcpSubflow], MptcpOption]] = [
            self.random_dss,
            self._add_addr,
            self._remove_addr,
            self._prio,
            self._fail,
            self._fastclose,
            self._reset,
            self._capable,
            self._join,
            self._unknown,
        ]
        weights = (4, 2, 1, 1, 1, 1, 1, 1, 1, 1)
        return self.rng.choices(makers, weights)[0](subflow)

    def random_dss(self, subflow: MptcpSubflow) -> Dss:
        rng, connection = self.rng, subflow.connection
        data_ack = None
        if rng.random() < 0.6:
            position = rng.choice(
                [
                    connection.send_buffer.una,
                    connection.send_buffer.nxt,
                    connection.send_buffer.nxt + 1,
                    connection.send_buffer.nxt + 2,
                    0,
                    rng.randrange(1 << 64),
                ]
            )
            data_ack = (connection.local_sequence_base + position) & MASK_64
        if rng.random() < 0.4:
            return Dss(data_ack, True, None, False, 0, 0, None, rng.random() < 0.1)
        expected = connection.receive_buffer.next_position
        start = rng.choice(
            [expected] * 6 + [expected - 1, expected + 1, expected + 70_000, 0, rng.randrange(1 << 64)]
        )
        base = 0 if connection.remote_key is None else connection.remote_key.initial_data_sequence
        subflow_start = subflow.rcv_nxt - subflow.irs + rng.choice([0, 0, 0, 0, -1, 1, -20, 1400, 1 << 30])
        is_long = rng.random() < 0.7
        mask = MASK_64 if is_long else MASK_32
        return Dss(
            None if data_ack is None else data_ack & mask,
            is_long,
            (base + start) & mask,
            is_long,
            subflow_start & MASK_32,
            rng.choice(LENGTHS),
            rng.choice([None, None, None, rng.randrange(1 << 16)]),
            rng.random() < 0.2,
        )

    def _add_addr(self, subflow: MptcpSubflow) -> AddAddr:
        rng = self.rng
        if rng.random() < 0.2:
            return AddAddr(True, rng.randrange(256), bytes([10, 0, 2, 1]), None, None)
        address = rng.choice(
            [
                bytes([10, 0, rng.randrange(1, 4), rng.randrange(256)]),
                rng.randbytes(4),
                rng.randbytes(16),
                bytes(4),
                bytes([224, 0, 0, 1]),
                bytes([127, 0, 0, 1]),
            ]
        )
        return self.announcement(
            subflow.connection, rng.randrange(256), address, rng.choice([None, None, 0, 80])
        )

    def announcement(
        self, connection: Connection, address_id: int, address: bytes, port: int | None = None
    ) -> AddAddr:
        """With the HMAC that the peer would send."""
        if connection.remote_key is None:
            return AddAddr(False, address_id, address, port, bytes(8))
        digest = crypto.address_hmac(
            connection.remote_key.value, connection.local_key.value, address_id, address, port
        )
        return AddAddr(False, address_id, address, port, digest)

    def _remove_addr(self, subflow: MptcpSubflow) -> RemoveAddr:
        count = self.rng.choice([1, 1, 2, 5])
        return RemoveAddr(tuple(self.rng.choice([0, 1, 2, self.rng.randrange(256)]) for _ in range(count)))

    def _prio(self, subflow: MptcpSubflow) -> MpPrio:
        return MpPrio(self.rng.random() < 0.5, self.rng.choice([None, 0, 1, 2, 255]))

    def _fail(self, subflow: MptcpSubflow) -> MpFail:
        return MpFail(self.rng.randrange(1 << 64))

    def _fastclose(self, subflow: MptcpSubflow) -> MpFastclose:
        key = subflow.connection.local_key.value
        return MpFastclose(key if len(key) == 8 and self.rng.random() < 0.05 else self.rng.randbytes(8))

    def _reset(self, subflow: MptcpSubflow) -> MpTcpRst:
        return MpTcpRst(self.rng.randrange(256), self.rng.random() < 0.5, self.rng.choice([0, 8, 14]))

    def _capable(self, subflow: MptcpSubflow) -> MpCapable:
        rng, connection = self.rng, subflow.connection
        sender = None if connection.remote_key is None else connection.remote_key.value
        key = connection.local_key.value
        fields: list[bytes] = [sender or rng.randbytes(8), key if len(key) == 8 else rng.randbytes(8)]
        sender_key = fields[0] if rng.random() < 0.8 else None
        receiver_key = fields[1] if sender_key is not None and rng.random() < 0.8 else None
        length = rng.choice([None, *LENGTHS]) if receiver_key is not None else None
        checksum = rng.choice([None, rng.randrange(1 << 16)]) if length is not None else None
        return MpCapable(
            rng.choice([1, 1, 1, 0, 15]),
            rng.choice([0x01, 0x81, 0x21, 0x41, 0, 255]),
            sender_key,
            receiver_key,
            length,
            checksum,
        )

    def _join(self, subflow: MptcpSubflow) -> MptcpOption:
        rng, connection = self.rng, subflow.connection
        backup, identifier = rng.random() < 0.5, rng.randrange(256)
        match rng.randrange(3):
            case 0:
                return MpJoinSyn(backup, identifier, connection.local_key.token, rng.randrange(1 << 32))
            case 1:
                return MpJoinSynAck(backup, identifier, rng.randbytes(8), rng.randrange(1 << 32))
            case _:
                return MpJoinAck(rng.randbytes(20))

    def _unknown(self, subflow: MptcpSubflow) -> UnknownMptcpOption:
        return UnknownMptcpOption(15, bytes([0xF0]) + self.rng.randbytes(self.rng.randrange(10)))
