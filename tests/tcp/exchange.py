"""One stack, and a test in the place of its peer: segments in, segments out, every time explicit.

Sequence numbers are relative to each side's initial one: our SYN is at 0, our first byte at 1.
"""

from __future__ import annotations

from mptcp_stack.ip.interface import InterfaceAddress, LinkType
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.mptcp.subflow import MptcpSubflow
from mptcp_stack.settings import StackSettings
from mptcp_stack.stack import Stack
from mptcp_stack.tcp.environment import FourTuple
from mptcp_stack.tcp.initial_sequence import KeyedNumbers
from mptcp_stack.tcp.states import State
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.checksum import checksum_of, pseudo_header_sum
from mptcp_stack.wire.frame import Frame
from mptcp_stack.wire.ip_packet import emit_ipv4_header, parse_ipv4
from mptcp_stack.wire.tcp_options import TcpOptions
from mptcp_stack.wire.tcp_segment import ACK, FIN, PSH, RST, SYN, TcpSegment, emit_tcp_header, parse_tcp

OURS, PEERS = parse_address("10.0.0.1"), parse_address("10.0.0.2")
OUR_PORT, PEER_PORT = 1000, 2000
MASK = 0xFFFFFFFF
SETTINGS = StackSettings(tcp_timestamps=False, tcp_congestion_control="reno")
START_US = 1_000_000
LETTERS = {"S": SYN, "A": ACK, "F": FIN, "R": RST, "P": PSH}


class Exchange:
    """``iss`` and ``peer_iss`` are the initial sequence numbers, which may be just before the wrap."""

    def __init__(
        self,
        *,
        settings: StackSettings = SETTINGS,
        iss: int = 5000,
        peer_iss: int = 90_000,
        mtu: int = 1500,
        peer_options: TcpOptions | None = None,
    ) -> None:
        self.iss, self.peer_iss = iss, peer_iss
        self.now_us = START_US
        self.stack = Stack(settings, random_bytes=lambda count: iss.to_bytes(4, "big")[:count])
        self.stack.environment.numbers = FixedNumbers(iss)
        self.interface = self.stack.ip.add_interface(
            "tun0", link_type=LinkType.RAW_IP, mtu=mtu, addresses=[InterfaceAddress(OURS, 24)]
        )
        self.peer_options = peer_options or TcpOptions(
            maximum_segment_size=1000, window_scale=0, sack_permitted=True
        )
        self.sent: list[TcpSegment] = []
        """What the stack has sent and no ``expect`` has looked at yet."""
        self.connection: Connection | None = None
        self._known: MptcpSubflow | None = None

    # --- time ---

    def flush(self) -> None:
        for _, frame in self.stack.frames_to_send(self.now_us):
            self.sent.append(parse_tcp(parse_ipv4(memoryview(frame.to_bytes())).payload))

    def advance(self, duration_us: int) -> list[tuple[int, TcpSegment]]:
        """Lets time pass; what was sent meanwhile, with the time since the start of the advance."""
        start_us, end_us = self.now_us, self.now_us + duration_us
        timed: list[tuple[int, TcpSegment]] = []
        self.flush()
        while (deadline_us := self.stack.next_deadline_us()) is not None and deadline_us <= end_us:
            self.now_us = max(self.now_us, deadline_us)
            before = len(self.sent)
            self.stack.handle_deadline(self.now_us)
            self.flush()
            timed += [(self.now_us - start_us, segment) for segment in self.sent[before:]]
        self.now_us = end_us
        return timed

    # --- the peer's side ---

    def send(
        self,
        flags: str,
        seq: int = 0,
        ack: int = 0,
        payload: bytes = b"",
        window: int = 60_000,
        options: TcpOptions | None = None,
        *,
        flush: bool = True,
    ) -> None:
        """A segment from the peer; ``seq`` counts from the peer's initial number, ``ack`` from ours."""
        bits = sum(LETTERS[letter] for letter in flags)
        segment = TcpSegment(
            PEER_PORT,
            OUR_PORT,
            (self.peer_iss + seq) & MASK,
            (self.iss + ack) & MASK if bits & ACK else 0,
            bits,
            window,
            options or TcpOptions(),
            payload,
        )
        head = emit_tcp_header(segment)
        length = len(head) + len(payload)
        total = pseudo_header_sum(PEERS, OURS, 6, length)
        head[16:18] = checksum_of((head, payload), total).to_bytes(2, "big")
        packet = emit_ipv4_header(PEERS, OURS, 6, length, identification=0) + head + payload
        self.stack.receive_frame(Frame(packet), self.interface, self.now_us)
        if flush:
            self.flush()

    def expect(
        self, flags: str, seq: int | None = None, ack: int | None = None, length: int | None = None
    ) -> TcpSegment:
        """The next segment that the stack has sent must be like this."""
        assert self.sent, f"nothing was sent, expected {flags}"
        segment = self.sent.pop(0)
        assert shown(segment) == "".join(sorted(flags))
        if seq is not None:
            assert self.sequence(segment) == seq
        if ack is not None:
            assert self.acknowledgement(segment) == ack
        if length is not None:
            assert len(segment.payload) == length
        return segment

    def sequence(self, segment: TcpSegment) -> int:
        """Relative to our initial number."""
        return (segment.sequence - self.iss) & MASK

    def acknowledgement(self, segment: TcpSegment) -> int:
        """Relative to the peer's initial number."""
        return (segment.acknowledgement - self.peer_iss) & MASK

    def expect_nothing(self) -> None:
        assert [shown(segment) for segment in self.sent] == []

    # --- our side ---

    @property
    def application(self) -> Connection:
        """Our end of the connection."""
        if self.connection is None:
            self.connection = next(self.stack.connections())
        return self.connection

    @property
    def subflow(self) -> MptcpSubflow:
        """Also when it is closed by now."""
        if self._known is None:
            self._known = self.application.subflows[0]
        return self._known

    def must_be_in(self, state: State) -> None:
        """Also when there is only a request yet, or only a record of the subflow is left."""
        four_tuple = OURS, OUR_PORT, PEERS, PEER_PORT
        if self.stack.environment.requests.get(four_tuple) is not None:
            assert state is State.SYN_RECEIVED
            return
        if self._known is None and not list(self.stack.connections()):
            assert state is State.CLOSED
            return
        record = self.stack.environment.time_waits.get(self.subflow.four_tuple)
        assert (self.subflow.state if record is None else record.state) is state

    def write(self, data: bytes) -> int:
        accepted = self.application.write(data)
        self.flush()
        return accepted

    def read(self, limit: int = 1 << 20) -> bytes:
        data = self.application.read(limit)
        self.flush()
        return data

    def shut_down(self) -> None:
        self.application.shutdown_write()
        self.flush()

    def close(self) -> None:
        self.application.close()
        self.flush()

    # --- the way into each state ---

    def connect(self) -> None:
        """SYN_SENT."""
        self.connection = self.stack.connect(
            PEERS, PEER_PORT, protocol="tcp", local=OURS, local_port=OUR_PORT
        )
        self.flush()
        self.expect("S", 0)
        self.must_be_in(State.SYN_SENT)

    def listen(self) -> None:
        """SYN_RECEIVED."""
        self.stack.listen(None, OUR_PORT, protocol="tcp")
        self.send("S", 0, options=self.peer_options)
        self.expect("SA", 0, 1)
        self.must_be_in(State.SYN_RECEIVED)

    def establish(self, window: int = 60_000) -> None:
        """ESTABLISHED, actively."""
        self.connect()
        self.send("SA", 0, 1, window=min(window, 65535), options=self.peer_options)
        self.expect("A", 1, 1)
        self.must_be_in(State.ESTABLISHED)


