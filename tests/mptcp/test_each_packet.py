"""Each packet of a whole connection in turn lost, repeated or late: the handshakes, the data, the ends.

A connection over two paths is played undisturbed first, which tells how many packets each wire carries; then
once more for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from errno import ECONNRESET
from functools import partial

import pytest

from mptcp_stack.device.in_memory import Wire, WireSettings
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.simulator import Simulator
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.frame import Frame
from tests.mptcp.middlebox import tcp_packet_in
from tests.mptcp.network import Network

LENGTH = 4000
MILLISECOND_US = 1_000
FATES = ("lost", "twice", "twice, later", "overtaken", "late")
ENDINGS = ("by the client", "by the server", "by both", "without data", "abrupt")
THIRD_PACKET = b"\x1e\x14\x01"


@dataclass(slots=True)
class Disturbance:
    """What happens to one TCP packet of one wire."""

    link: str = ""
    is_forward: bool = True
    number: int = -1
    fate: str = "lost"
    packet: bytes = b""


class Observation:
    """One direction of one link: counts its TCP packets, and disturbs one of them."""

    def __init__(self, simulator: Simulator, wire: Wire, disturbance: Disturbance | None) -> None:
        self._simulator, self._wire, self._disturbance = simulator, wire, disturbance
        self.packets = 0
        wire.rewrite = self._rewrite

    def _rewrite(self, packet: bytes, index: int) -> list[bytes]:
        if tcp_packet_in(packet) is None:
            return [packet]
        number, self.packets = self.packets, self.packets + 1
        disturbance = self._disturbance
        if disturbance is None or number != disturbance.number:
            return [packet]
        disturbance.packet = packet
        match disturbance.fate:
            case "lost":
                return []
            case "twice":
                return [packet, packet]
            case "twice, later":
                self._send_later(packet, 30 * MILLISECOND_US)
                return [packet]
            case "overtaken":
                self._send_later(packet, MILLISECOND_US)
            case _:
                self._send_later(packet, 700 * MILLISECOND_US)
        return []

    def _send_later(self, packet: bytes, delay_us: int) -> None:
        # It passes as a further packet, of which none is disturbed.
        self._disturbance = None
        when_us = self._simulator.now_us + delay_us
        self._simulator.call_at(when_us, lambda: self._pass(packet))

    def _pass(self, packet: bytes) -> None:
        self._wire.send(Frame(packet), self._simulator.now_us)


class Conversation:
    """A request, its answer, a pause in which the joins come about, and an end."""

    def __init__(self, is_ipv6: bool, ending: str, disturbance: Disturbance | None = None) -> None:
        self.network = network = Network(2, wire=WireSettings(delay_us=5 * MILLISECOND_US))
        self.ending = ending
        self.length = 0 if ending == "without data" else LENGTH
        self.observations: dict[tuple[str, bool], Observation] = {}
        for name, link in network.simulator.links().items():
            for is_forward, wire in ((True, link.forward), (False, link.backward)):
                is_it = disturbance is not None and (disturbance.link, disturbance.is_forward) == (
                    name,
                    is_forward,
                )
                self.observations[name, is_forward] = Observation(
                    network.simulator, wire, disturbance if is_it else None
                )
        template = "fd00:{}::{}" if is_ipv6 else "10.0.{}.{}"
        network.client.path_manager.set_limits(2, 2)
        network.server.path_manager.set_limits(2, 2)
        for stack, host, flag in ((network.client, 2, "subflow"), (network.server, 1, "signal")):
            address = parse_address(template.format(2, host))
            stack.path_manager.add_endpoint(address, flags=frozenset({flag}))
        self.listener = network.listen()
        self.near = network.connect(template.format(1, 1))
        self.far: Connection | None = None
        self.received = {True: bytearray(), False: bytearray()}
        self.written = {True: 0, False: 0}

    def play(self) -> None:
        run_until = self.network.simulator.run_until
        run_until(self._has_spoken)
        self.network.simulator.run_for(100 * MILLISECOND_US)
        self._begin_to_end()
        run_until(self._has_ended, 200_000 * MILLISECOND_US)
        self.listener.close()
        run_until(self._is_forgotten, 400_000 * MILLISECOND_US)

    def _exchange(self) -> None:
        if self.far is None:
            self.far = self.listener.accept()
        for connection, is_client in ((self.near, True), (self.far, False)):
            if connection is None or not connection.is_established:
                continue
            may_write = is_client or len(self.received[False]) == self.length
            if may_write and self.written[is_client] < self.length and connection.writable_bytes:
                self.written[is_client] += connection.write(data_of(is_client)[self.written[is_client] :])
            self.received[is_client] += connection.read(1 << 20)

    def _has_spoken(self) -> bool:
        self._exchange()
        is_open = self.near.is_established and (self.far is not None or not self.length)
        return is_open and len(self.received[True]) == len(self.received[False]) == self.length

    def _begin_to_end(self) -> None:
        match self.ending:
            case "abrupt":
                self.near.abort()
            case "by the server" if self.far is not None:
                self.far.close()
            case "by both" if self.far is not None:
                self.near.close()
                self.far.close()
            case _:
                self.near.close()

    def _has_ended(self) -> bool:
        self._exchange()
        for connection in (self.near, self.far):
            if connection is not None and (connection.end_of_stream or connection.error is not None):
                connection.close()
        return self.far is not None and self.near.is_closed and self.far.is_closed

    def _is_forgotten(self) -> bool:
        stacks = (self.network.client, self.network.server)
        return not any(any(stack.holdings().values()) for stack in stacks)

    def must_be_right(self, disturbance: Disturbance) -> None:
        assert self.far is not None
        assert self.received[True] == data_of(False)[: self.length]
        assert self.received[False] == data_of(True)[: self.length]
        is_abrupt = self.ending == "abrupt"
        assert self.near.error is None
        assert self.far.error == (ECONNRESET if is_abrupt else None)
        for stack in (self.network.client, self.network.server):
            assert stack.counters["TcpExtTCPAbortOnTimeout"] == 0
            # What comes when all is over is answered by a RST, and so are joins that are not up by then.
            is_orderly = disturbance.fate in ("lost", "overtaken") and disturbance.link != "2"
            assert stack.counters["TcpOutRsts"] == 0 or is_abrupt or not is_orderly
        # RFC 8684 §3.7: without data only the third packet brings the keys.
        may_fall_back = not self.length and THIRD_PACKET in disturbance.packet
        assert may_fall_back or (self.near.is_mptcp and self.far.is_mptcp)


def data_of(is_client: bool) -> bytes:
    return bytes((index * (3 if is_client else 5)) & 0xFF for index in range(LENGTH))


def disturbances(is_ipv6: bool, ending: str, fate: str) -> Iterator[Disturbance]:
    undisturbed = Conversation(is_ipv6, ending)
    undisturbed.play()
    undisturbed.must_be_right(Disturbance())
    for (link, is_forward), observation in undisturbed.observations.items():
        assert observation.packets >= 4
        yield from map(partial(Disturbance, link, is_forward, fate=fate), range(observation.packets))


@pytest.mark.parametrize("is_ipv6", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("fate", FATES)
def test_each_packet_in_turn(fate: str, ending: str, is_ipv6: bool) -> None:
    for disturbance in disturbances(is_ipv6, ending, fate):
        conversation = Conversation(is_ipv6, ending, disturbance)
        try:
            conversation.play()
            conversation.must_be_right(disturbance)
        except Exception as error:
            error.add_note(f"{disturbance}")
            raise
