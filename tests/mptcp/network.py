"""Two stacks in virtual time, joined by any number of links, and helpers to drive connections on them."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.ip.interface import Interface, InterfaceAddress, LinkType
from mptcp_stack.ip.routing import Route
from mptcp_stack.listener import Listener
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.settings import StackSettings
from mptcp_stack.simulator import Simulator
from mptcp_stack.stack import Stack
from mptcp_stack.wire.addresses import parse_address

PORT = 4433
DEFAULT_WIRE = WireSettings(delay_us=5_000, rate_bit_s=50_000_000, queue_limit_packets=200)


class Network:
    """``client`` has the addresses 10.0.N.2 and fd00:N::2 on link N (from 1), ``server`` those with .1."""

    def __init__(
        self,
        links: int = 1,
        *,
        seed: int = 1,
        wire: WireSettings = DEFAULT_WIRE,
        wires: tuple[WireSettings, ...] = (),
        settings: StackSettings | None = None,
        server_settings: StackSettings | None = None,
        gso_max_size: int = 0,
    ) -> None:
        self.simulator = Simulator(seed)
        client_settings = settings or StackSettings()
        self.client = Stack(client_settings, random_bytes=self.simulator.random("client").randbytes)
        self.server = Stack(
            server_settings or client_settings, random_bytes=self.simulator.random("server").randbytes
        )
        self.simulator.add_stack("client", self.client)
        self.simulator.add_stack("server", self.server)
        for number in range(1, links + 1):
            ends = []
            for stack, host in ((self.client, 2), (self.server, 1)):
                ends.append(
                    stack.ip.add_interface(
                        f"eth{number}",
                        link_type=LinkType.ETHERNET,
                        mac=bytes([2, 0, 0, 0, number, host]),
                        addresses=[
                            InterfaceAddress(parse_address(f"10.0.{number}.{host}"), 24),
                            InterfaceAddress(parse_address(f"fd00:{number}::{host}"), 64),
                        ],
                        gso_max_size=gso_max_size,
                    )
                )
            self._route_by_source(number, ends[0])
            chosen = wires[number - 1] if wires else wire
            self.simulator.link("client", ends[0], "server", ends[1], chosen, name=str(number))

    def _route_by_source(self, number: int, interface: Interface) -> None:
        """What the client sends from an address of link N goes over link N, wherever it is for."""
        for template, length in (("10.0.{}.{}", 4), ("fd00:{}::{}", 16)):
            self.client.ip.routes.add(
                Route(
                    bytes(length),
                    0,
                    interface,
                    gateway=parse_address(template.format(number, 1)),
                    source=parse_address(template.format(number, 2)),
                )
            )

    def listen(self, protocol: str = "mptcp", address: str | None = None) -> Listener:
        return self.server.listen(
            None if address is None else parse_address(address), PORT, protocol=protocol
        )

    def connect(
        self, address: str = "10.0.1.1", protocol: str = "mptcp", local: str | None = None
    ) -> Connection:
        return self.client.connect(
            parse_address(address),
            PORT,
            protocol=protocol,
            local=None if local is None else parse_address(local),
        )

    def establish(
        self, address: str = "10.0.1.1", client: str = "mptcp", server: str = "mptcp"
    ) -> tuple[Connection, Connection]:
        """The client's and the server's end of a new connection."""
        listener = self.listen(server)
        near = self.connect(address, client)
        return near, self.accept(listener, near)

    def accept(self, listener: Listener, near: Connection) -> Connection:
        """The other end of ``near``, once both are established."""
        accepted: list[Connection] = []

        def is_accepted() -> bool:
            connection = listener.accept()
            if connection is not None:
                accepted.append(connection)
            return bool(accepted) and near.is_established

        self.simulator.run_until(is_accepted)
        return accepted[0]


def join_all(network: Network, near: Connection, far: Connection, subflows: int = 2) -> None:
    """Exchanges a byte, which confirms the handshake, and waits until all subflows are up."""
    transfer = Transfer(near, far, 1).without_shutdown()
    network.simulator.run_until(transfer.advance)
    network.simulator.run_until(
        lambda: (
            len(near.subflows) == len(far.subflows) == subflows
            and all(subflow.is_usable for subflow in (*near.subflows, *far.subflows))
        )
    )


class Transfer:
    """Sends ``length`` seeded bytes from one end, reads them at the other, and finishes in order."""

    def __init__(self, sender: Connection, receiver: Connection, length: int, seed: int = 7) -> None:
        self.sender, self.receiver = sender, receiver
        self.data = random.Random(seed).randbytes(length)
        self.offset = 0
        self.received = bytearray()
        self.shut_down = True

    def without_shutdown(self) -> Transfer:
        self.shut_down = False
        return self

    def advance(self) -> bool:
        """Moves what can be moved; True when everything has arrived."""
        if self.offset < len(self.data) and self.sender.writable_bytes:
            self.offset += self.sender.write(self.data[self.offset : self.offset + (1 << 17)])
            if self.offset == len(self.data) and self.shut_down:
                self.sender.shutdown_write()
        elif not self.data and self.shut_down:
            self.sender.shutdown_write()
        while data := self.receiver.read(1 << 17):
            self.received += data
        return len(self.received) == len(self.data) and (not self.shut_down or self.receiver.end_of_stream)

    def must_be_intact(self) -> None:
        assert hashlib.sha256(self.received).digest() == hashlib.sha256(self.data).digest()


def advance_all(transfers: list[Transfer]) -> bool:
    """Moves every one of them; True when all are done."""
    done = [transfer.advance() for transfer in transfers]
    return all(done)


def both_ways(
    network: Network, near: Connection, far: Connection, length: int, back: int | None = None
) -> None:
    """Transfers in both directions at once, then closes both ends and waits until nothing is left."""
    transfers = [Transfer(near, far, length, 7), Transfer(far, near, length if back is None else back, 8)]
    network.simulator.run_until(lambda: advance_all(transfers))
    for transfer in transfers:
        transfer.must_be_intact()
    close_both(network, near, far)


def close_both(network: Network, near: Connection, far: Connection) -> None:
    near.close()
    far.close()
    network.simulator.run_until(lambda: near.is_closed and far.is_closed)
    network.simulator.run_until(
        lambda: not list(network.client.connections()) and not list(network.server.connections())
    )


def with_loss(probability: float) -> WireSettings:
    return replace(DEFAULT_WIRE, loss=probability)
