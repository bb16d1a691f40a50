"""Segments that a device hands over at once are taken as super-segments, and nothing is lost by that."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from mptcp_stack.ip.interface import Interface, InterfaceAddress, LinkType
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.settings import StackSettings
from mptcp_stack.stack import Stack
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.frame import ChecksumState, Frame

ROUND_US = 1_000
SHORT_ROUND_US = 100
"""Several have the same timestamp."""
PORT = 4433
SIZE = 400_000


class Hosts:
    """Two stacks that are handed each other's frames in batches; some get lost, or overtake others.

    With ``batch_rounds`` the first gets those of so many rounds at once, verified by its device, and the
    second two a round.
    """

    def __init__(
        self,
        prefix: str,
        settings: StackSettings,
        *,
        loss: float = 0.0,
        seed: int = 1,
        batch_rounds: int | None = None,
    ) -> None:
        self._random = random.Random(seed)
        self._loss = loss
        self._batch_rounds = batch_rounds
        self._rounds = 0
        self._held: list[Frame] = []
        self._queue: list[Frame] = []
        self._now_us = 1_000_000
        self.stacks = [Stack(settings, random_bytes=random.Random(each).randbytes) for each in (1, 2)]
        self._interfaces = [self._attach(stack, f"{prefix}{n}") for n, stack in enumerate(self.stacks, 1)]
        self.delivered = [0, 0]
        """To each of them, in packets."""
        self.server_address = parse_address(f"{prefix}2")

    def _attach(self, stack: Stack, address: str) -> Interface:
        bits = 64 if ":" in address else 24
        addresses = [InterfaceAddress(parse_address(address), bits)]
        return stack.ip.add_interface("tun0", link_type=LinkType.RAW_IP, addresses=addresses)

    def establish(self, protocol: str) -> tuple[Connection, Connection]:
        listener = self.stacks[1].listen(None, PORT, protocol=protocol)
        near = self.stacks[0].connect(self.server_address, PORT, protocol=protocol)
        for _ in range(5_000):
            self.exchange()
            far = listener.accept()
            if far is not None:
                return near, far
        raise AssertionError("no connection")

    def exchange(self) -> None:
        for side in (0, 1):
            frames = [
                Frame(frame.to_bytes())
                for _, frame in self.stacks[side].frames_to_send(self._now_us)
                if self._random.random() >= self._loss
            ]
            if self._loss and len(frames) > 2 and self._random.random() < 0.2:
                place = self._random.randrange(len(frames))
                frames.append(frames.pop(place))
            other = 1 - side
            if self._batch_rounds is not None:
                frames = self._spread(frames) if other else self._hold(frames, self._batch_rounds)
            self.stacks[other].receive_frames(frames, self._interfaces[other], self._now_us)
            self.delivered[other] += len(frames)
        self._now_us += ROUND_US if self._batch_rounds is None else SHORT_ROUND_US
        for stack in self.stacks:
            deadline_us = stack.next_deadline_us()
            if deadline_us is not None and deadline_us <= self._now_us:
                stack.handle_deadline(self._now_us)

    def _spread(self, frames: list[Frame]) -> list[Frame]:
        self._queue += frames
        now, self._queue = self._queue[:2], self._queue[2:]
        return now

    def _hold(self, frames: list[Frame], batch_rounds: int) -> list[Frame]:
        self._held += [replace(frame, checksum=ChecksumState.VERIFIED) for frame in frames]
        self._rounds += 1
        if self._rounds % batch_rounds:
            return []
        batch, self._held = self._held, []
        return batch

    def transfer(self, near: Connection, far: Connection, data: bytes) -> bytes:
        received = bytearray()
        written = 0
        for _ in range(60_000):
            written += near.write(data[written:]) if written < len(data) else 0
            self.exchange()
            received += far.read(SIZE)
            if len(received) >= len(data):
                break
        return bytes(received)


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("protocol", ["mptcp", "tcp"])
@pytest.mark.parametrize("prefix", ["10.0.1.", "fd00:1::"])
def test_the_layers_above_see_super_segments(prefix: str, protocol: str, checksum: bool) -> None:
    hosts = Hosts(prefix, StackSettings(checksum_enabled=checksum))
    near, far = hosts.establish(protocol)
    data = random.Random(7).randbytes(SIZE)
    assert hosts.transfer(near, far, data) == data
    counters = hosts.stacks[1].counters
    family = "6" if ":" in prefix else ""
    # As in Linux: what TCP was sent counts by segments, what IP handed up by packets after joining.
    assert counters["TcpInSegs"] == hosts.delivered[1]
    assert counters[f"Ip{family}InReceives"] < hosts.delivered[1] / 3
    assert counters["Ip6InNoECTPkts" if family else "IpExtInNoECTPkts"] == hosts.delivered[1]
    assert hosts.stacks[0].counters["TcpRetransSegs"] == 0


@pytest.mark.parametrize("sack", [False, True])
@pytest.mark.parametrize("protocol", ["mptcp", "tcp"])
@pytest.mark.parametrize("seed", range(5))
def test_losses_and_overtaking_within_a_batch(protocol: str, sack: bool, seed: int) -> None:
    hosts = Hosts("10.0.1.", StackSettings(tcp_sack=sack), loss=0.02, seed=seed)
    near, far = hosts.establish(protocol)
    data = random.Random(seed).randbytes(SIZE)
    assert hosts.transfer(near, far, data) == data
    assert hosts.stacks[1].counters["TcpInSegs"] == hosts.delivered[1]


@pytest.mark.parametrize("loss", [0.0, 0.02])
@pytest.mark.parametrize("protocol", ["mptcp", "tcp"])
@pytest.mark.parametrize("prefix", ["10.0.1.", "fd00:1::"])
def test_acknowledgements_that_the_next_one_repeats_count_all_the_same(
    prefix: str, protocol: str, loss: float
) -> None:
    """As in Linux for what waits for a busy socket: each is a segment received, and some are left out."""
    hosts = Hosts(prefix, StackSettings(), loss=loss, batch_rounds=4)
    near, far = hosts.establish(protocol)
    data = random.Random(7).randbytes(SIZE)
    assert hosts.transfer(near, far, data) == data
    for _ in range(8):
        hosts.exchange()
    counters = hosts.stacks[0].counters
    left_out = counters["TcpExtTCPBacklogCoalesce"]
    assert left_out > 5
    family = "6" if ":" in prefix else ""
    assert counters[f"Ip{family}InReceives"] == hosts.delivered[0] - left_out
    assert counters["TcpInSegs"] == hosts.delivered[0]
    assert near.unacknowledged_bytes == 0
