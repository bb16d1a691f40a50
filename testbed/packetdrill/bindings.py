"""What a script's relative numbers and names stand for in one run: subflows, keys, addresses.

Two sides: *local* is the stack under test, *remote* is the script. A `Subflow` is a pair of addresses and
ports with the sequence number that each side's relative 0 stands for; a `Connection` is what its subflows
share. Everything that was not given by the script is derived from the seed, so that runs are repeatable.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mptcp_stack.mptcp.crypto import derive
from mptcp_stack.wire.addresses import format_address
from mptcp_stack.wire.tcp_segment import ACK, FIN, RST, SYN
from testbed.packetdrill.errors import PacketError
from testbed.packetdrill.syntax import AddressReference, Direction

_TRAILING_NUMBER = re.compile(r"(\d{1,4})\Z")


@dataclass(slots=True)
class ConnectionSide:
    """``key`` None: not seen yet. ``data_end`` is the relative number after everything mapped so far."""

    key: bytes | None = None
    data_end: int = 1
    last_mapping: int = 1
    """Relative start of the mapping that was sent last."""

    @property
    def initial_data_sequence(self) -> int:
        """What relative data sequence numbers count from; 0 without a key."""
        return derive(self.key).initial_data_sequence if self.key is not None else 0


@dataclass(slots=True)
class Connection:
    local: ConnectionSide = field(default_factory=ConnectionSide)
    remote: ConnectionSide = field(default_factory=ConnectionSide)
    checksum_required: bool = False
    """One side's MP_CAPABLE asked for checksums."""

    def side(self, direction: Direction) -> ConnectionSide:
        """The sender's."""
        return self.remote if direction is Direction.IN else self.local


@dataclass(slots=True)
class SubflowSide:
    """``sequence_base`` is the number on the wire of relative 0; None until the first SYN."""

    address: bytes
    port: int
    sequence_base: int | None = None
    base_may_change: bool = False
    """The base is that of an earlier connection between the same ports: a SYN may bring a new one."""
    nonce: int | None = None
    """Of MP_JOIN."""
    timestamp_base: int | None = None
    """The number on the wire of ``TS val 0``."""
    last_timestamp: int = 0
    """As on the wire."""
    window: int = 65535
    has_finished: bool = False

    @property
    def base(self) -> int:
        return self.sequence_base or 0


@dataclass(slots=True)
class Subflow:
    local: SubflowSide
    remote: SubflowSide
    connection: Connection
    is_join: bool = False
    was_reset: bool = False
    is_established: bool = False
    """The script has acknowledged something on it."""

    @property
    def is_closed(self) -> bool:
        return self.was_reset or (self.local.has_finished and self.remote.has_finished)

    def sender(self, direction: Direction) -> SubflowSide:
        return self.remote if direction is Direction.IN else self.local

    def receiver(self, direction: Direction) -> SubflowSide:
        return self.local if direction is Direction.IN else self.remote

    def take_base(self, sequence: int) -> None:
        """A SYN of the stack has this number as its relative 0; a new one begins a new connection."""
        local = self.local
        if local.sequence_base is None:
            local.sequence_base = sequence
        elif local.base_may_change and local.sequence_base != sequence:
            self.local = SubflowSide(local.address, local.port, sequence, nonce=local.nonce)
            self.remote.has_finished = self.was_reset = False
            if self.is_established and not self.is_join:
                self.connection = Connection()
            self.is_established = False

    def describe(self) -> str:
        """``local address:port, remote address:port`` for messages."""
        local, remote = self.local, self.remote
        return (
            f"{format_address(local.address)} port {local.port} with "
            f"{format_address(remote.address)} port {remote.port}"
        )


