"""Which subflow a packet of a script belongs to, and which subflow a packet from the stack is on.

A packet without addresses belongs to the default subflow: the first, and after its end the next whose SYN has
no addresses. A SYN with addresses starts a new subflow where none that is alive has these addresses (and
ports, where they are written), or where it is a join and the one that is there is not.
"""

from __future__ import annotations

from collections.abc import Iterator

from mptcp_stack.wire.addresses import format_address
from mptcp_stack.wire.mptcp_options import MpJoinSyn
from mptcp_stack.wire.tcp_segment import ACK, SYN
from testbed.packetdrill.bindings import Bindings, Connection, Subflow
from testbed.packetdrill.option_matching import Mismatch
from testbed.packetdrill.syntax import (
    AddressReference,
    Direction,
    KeyFunction,
    MpJoinSynOption,
    Packet,
    TcpPart,
)
from testbed.packetdrill.wire_packet import WirePacket, WireTcp

Endpoint = tuple[bytes, int]


def subflow_of_incoming(packet: Packet, bindings: Bindings) -> Subflow:
    """The subflow that an incoming packet is for; it may be new. Raises PacketError for lack of addresses."""
    join = _join_of(packet.content) if isinstance(packet.content, TcpPart) else None
    is_syn = isinstance(packet.content, TcpPart) and packet.content.flags & (SYN | ACK) == SYN
    if packet.source is None or packet.destination is None:
        current = bindings.default_subflow
        if current is not None and not (is_syn and current.is_closed):
            return current
        subflow = _new_incoming(bindings, None, None, join)
        bindings.default_subflow = subflow
        return subflow
    remote = bindings.address(packet.source, of_stack=False)
    local = bindings.address(packet.destination, of_stack=True)
    found = _alive(bindings, local, packet.destination.port, remote, packet.source.port)
    if found is not None and not (is_syn and (found.is_closed or (join is not None and not found.is_join))):
        if is_syn and found.is_established:
            found.local.base_may_change = True
        return found
    subflow = _new_incoming(bindings, (local, packet.destination.port), (remote, packet.source.port), join)
    if found is not None and found.remote.port == subflow.remote.port:
        # What remains of the old connection may answer before a new one has a number of its own.
        subflow.local.sequence_base = found.local.sequence_base
        subflow.local.base_may_change = True
    if bindings.default_subflow is None:
        bindings.default_subflow = subflow
    return subflow


def _join_of(content: TcpPart) -> MpJoinSynOption | None:
    options = content.options or ()
    return next((option for option in options if isinstance(option, MpJoinSynOption)), None)


def _alive(
    bindings: Bindings, local: bytes, local_port: int | None, remote: bytes, remote_port: int | None
) -> Subflow | None:
    """The latest subflow with these addresses and ports, one that is not over before others."""
    matching = [
        subflow
        for subflow in reversed(bindings.subflows)
        if (subflow.local.address, subflow.remote.address) == (local, remote)
        and local_port in (None, subflow.local.port)
        and remote_port in (None, subflow.remote.port)
    ]
    return next((subflow for subflow in matching if not subflow.is_closed), matching[0] if matching else None)


def _new_incoming(
    bindings: Bindings,
    local: tuple[bytes, int | None] | None,
    remote: tuple[bytes, int | None] | None,
    join: MpJoinSynOption | None,
) -> Subflow:
    default = bindings.default_subflow
    local_address, local_port = local or (bindings.local_addresses[0], None)
    remote_address, remote_port = remote or (bindings.remote_addresses[0], None)
    if local_port is None:
        # A join goes to the port that the connection is on, unless the script says otherwise.
        local_port = default.local.port if default is not None else bindings.local_port
    connection = _joined_connection(bindings, join) if join is not None else Connection()
    return bindings.add_subflow(
        (local_address, local_port),
        (remote_address, remote_port or bindings.take_remote_port()),
        connection,
        is_join=join is not None,
    )


def _joined_connection(bindings: Bindings, join: MpJoinSynOption) -> Connection:
    """The one that the token names; else the latest, which a script with one connection means."""
    found = None
    if isinstance(join.token, KeyFunction):
        found = bindings.connection_of_key(bindings.key(join.token.variables[0]), Direction.IN)
    elif isinstance(join.token, int):
        found = bindings.connection_of_token(join.token, Direction.IN)
    return found or bindings.latest_connection() or Connection()


# --- packets from the stack ---


def endpoints(wire: WirePacket, tcp: WireTcp, direction: Direction) -> tuple[Endpoint, Endpoint]:
    """The stack's address and port, and the script's."""
    source, destination = (wire.source, tcp.source_port), (wire.destination, tcp.destination_port)
    return (destination, source) if direction is Direction.IN else (source, destination)


def subflow_of_outgoing(
    packet: Packet, wire: WirePacket, tcp: WireTcp, bindings: Bindings, mismatches: list[Mismatch]
) -> Subflow:
    """The subflow that a packet from the stack is on; notes a mismatch where the script means another."""
    local, remote = endpoints(wire, tcp, Direction.OUT)
    found = bindings.find(local, remote)
    is_syn = tcp.flags & (SYN | ACK) == SYN
    is_new = found is None or (is_syn and found.is_closed)
    if found is None or is_new:
        found = _new_outgoing(bindings, local, remote, tcp)
    if packet.source is not None and packet.destination is not None:
        mismatches += _check_endpoint("source", packet.source, local, bindings)
        mismatches += _check_endpoint("destination", packet.destination, remote, bindings)
        if bindings.default_subflow is None:
            bindings.default_subflow = found
        return found
    default = bindings.default_subflow
    if default is None or (is_new and is_syn and not found.is_join and default.is_closed):
        bindings.default_subflow = found
    elif found is not default:
        mismatches.append(Mismatch("subflow", default.describe(), found.describe()))
    return found


def _new_outgoing(bindings: Bindings, local: Endpoint, remote: Endpoint, tcp: WireTcp) -> Subflow:
    connection, is_join = _connection_of_outgoing(bindings, tcp)
    return bindings.add_subflow(local, remote, connection, is_join=is_join)


def _connection_of_outgoing(bindings: Bindings, tcp: WireTcp) -> tuple[Connection, bool]:
    """What the first packet of a subflow belongs to, and whether it is a join."""
    for option in tcp.options:
        mptcp = option.mptcp()
        if isinstance(mptcp, MpJoinSyn):
            joined = bindings.connection_of_token(mptcp.token, Direction.OUT)
            return joined or bindings.latest_connection() or Connection(), True
    return Connection(), False


def _check_endpoint(
    name: str, reference: AddressReference, got: Endpoint, bindings: Bindings
) -> Iterator[Mismatch]:
    address, port = got
    expected = bindings.expect_address(reference, address, of_stack=name == "source")
    if expected != address:
        yield Mismatch(f"{name} address", format_address(expected), format_address(address))
    if reference.port not in (None, port):
        yield Mismatch(f"{name} port", str(reference.port), str(port))


def known_subflow(wire: WirePacket, tcp: WireTcp, direction: Direction, bindings: Bindings) -> Subflow:
    """The subflow of any packet; one that is not known yet is made up and not kept."""
    local, remote = endpoints(wire, tcp, direction)
    found = bindings.find(local, remote)
    if found is not None:
        return found
    connection, is_join = _connection_of_outgoing(bindings, tcp)
    subflow = bindings.new_subflow(local, remote, connection, is_join=is_join)
    if tcp.flags & SYN:
        subflow.sender(direction).sequence_base = tcp.sequence
    return subflow
