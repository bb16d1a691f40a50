"""Whole stacks in virtual time whose connections share one link; what each of them gets of it.

The link is as in the simulations of Wischik et al., "Design, Implementation and Evaluation of Congestion
Control for Multipath TCP" (NSDI 2011): a drop-tail queue of one bandwidth-delay product, and behind it room
for a few packets where one in ten is dropped. Without that the flows fall into step, and who loses is decided
by the phase of the packets, not by the windows (Floyd and Jacobson, "On Traffic Phase Effects", 1992).

``python -m tests.congestion.whole_stacks`` prints the table of ``docs/protocol_coverage.md``.
"""

from __future__ import annotations

import argparse
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.ip.interface import InterfaceAddress, LinkType
from mptcp_stack.listener import Listener
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.simulator import Simulator
from mptcp_stack.stack import Stack
from mptcp_stack.tcp.socket_options import SocketOptions
from mptcp_stack.wire.addresses import parse_address

RATE_PACKETS_S = 400
ROUND_TRIP_US = 50_000
PACKET_BYTES = 1500
RANDOM_PACKETS = 3
"""Of the queue, where one packet in ten is dropped."""
SETTLING_S = 5
_STARTS_WITHIN_US = 1_000_000
_KEPT_READY_BYTES = 1 << 19
_SERVER = parse_address("10.0.0.1")
_CLIENT, _SECOND = parse_address("10.0.0.2"), parse_address("10.0.0.3")


@dataclass(frozen=True, slots=True)
class Contender:
    """A connection: its congestion control, and how many subflows it has over the one link."""

    control: str
    subflows: int = 1

    @property
    def protocol(self) -> str:
        return "tcp" if self.subflows == 1 else "mptcp"


@dataclass(slots=True)
class _Flow:
    """Both ends of a contender's connection."""

    listener: Listener
    near: Connection | None = None
    far: Connection | None = None
    on_change: Callable[[], None] | None = None
    received_bytes: int = 0

    def advance(self) -> None:
        """Writes and reads what can be."""
        if self.near is not None and self.near.is_established:
            if self.near.unacknowledged_bytes < _KEPT_READY_BYTES:
                self.near.write(bytes(_KEPT_READY_BYTES))
            if self.far is None:
                self.far = self.listener.accept()
        if self.far is not None:
            self.far.on_change = self.on_change
            while data := self.far.read(_KEPT_READY_BYTES):
                self.received_bytes += len(data)


class NearlyFullQueue:
    """Decides before the link's own queue, which is never as full as this one lets it be."""

    def __init__(self, simulator: Simulator, random_packets: int, seed: int) -> None:
        self._simulator = simulator
        self._limit_packets = RATE_PACKETS_S * ROUND_TRIP_US // 1_000_000
        self._random_packets = random_packets
        self._random = random.Random(seed)
        self._departures_us: deque[float] = deque()

    def __call__(self, packet: bytes, index: int) -> bool:
        now_us, departures_us = self._simulator.now_us, self._departures_us
        while departures_us and departures_us[0] <= now_us:
            departures_us.popleft()
        beyond = len(departures_us) - self._limit_packets
        if beyond >= self._random_packets or (beyond >= 0 and self._random.random() < 0.1):
            return True
        free_at_us = departures_us[-1] if departures_us else now_us
        departures_us.append(free_at_us + len(packet) / PACKET_BYTES * 1_000_000 / RATE_PACKETS_S)
        return False


