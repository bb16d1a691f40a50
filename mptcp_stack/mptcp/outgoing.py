"""The MPTCP options of outgoing segments (RFC 8684 §3.3 to §3.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.mptcp import handshake, mapping_faults
from mptcp_stack.mptcp.states import Mode
from mptcp_stack.tcp.output import MAXIMUM_OPTIONS_BYTES, SEQUENCE_MASK
from mptcp_stack.tcp.retransmission_queue import Chunk, Mapping
from mptcp_stack.tcp.subflow import TIMESTAMP_OPTION_BYTES
from mptcp_stack.wire.checksum import checksum_of
from mptcp_stack.wire.frame import Buffer
from mptcp_stack.wire.mptcp_options import (
    AddAddr,
    Dss,
    MpPrio,
    MptcpOption,
    RemoveAddr,
    mptcp_option_length,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.mptcp.subflow import MptcpSubflow

DATA_SEQUENCE_MASK = (1 << 64) - 1


def data_checksum(initial: int, mapping: Mapping, payload: Iterable[Buffer]) -> int:
    """RFC 8684 §3.3.1: over a pseudo-header and the data; ``initial`` is the data sequence of position 0."""
    sequence = (initial + mapping.data_start) & DATA_SEQUENCE_MASK
    pseudo_header = (
        sequence.to_bytes(8, "big")
        + (mapping.subflow_start & SEQUENCE_MASK).to_bytes(4, "big")
        + (mapping.length + mapping.has_data_fin).to_bytes(2, "big")
        + b"\0\0"
    )
    return checksum_of((pseudo_header, *payload))


def acknowledgement_options(subflow: MptcpSubflow) -> tuple[MptcpOption, ...]:
    """For a segment without data: a signal that waits, the handshake's proof, or the data acknowledgement."""
    connection = subflow.connection
    if connection.mode is not Mode.MPTCP:
        return ()
    proof = handshake.acknowledgement_option(subflow)
    if proof is not None:
        return (proof,)
    signal = None if subflow.data_fin_wanted and connection.data_fin_is_due else _next_signal(subflow)
    if isinstance(signal, AddAddr):
        # The longest forms leave no room for anything else, so Linux sends them all alone, and so do we.
        return (signal,)
    acknowledgement = _data_acknowledgement(connection, subflow)
    if signal is not None:
        return (acknowledgement, signal)
    # A DATA_FIN and timestamps together leave no room for MP_FAIL.
    if subflow.failure is not None and (
        acknowledgement.data_sequence is None or not subflow.timestamps_enabled
    ):
        fail = mapping_faults.take_mp_fail(subflow)
        if fail is not None:
            return (acknowledgement, fail)
    return (acknowledgement,)


def _next_signal(subflow: MptcpSubflow) -> MptcpOption | None:
    counters = subflow.environment.counters
    timestamps = TIMESTAMP_OPTION_BYTES if subflow.timestamps_enabled else 0
    while subflow.pending_signals:
        signal = subflow.pending_signals.pop(0)
        padded = (mptcp_option_length(signal) + 3) // 4 * 4
        fits = padded + timestamps <= MAXIMUM_OPTIONS_BYTES
        if isinstance(signal, AddAddr):
            name = "MPTcpExtEchoAddTx" if signal.echo else "MPTcpExtAddAddrTx"
            counters.increment(name if fits else name + "Drop")
            if not fits and not signal.echo:
                subflow.connection.path_manager.on_announcement_dropped(subflow.connection, signal.address_id)
        elif isinstance(signal, RemoveAddr):
            counters.increment("MPTcpExtRmAddrTx", len(signal.address_ids))
        elif isinstance(signal, MpPrio):
            counters.increment("MPTcpExtMPPrioTx")
        if fits:
            return signal
    return None


def _data_acknowledgement(connection: Connection, subflow: MptcpSubflow) -> Dss:
    """DATA_ACK, and DATA_FIN where it is asked for (RFC 8684 §3.3.3).

    Not on every acknowledgement: two ends that both wait for theirs would answer each other for ever.
    """
    data_ack, is_64bit = connection.wire_data_ack(), connection.uses_64bit_data_ack
    if connection.data_fin_is_due and (subflow.data_fin_wanted or subflow.fin_position is not None):
        subflow.data_fin_wanted = False
        position = connection.data_fin_position()
        mapping = Mapping(position, 0, 0, has_data_fin=True)
        checksum = (
            data_checksum(connection.local_sequence_base, mapping, ())
            if connection.checksum_enabled
            else None
        )
        return Dss(data_ack, is_64bit, connection.wire_sequence(position), True, 0, 1, checksum, True)
    return Dss(data_ack, is_64bit, None, False, 0, 0, None, False)


def data_options(subflow: MptcpSubflow, chunk: Chunk) -> tuple[MptcpOption, ...]:
    """For a segment with data: its mapping and the data acknowledgement."""
    connection = subflow.connection
    mapping = chunk.mapping
    if mapping is None or (connection.mode is not Mode.MPTCP and mapping.length):
        return ()
    if mapping.subflow_start == 1 and not subflow.is_confirmed and connection.is_client:
        # The first data repeats the keys, in case the third packet was lost (RFC 8684 §3.1).
        return (handshake.full_capable(connection, mapping.length, mapping.checksum),)
    return (
        Dss(
            connection.wire_data_ack(),
            connection.uses_64bit_data_ack,
            connection.wire_sequence(mapping.data_start),
            True,
            mapping.subflow_start & SEQUENCE_MASK,
            mapping.length,
            mapping.checksum,
            False,
        ),
    )
