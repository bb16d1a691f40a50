"""Anything at all, in each state of a connection: taken, or a counted drop, or a reset; no error, no growth.

``pytest -m fuzz tests/mptcp`` plays many more seeds.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.mptcp.subflow import MptcpSubflow
from mptcp_stack.settings import StackSettings
from mptcp_stack.stack import Stack
from mptcp_stack.tcp.fast_open import Mode
from mptcp_stack.tcp.states import State
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.frame import Frame
from tests.mptcp.attacker import SECOND_US, Attacker, must_be_bounded, must_come_to_rest
from tests.mptcp.middlebox import tcp_packet_in, with_segment
from tests.mptcp.network import PORT, Network

ROUNDS = 200
STAGES_OF_A_SEED = 10
IMPATIENT = StackSettings(
    tcp_syn_retries=2,
    tcp_synack_retries=2,
    tcp_retries2=3,
    close_timeout_us=5 * SECOND_US,
    time_wait_us=2 * SECOND_US,
    tcp_fin_timeout_us=2 * SECOND_US,
    maximum_rto_us=4 * SECOND_US,
    receive_buffer_bytes=100_000,
    send_buffer_bytes=100_000,
)
BELIEVING = replace(IMPATIENT, tcp_fastopen=Mode.CLIENT | Mode.SERVER | 0x604)
"""Without cookies: what is half open is a whole connection only when the SYN was believed."""
UNTOLD = ("Ip", "TcpInSegs", "TcpOutSegs")
"""Counted for every segment, whatever becomes of it; these names, and all that begin so."""


class Stage:
    """Two hosts on the way through a whole connection, stopped when one end is in the state."""

    def __init__(self, state: State, protocol: str, seed: int) -> None:
        settings = BELIEVING if state is State.SYN_RECEIVED else IMPATIENT
        self.network = network = Network(2, seed=seed, wire=WireSettings(delay_us=5_000), settings=settings)
        self.attacker = Attacker(network, f"{seed} {state.name} {protocol}")
        self.genuine: list[tuple[Stack, bytes]] = []
        network.simulator.add_tap(self._keep)
        network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=frozenset({"subflow"}))
        self.listener = network.listen(protocol)
        address = parse_address(random.Random(seed).choice(["10.0.1.1", "fd00:1::1"]))
        early = b"early" if state is State.SYN_RECEIVED else None
        self.near = network.client.connect(address, PORT, protocol=protocol, early=early)
        self.far: Connection | None = None
        self.state = state
        self.seen: dict[MptcpSubflow, None] = {}
        network.simulator.call_at(SECOND_US + 1, lambda: None)
        network.simulator.run_until(self._has_come)
        self.victim = next(subflow for subflow in self.seen if self.state_of(subflow) is state)

    def _keep(self, now_us: int, wire: str, direction: str, frame: Frame) -> None:
        data = frame.to_bytes()
        if direction == "sent" and tcp_packet_in(data) is not None:
            is_to_server = wire.startswith("client")
            self.genuine.append((self.network.server if is_to_server else self.network.client, data))

    def state_of(self, subflow: MptcpSubflow) -> State:
        """Also of a subflow of which only a record is left."""
        record = subflow.environment.time_waits.get(subflow.four_tuple)
        return subflow.state if record is None else record.state

    def _has_come(self) -> bool:
        for stack in (self.network.client, self.network.server):
            for connection in stack.connections():
                self.seen.update(dict.fromkeys(connection.subflows))
        if any(self.state_of(subflow) is self.state for subflow in self.seen):
            return True
        self.far = self.far or self.listener.accept()
        if self.far is not None and self.near.is_established:
            # Both at once is the way to CLOSING; one long after the other leads through all other states.
            self.near.shutdown_write()
            is_late = self.network.simulator.now_us > SECOND_US
            if self.state is State.CLOSING or (self.far.end_of_stream and is_late):
                self.far.shutdown_write()
        return False


class Fuzzer:
    def __init__(self, stage: Stage) -> None:
        self.stage, self.rng = stage, stage.attacker.rng

    def step(self) -> None:
        stage, victim = self.stage, self.stage.victim
        segments = victim.environment.counters["TcpInSegs"]
        before = self._shown()
        is_open = victim.state is not State.CLOSED
        if not stage.genuine or self.rng.random() < 0.5:
            stage.attacker.inject_into(victim, stage.attacker.random_segment(victim))
        else:
            self._inject_changed()
        if victim.environment.counters["TcpInSegs"] > segments:
            assert not is_open or self._shown() != before, "it vanished"
        for stack in (stage.network.client, stage.network.server):
            must_be_bounded(stack)

    def _shown(self) -> tuple[object, ...]:
        """What changes when something came of a segment."""
        victim = self.stage.victim
        told = {
            name: value
            for name, value in victim.environment.counters.snapshot().items()
            if value and not name.startswith(UNTOLD)
        }
        sent = dict(self.stage.attacker.sent)
        return told, sent, victim.state, victim.rcv_nxt, victim.snd_una, victim.snd_wnd

    def _inject_changed(self) -> None:
        """What was sent before, as it was or with bits flipped, cut short, or put together from two."""
        stage, rng = self.stage, self.rng
        stack, packet = rng.choice(stage.genuine)
        ip_packet = tcp_packet_in(packet)
        assert ip_packet is not None
        segment = bytearray(ip_packet.payload)
        match rng.randrange(4):
            case 0:
                for _ in range(rng.choice([1, 2, 8])):
                    segment[rng.randrange(4, len(segment))] ^= 1 << rng.randrange(8)
            case 1:
                del segment[rng.randrange(len(segment)) :]
                segment += bytes(max(0, 18 - len(segment)))
            case 2:
                other = tcp_packet_in(rng.choice(stage.genuine)[1])
                assert other is not None
                cut = rng.randrange(4, len(segment))
                segment[cut:] = other.payload[cut : len(segment)]
        changed = with_segment(packet, ip_packet, segment)
        stage.attacker.inject_bytes(stack, stack.ip.interfaces[0], changed)


def fuzz(state: State, protocol: str, seed: int) -> None:
    """Most victims do not live long: another one takes their place."""
    rounds = 0
    for number in range(STAGES_OF_A_SEED):
        stage = Stage(state, protocol, seed * STAGES_OF_A_SEED + number)
        fuzzer = Fuzzer(stage)
        lives = True
        while lives and rounds < (number + 1) * ROUNDS // STAGES_OF_A_SEED:
            rounds += 1
            fuzzer.step()
            lives = stage.state_of(stage.victim) is not State.CLOSED
            if fuzzer.rng.random() < 0.05:
                stage.network.simulator.run_for(fuzzer.rng.choice([100, 5_000, 300_000]))
        stage.listener.close()
        must_come_to_rest(stage.network, stage.attacker)


STAGES = [
    (state, protocol)
    for state in State
    for protocol in ("mptcp", "tcp")
    if state is not State.CLOSED
    # The ends of a subflow follow that of the data at once.
    and not (protocol == "mptcp" and state in (State.CLOSE_WAIT, State.FIN_WAIT_2))
]


@pytest.mark.parametrize(("state", "protocol"), STAGES)
def test_anything_in_each_state(state: State, protocol: str) -> None:
    fuzz(state, protocol, 0)


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(1, 101))
def test_anything_in_each_state_at_length(seed: int) -> None:
    for state, protocol in STAGES:
        fuzz(state, protocol, seed)