class Bindings:
    """The state of names and numbers in one run.

    ``local_addresses`` and ``remote_addresses``, packed and of one family, are what unset address variables
    take: ``addr[caddr1]`` the second of its side, a name without a number the first that no name has yet.
    ``local_port`` is where the script connects to and ``remote_port`` the first port that it connects from.
    ``timestamp_tolerance`` is how far an outgoing ``TS val`` may be off, in ticks of its clock.
    """

    def __init__(
        self,
        local_addresses: Sequence[bytes],
        remote_addresses: Sequence[bytes],
        *,
        local_port: int = 8080,
        remote_port: int = 40000,
        remote_initial_sequence: int = 0,
        seed: int = 0,
        timestamp_tolerance: int = 0,
    ) -> None:
        self.local_addresses = tuple(local_addresses)
        self.remote_addresses = tuple(remote_addresses)
        self.local_port = local_port
        self.timestamp_tolerance = timestamp_tolerance
        self.keys: dict[str, bytes] = {}
        """Variable → the 8 bytes of a key."""
        self.addresses: dict[str, bytes] = {}
        """Variable → packed address."""
        self.announced: dict[bytes, int] = {}
        """Address → the ID that the stack announced it with."""
        self.signature_key: bytes | None = None
        """Of MD5 signatures, as the script has set it on a socket."""
        self.subflows: list[Subflow] = []
        self.default_subflow: Subflow | None = None
        """The one that packets without addresses belong to."""
        self._next_remote_port = remote_port
        self._remote_initial_sequence = remote_initial_sequence
        self._seed = seed

    def copy(self) -> Bindings:
        """An independent copy: to try a comparison that must leave no traces if it fails."""
        return copy.deepcopy(self)

    # --- names ---

    def generate(self, purpose: str, length: int) -> bytes:
        """``length`` bytes that depend on the seed and ``purpose`` alone."""
        return hashlib.sha256(f"{self._seed}:{purpose}".encode()).digest()[:length]

    def key(self, name: str) -> bytes:
        """The key of that name; raises PacketError while there is none."""
        if name not in self.keys:
            known = ", ".join(sorted(self.keys)) or "none"
            raise PacketError(f"key {name!r} has no value yet (known: {known})")
        return self.keys[name]

    def key_name(self, value: bytes) -> str | None:
        return next((name for name, key in self.keys.items() if key == value), None)

    def address_name(self, value: bytes) -> str | None:
        return next((name for name, address in self.addresses.items() if address == value), None)

    def address(self, reference: AddressReference, *, of_stack: bool) -> bytes:
        """The address of a variable; the first use binds it. Raises PacketError if none is left to take."""
        if reference.value is not None:
            self.addresses[reference.name] = reference.value
        if reference.name not in self.addresses:
            self.addresses[reference.name] = self._free_address(reference.name, of_stack)
        return self.addresses[reference.name]

    def expect_address(self, reference: AddressReference, got: bytes, *, of_stack: bool) -> bytes:
        """What the address of a packet from the stack must be; a free name without a number takes ``got``."""
        if reference.value is not None:
            self.addresses[reference.name] = reference.value
        pool = self.local_addresses if of_stack else self.remote_addresses
        number = _TRAILING_NUMBER.search(reference.name)
        chosen = pool[int(number[1])] if number is not None and int(number[1]) < len(pool) else got
        return self.addresses.setdefault(reference.name, chosen)

    def _free_address(self, name: str, of_stack: bool) -> bytes:
        pool = self.local_addresses if of_stack else self.remote_addresses
        number = _TRAILING_NUMBER.search(name)
        if number is not None and int(number[1]) < len(pool):
            return pool[int(number[1])]
        if number is None:
            taken = set(self.addresses.values())
            free = [address for address in pool if address not in taken]
            if free:
                return free[0]
        side = "the stack" if of_stack else "the script"
        raise PacketError(f"addr[{name}]: {side} has {len(pool)} addresses, none for this name")

    # --- subflows ---

    def find(self, local: tuple[bytes, int], remote: tuple[bytes, int]) -> Subflow | None:
        """The latest subflow between these addresses and ports."""
        for subflow in reversed(self.subflows):
            if (subflow.local.address, subflow.local.port) == local and (
                subflow.remote.address,
                subflow.remote.port,
            ) == remote:
                return subflow
        return None

    def add_subflow(
        self, local: tuple[bytes, int], remote: tuple[bytes, int], connection: Connection, *, is_join: bool
    ) -> Subflow:
        subflow = self.new_subflow(local, remote, connection, is_join=is_join)
        self.subflows.append(subflow)
        return subflow

    def new_subflow(
        self, local: tuple[bytes, int], remote: tuple[bytes, int], connection: Connection, *, is_join: bool
    ) -> Subflow:
        """As `add_subflow`, without keeping it."""
        remote_side = SubflowSide(*remote, self._remote_initial_sequence, timestamp_base=0)
        return Subflow(SubflowSide(*local), remote_side, connection, is_join)

    def take_remote_port(self) -> int:
        """A port of the script's that no subflow uses."""
        port = self._next_remote_port
        self._next_remote_port = port + 1 if port < 65535 else 1024
        return port

    def let_ports_be_reused(self) -> None:
        """The stack opens a connection, perhaps between ports that it used before."""
        for subflow in self.subflows:
            subflow.local.base_may_change = True

    def connection_of_key(self, key: bytes, direction: Direction) -> Connection | None:
        """The connection whose receiver has this key: what a join in that direction names."""
        for subflow in reversed(self.subflows):
            receiver = subflow.connection.local if direction is Direction.IN else subflow.connection.remote
            if receiver.key == key:
                return subflow.connection
        return None

    def connection_of_token(self, token: int, direction: Direction) -> Connection | None:
        for subflow in reversed(self.subflows):
            receiver = subflow.connection.local if direction is Direction.IN else subflow.connection.remote
            if receiver.key is not None and derive(receiver.key).token == token:
                return subflow.connection
        return None

    def latest_connection(self) -> Connection | None:
        """That of the default subflow, else of the latest."""
        if self.default_subflow is not None:
            return self.default_subflow.connection
        return self.subflows[-1].connection if self.subflows else None


def note_flags(subflow: Subflow, direction: Direction, flags: int) -> None:
    """Keeps track of whether the subflow is over."""
    if flags & RST:
        subflow.was_reset = True
    if direction is Direction.IN and flags & (ACK | SYN | RST) == ACK:
        subflow.is_established = True
    if flags & FIN and not flags & SYN:
        subflow.sender(direction).has_finished = True