class Bottleneck:
    """Endless sources on one host, readers on another, and the link between them."""

    def __init__(self, seed: int, random_packets: int = RANDOM_PACKETS) -> None:
        self._simulator = simulator = Simulator(seed)
        self._client = Stack(random_bytes=simulator.random("client").randbytes)
        self._server = Stack(random_bytes=simulator.random("server").randbytes)
        simulator.add_stack("client", self._client)
        simulator.add_stack("server", self._server)
        near = self._client.ip.add_interface(
            "eth0",
            link_type=LinkType.RAW_IP,
            addresses=[InterfaceAddress(_CLIENT, 24), InterfaceAddress(_SECOND, 24)],
        )
        far = self._server.ip.add_interface(
            "eth0", link_type=LinkType.RAW_IP, addresses=[InterfaceAddress(_SERVER, 24)]
        )
        self._client.path_manager.add_endpoint(_SECOND, flags=frozenset({"subflow"}))
        backward = WireSettings(delay_us=ROUND_TRIP_US // 2)
        forward = replace(backward, rate_bit_s=RATE_PACKETS_S * PACKET_BYTES * 8)
        link = simulator.link("client", near, "server", far, forward, backward)
        link.forward.drop_if = NearlyFullQueue(simulator, random_packets, seed)
        self._flows: list[_Flow] = []
        self._changed: dict[int, _Flow] = {}

    def shares(self, contenders: Sequence[Contender], duration_s: int) -> list[int]:
        """The bytes that each one's reader gets in so many seconds. They begin at random times before."""
        starts = self._simulator.random("starts")
        for contender in contenders:
            self._start(contender, starts.randrange(_STARTS_WITHIN_US))
        self._run_until(SETTLING_S * 1_000_000)
        before = [flow.received_bytes for flow in self._flows]
        self._run_until((SETTLING_S + duration_s) * 1_000_000)
        return [flow.received_bytes - earlier for flow, earlier in zip(self._flows, before, strict=True)]

    def _start(self, contender: Contender, at_us: int) -> None:
        port = 5000 + len(self._flows)
        flow = _Flow(self._server.listen(None, port, protocol=contender.protocol))
        self._flows.append(flow)

        def connect() -> None:
            near = self._client.connect(_SERVER, port, protocol=contender.protocol)
            near.set_socket_options(SocketOptions(congestion_control=contender.control))
            near.on_change = note
            flow.near = near
            note()

        def note() -> None:
            self._changed[port] = flow

        flow.on_change = note
        self._simulator.call_at(at_us, connect)

    def _run_until(self, end_us: int) -> None:
        while self._simulator.now_us < end_us:
            self._simulator.advance(end_us)
            while self._changed:
                _, flow = self._changed.popitem()
                flow.advance()


def ratio(contender: Contender, rival: Contender, seed: int, duration_s: int, random_packets: int) -> float:
    """What the contender gets, in shares of its rival."""
    got, rivals = Bottleneck(seed, random_packets).shares((contender, rival), duration_s)
    return got / rivals


def mean_ratio(contender: Contender, rival: Contender, seeds: int, duration_s: int) -> float:
    """Over the seeds from 0 on."""
    return mean(ratio(contender, rival, seed, duration_s, RANDOM_PACKETS) for seed in range(seeds))


TABLE = (
    (Contender("lia", 2), Contender("reno")),
    (Contender("olia", 2), Contender("reno")),
    (Contender("balia", 2), Contender("reno")),
    (Contender("reno", 2), Contender("reno")),
    (Contender("reno"), Contender("reno")),
    (Contender("cubic"), Contender("cubic")),
    (Contender("cubic"), Contender("reno")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="What contenders get beside one TCP, in shares of it.")
    parser.add_argument("--seeds", type=int, default=8, help="how many runs, of the seeds from 0 on")
    parser.add_argument("--seconds", type=int, default=120, help="of virtual time, each")
    parser.add_argument(
        "--random-packets", type=int, default=RANDOM_PACKETS, help="0: a plain drop-tail queue"
    )
    arguments = parser.parse_args()
    for contender, rival in TABLE:
        runs = [
            ratio(contender, rival, seed, arguments.seconds, arguments.random_packets)
            for seed in range(arguments.seeds)
        ]
        spread = f" ± {stdev(runs):.2f}" if len(runs) > 1 else ""
        name = f"{contender.subflows} × {contender.control} beside {rival.control}"
        print(f"{name:<24}{mean(runs):.2f}{spread} ({min(runs):.2f} to {max(runs):.2f})", flush=True)


if __name__ == "__main__":
    main()