class FixedNumbers(KeyedNumbers):
    """The initial sequence number that the test wants."""

    def __init__(self, iss: int) -> None:
        super().__init__(bytes)
        self._iss = iss

    def initial_sequence(self, four_tuple: FourTuple, now_us: int) -> int:
        return self._iss


def shown(segment: TcpSegment) -> str:
    """Its flags as letters, in order of the alphabet; PSH is not shown."""
    return "".join(sorted(letter for letter, bit in LETTERS.items() if segment.flags & bit and letter != "P"))


def established(exchange: Exchange | None = None) -> Exchange:
    exchange = exchange or Exchange()
    exchange.establish()
    return exchange


def interactive(exchange: Exchange | None = None) -> Exchange:
    """Established, and used to answering: acknowledgements wait for answers."""
    exchange = exchange or established()
    exchange.application.acknowledge_quickly(False)
    return exchange


def in_state(state: State, exchange: Exchange | None = None) -> Exchange:
    """An exchange whose subflow is in the state, with everything that was sent already looked at.

    Where we have sent a FIN it is at 1, and where the peer has sent one it was at 1.
    """
    exchange = exchange or Exchange()
    match state:
        case State.SYN_SENT:
            exchange.connect()
            return exchange
        case State.SYN_RECEIVED:
            exchange.listen()
            return exchange
    exchange.establish()
    if state in (State.CLOSE_WAIT, State.LAST_ACK):
        exchange.send("FA", 1, 1)
    if state in (State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSING, State.LAST_ACK, State.TIME_WAIT):
        exchange.shut_down()
    if state in (State.FIN_WAIT_2, State.TIME_WAIT):
        exchange.send("A", 1, 2)
    if state is State.TIME_WAIT:
        exchange.send("FA", 1, 2)
    if state is State.CLOSING:
        exchange.send("FA", 1, 1)
    exchange.must_be_in(state)
    exchange.sent.clear()
    return exchange
