"""Segments that a device hands over at once are taken as super-segments, and nothing is lost by that."""

from __future__ import annotations

import random

import pytest

from mptcp_stack.ip.interface import Interface, InterfaceAddress, LinkType
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.settings import StackSettings
from mptcp_stack.stack import Stack
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.frame import Frame

ROUND_US = 1_000
PORT = 4433
SIZE = 400_000


class Hosts:
    """Two stacks that are handed each other's frames in batches; some get lost, or overtake others."""

    def __init__(self, prefix: str, settings: StackSettings, *, loss: float = 0.0, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._loss = loss
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
            self.stacks[other].receive_frames(frames, self._interfaces[other], self._now_us)
            self.delivered[other] += len(frames)
        self._now_us += ROUND_US
        for stack in self.stacks:
            deadline_us = stack.next_deadline_us()
            if deadline_us is not None and deadline_us <= self._now_us:
                stack.handle_deadline(self._now_us)

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
