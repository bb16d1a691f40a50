"""What the fields of a packet's options are worked out from: its subflow, its direction, its data."""

from __future__ import annotations

from dataclasses import dataclass

from mptcp_stack.mptcp import crypto
from mptcp_stack.wire.checksum import checksum_of
from mptcp_stack.wire.mptcp_options import (
    CHECKSUM_REQUIRED,
    AddAddr,
    Dss,
    MpCapable,
    MpJoinSyn,
    MpJoinSynAck,
    MptcpOption,
)
from mptcp_stack.wire.sequence import unwrap
from testbed.packetdrill.bindings import Bindings, ConnectionSide, Subflow, SubflowSide, note_flags
from testbed.packetdrill.errors import PacketError
from testbed.packetdrill.syntax import Direction, KeyFunction
from testbed.packetdrill.wire_packet import KIND_TIMESTAMPS, WireTcp

UINT32_MASK = (1 << 32) - 1
UINT64_MASK = (1 << 64) - 1


@dataclass(slots=True)
class PacketContext:
    """``sequence_start`` is relative; ``payload`` the data that the packet carries."""

    bindings: Bindings
    subflow: Subflow
    direction: Direction
    sequence_start: int
    payload: bytes

    @property
    def sender(self) -> SubflowSide:
        return self.subflow.sender(self.direction)

    @property
    def receiver(self) -> SubflowSide:
        return self.subflow.receiver(self.direction)

    @property
    def sending_connection(self) -> ConnectionSide:
        return self.subflow.connection.side(self.direction)

    @property
    def receiving_connection(self) -> ConnectionSide:
        other = Direction.OUT if self.direction is Direction.IN else Direction.IN
        return self.subflow.connection.side(other)

    # --- keys and what follows from them ---

    # Each raises PacketError while a key that it is made from is not known.

    def token(self, function: KeyFunction | None) -> int:
        """Of the key that ``function`` names, else of the receiver's."""
        if function is not None:
            return crypto.derive(self.bindings.key(function.variables[0])).token
        return crypto.derive(_required(self.receiving_connection, "the receiver")).token

    def join_hmac(self, function: KeyFunction | None) -> bytes:
        """The 32 bytes with the keys that ``function`` names, sender first, else those of the connection."""
        if function is not None:
            sender_key, receiver_key = (self.bindings.key(name) for name in function.variables)
        else:
            sender_key, receiver_key = self._both_keys()
        return crypto.join_hmac(sender_key, receiver_key, self.sender.nonce or 0, self.receiver.nonce or 0)

    def address_hmac(self, address_id: int, address: bytes, port: int | None) -> bytes:
        return crypto.address_hmac(*self._both_keys(), address_id, address, port)

    def _both_keys(self) -> tuple[bytes, bytes]:
        sender_key = _required(self.sending_connection, "the sender")
        return sender_key, _required(self.receiving_connection, "the receiver")

    def data_number(self, value: int | KeyFunction, side: ConnectionSide) -> int:
        """The 64 bits that stand for a data sequence number of ``side`` in the script."""
        if isinstance(value, int):
            return (side.initial_data_sequence + value) & UINT64_MASK
        initial = crypto.derive(self.bindings.key(value.variables[0])).initial_data_sequence
        return (initial + value.offset) & UINT64_MASK

    def data_checksum(self, data_sequence: int, subflow_sequence: int, data_length: int) -> int:
        """RFC 8684 §3.3.1, over the data of this packet; ``data_sequence`` has all its 64 bits."""
        pseudo_header = (
            data_sequence.to_bytes(8, "big")
            + subflow_sequence.to_bytes(4, "big")
            + data_length.to_bytes(2, "big")
            + b"\0\0"
        )
        return checksum_of((pseudo_header, self.payload))

    # --- from the wire to relative numbers ---

    def relative_data_number(self, number: int, side: ConnectionSide, *, is_64bit: bool) -> int:
        """Counted from the initial data sequence number; one of 32 bits is taken near where the data ends."""
        initial = side.initial_data_sequence
        if is_64bit:
            return (number - initial) & UINT64_MASK
        return unwrap(number - initial, side.data_end) & UINT64_MASK

    def full_data_number(self, number: int, side: ConnectionSide, *, is_64bit: bool) -> int:
        """All 64 bits of a number from the wire."""
        relative = self.relative_data_number(number, side, is_64bit=is_64bit)
        return (side.initial_data_sequence + relative) & UINT64_MASK

    # --- taking note ---

    def observe_handshake(self, tcp: WireTcp) -> None:
        """Takes over keys and nonces: what the rest of the same packet may already depend on."""
        for wire_option in tcp.options:
            option = wire_option.mptcp()
            if isinstance(option, MpCapable):
                self._observe_capable(option)
            elif isinstance(option, MpJoinSyn | MpJoinSynAck):
                self.sender.nonce = option.nonce

    def _observe_capable(self, option: MpCapable) -> None:
        connection = self.subflow.connection
        connection.checksum_required |= bool(option.flags & CHECKSUM_REQUIRED)
        if self.sending_connection.key is None:
            self.sending_connection.key = option.sender_key

    def observe(self, tcp: WireTcp) -> None:
        """Takes note of a packet that was sent or came: what later packets are read by."""
        self.observe_handshake(tcp)
        note_flags(self.subflow, self.direction, tcp.flags)
        self.sender.window = tcp.window
        for wire_option in tcp.options:
            if wire_option.kind == KIND_TIMESTAMPS and len(wire_option.data) == 10:
                self.sender.last_timestamp = int.from_bytes(wire_option.data[2:6], "big")
            option = wire_option.mptcp()
            if option is not None:
                self._observe_mptcp(option)

    def _observe_mptcp(self, option: MptcpOption) -> None:
        side = self.sending_connection
        if isinstance(option, Dss) and option.data_sequence is not None:
            start = self.relative_data_number(
                option.data_sequence, side, is_64bit=option.data_sequence_is_64bit
            )
            side.last_mapping = start
            side.data_end = max(side.data_end, start + option.data_length)
        elif isinstance(option, MpCapable) and option.data_length is not None:
            side.data_end = max(side.data_end, 1 + option.data_length)
        elif isinstance(option, AddAddr) and not option.echo and self.direction is Direction.OUT:
            self.bindings.announced[option.address] = option.address_id


def _required(side: ConnectionSide, owner: str) -> bytes:
    if side.key is None:
        raise PacketError(f"the key of {owner} is not known yet, nothing can be computed from it")
    return side.key
