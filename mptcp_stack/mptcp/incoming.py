"""The MPTCP options and the data of arriving segments (RFC 8684 §3.3 to §3.7)."""

from __future__ import annotations

from collections.abc import Sequence
from errno import ECONNRESET, EPIPE
from typing import TYPE_CHECKING

from mptcp_stack.mptcp import crypto, data_level, ending, fallback, mapping_faults
from mptcp_stack.mptcp.mapping_table import MAXIMUM_MAPPINGS, Addition, ReceivedMapping
from mptcp_stack.mptcp.outgoing import data_checksum
from mptcp_stack.mptcp.states import DataState, Mode, ResetReason
from mptcp_stack.tcp.reassembly import most_pieces
from mptcp_stack.tcp.retransmission_queue import Mapping
from mptcp_stack.tcp.states import Acknowledge, State
from mptcp_stack.wire.frame import Buffer
from mptcp_stack.wire.mptcp_options import (
    AddAddr,
    Dss,
    MpCapable,
    MpFail,
    MpFastclose,
    MpJoinAck,
    MpPrio,
    MptcpOption,
    MpTcpRst,
    RemoveAddr,
)
from mptcp_stack.wire.sequence import unwrap
from mptcp_stack.wire.tcp_segment import FIN, TcpSegment

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.mptcp.subflow import MptcpSubflow


def on_segment(subflow: MptcpSubflow, segment: TcpSegment, now_us: int) -> bool:
    """The options of a segment on a synchronised subflow. False when the subflow was reset over them."""
    connection = subflow.connection
    if connection.mode is not Mode.MPTCP:
        if subflow.failure is not None and segment.options.mptcp:
            _keep_data_window(subflow, segment)
        return True
    _note_whether_options_come(subflow, segment)
    if not subflow.is_confirmed:
        _confirm_by(subflow, segment, now_us)
    for option in segment.options.mptcp:
        if isinstance(option, Dss):
            _on_dss(subflow, option, segment, now_us)
        elif isinstance(option, MpCapable):
            _on_capable_data(subflow, option, segment, now_us)
        else:
            _on_signal(subflow, option, now_us)
        if subflow.state is State.CLOSED:
            return False
    if not subflow.is_confirmed and not segment.options.mptcp and _is_answer_of_plain_tcp(subflow, segment):
        fallback.fall_back(connection, "MPTcpExtMPCapableDataFallback")
    return True


def _note_whether_options_come(subflow: MptcpSubflow, segment: TcpSegment) -> None:
    """An acknowledgement of nothing new may have been left to an ADD_ADDR that a box on the path took."""
    if segment.options.mptcp:
        subflow.hears_options = True
    elif segment.payload or subflow.snd_una > subflow.answered_una:
        subflow.hears_options = False
    subflow.answered_una = subflow.snd_una


def _keep_data_window(subflow: MptcpSubflow, segment: TcpSegment) -> None:
    """We fell back after MP_FAIL, but the peer had not yet when it told this window."""
    window = segment.window << subflow.snd_wnd_scale
    for option in segment.options.mptcp:
        if isinstance(option, Dss) and option.data_ack is not None and window == subflow.snd_wnd:
            buffer = subflow.connection.send_buffer
            buffer.window_edge = max(buffer.window_edge, _acknowledged_position(subflow, option) + window)
            fallback.keep_data_window(subflow)


def _acknowledged_position(subflow: MptcpSubflow, option: Dss) -> int:
    connection = subflow.connection
    relative = (option.data_ack or 0) - connection.local_key.initial_data_sequence
    return unwrap(relative, connection.send_buffer.una, 64 if option.data_ack_is_64bit else 32)


def is_signal(segment: TcpSegment) -> bool:
    """RFC 8684 §3: with options other than DSS it is no duplicate acknowledgement; nor is a DATA_FIN one."""
    return any(not isinstance(option, Dss) or option.data_fin for option in segment.options.mptcp)


def _is_answer_of_plain_tcp(subflow: MptcpSubflow, segment: TcpSegment) -> bool:
    """Without options, our first data acknowledged, or all of the peer's ended (RFC 8684 §3.7)."""
    has_end = bool(segment.flags & FIN) and unwrap(segment.sequence, subflow.rcv_nxt) == subflow.rcv_nxt
    return subflow.snd_una > subflow.data_iss + 1 or has_end


def _confirm_by(subflow: MptcpSubflow, segment: TcpSegment, now_us: int) -> None:
    """Whether the segment shows that the peer is past the handshake (RFC 8684 §3.1, §3.2)."""
    if subflow.is_join:
        subflow.confirm(now_us)
        return
    for option in segment.options.mptcp:
        if (isinstance(option, Dss) and option.data_ack is not None) or isinstance(option, AddAddr):
            subflow.confirm(now_us)
            return


def _on_capable_data(subflow: MptcpSubflow, option: MpCapable, segment: TcpSegment, now_us: int) -> None:
    """MP_CAPABLE with a data length maps the first bytes of all (RFC 8684 §3.1)."""
    if option.data_length:
        subflow.connection.note_mapping_form(True)
        mapping = Mapping(1, 1, option.data_length, option.checksum)
        _add_mapping(subflow, mapping, segment, now_us)


def _on_dss(subflow: MptcpSubflow, option: Dss, segment: TcpSegment, now_us: int) -> None:
    """RFC 8684 §3.3."""
    connection = subflow.connection
    if option.data_ack is not None:
        position = _acknowledged_position(subflow, option)
        data_level.on_data_ack(connection, position, segment.window << subflow.snd_wnd_scale, now_us)
    if option.data_sequence is None:
        return
    bits = 64 if option.data_sequence_is_64bit else 32
    relative = option.data_sequence - connection.require_remote_key().initial_data_sequence
    start = unwrap(relative, connection.receive_buffer.next_position, bits)
    length = option.data_length
    if option.data_fin:
        if not length:
            return
        length -= 1
        data_level.on_data_fin(connection, subflow, start + length, now_us)
        if not length:
            return
    elif not length:
        # An infinite mapping, which counts from the data that it comes with (RFC 8684 §3.7).
        _on_infinite(subflow, segment)
        return
    subflow_start = unwrap(option.subflow_sequence, subflow.rcv_nxt - subflow.data_irs)
    mapping = Mapping(start, subflow_start, length, option.checksum, option.data_fin)
    if option.data_sequence_is_64bit is not connection.uses_64bit_data_ack:
        connection.note_mapping_form(option.data_sequence_is_64bit)
    _add_mapping(subflow, mapping, segment, now_us)


def _on_infinite(subflow: MptcpSubflow, segment: TcpSegment) -> None:
    """Takes effect when the data that it came with is the next in order; without any it is ignored."""
    start = unwrap(segment.sequence, subflow.rcv_nxt)
    if start + len(segment.payload) <= subflow.rcv_nxt:
        return
    table, position = subflow.mappings, max(start, subflow.rcv_nxt) - subflow.data_irs
    table.infinite_from = position if table.infinite_from is None else min(table.infinite_from, position)


def _add_mapping(subflow: MptcpSubflow, mapping: Mapping, segment: TcpSegment, now_us: int) -> None:
    """A segment must bring the mapping of its own data, not another one (as in Linux)."""
    counters, table = subflow.environment.counters, subflow.mappings
    next_position = subflow.rcv_nxt - subflow.data_irs
    addition = Addition.KNOWN
    if mapping.subflow_start + mapping.length > next_position:
        if mapping.subflow_start <= next_position:
            addition = table.add(mapping)
            if addition is Addition.ADDED:
                return
        else:
            # One place is left for the mapping of what comes next in order, which makes room again.
            pieces = most_pieces(subflow.receive_buffer_bytes)
            addition = table.add(mapping, min(pieces, MAXIMUM_MAPPINGS - 1))
    start = unwrap(segment.sequence, subflow.rcv_nxt)
    if addition is Addition.TOO_MANY:
        counters.increment("StackDropReceiveQueueFull")
        if start > subflow.rcv_nxt:
            _refuse_data(subflow, segment, now_us)
    elif addition is Addition.CONFLICTING:
        counters.increment("MPTcpExtDSSNotMatching")
    if not start <= subflow.rcv_nxt < start + len(segment.payload):
        return
    if addition is Addition.CONFLICTING:
        table.invalid_at = next_position
    elif table.find(next_position) is None:
        counters.increment("MPTcpExtDSSNoMatchTCP")
        table.invalid_at = next_position


def _refuse_data(subflow: MptcpSubflow, segment: TcpSegment, now_us: int) -> None:
    """There is no room for what says where it belongs: as TCP is not told of it, it will come again."""
    segment.payload = b""
    segment.flags &= ~FIN
    subflow.want_acknowledgement(Acknowledge.NOW, now_us)


def _on_signal(subflow: MptcpSubflow, option: MptcpOption, now_us: int) -> None:
    connection = subflow.connection
    counters = subflow.environment.counters
    if isinstance(option, AddAddr):
        _on_add_addr(subflow, option, now_us)
    elif isinstance(option, RemoveAddr):
        for address_id in option.address_ids:
            connection.host.path_events.on_removed(connection, address_id)
            connection.path_manager.on_address_removed(connection, address_id, now_us)
    elif isinstance(option, MpPrio):
        counters.increment("MPTcpExtMPPrioRx")
        for other in connection.subflows:
            if other is subflow if option.address_id is None else other.remote_id == option.address_id:
                other.peer_backup = option.backup
                connection.host.path_events.on_subflow("sub_priority", other)
        connection.request_output()
    elif isinstance(option, MpFail):
        counters.increment("MPTcpExtMPFailRx")
        mapping_faults.on_mp_fail(subflow, now_us)
    elif isinstance(option, MpFastclose):
        _on_fastclose(subflow, option, now_us)
    elif isinstance(option, MpJoinAck):
        # Repeated because the fourth packet was lost (RFC 8684 §3.2).
        subflow.want_acknowledgement(Acknowledge.NOW, now_us)


def _on_add_addr(subflow: MptcpSubflow, option: AddAddr, now_us: int) -> None:
    connection = subflow.connection
    counters = subflow.environment.counters
    if option.echo:
        counters.increment("MPTcpExtEchoAdd")
        if option.port is not None:
            counters.increment("MPTcpExtPortAdd")
        connection.path_manager.on_echo(connection, option.address_id, now_us)
        return
    expected = crypto.address_hmac(
        connection.require_remote_key().value,
        connection.local_key.value,
        option.address_id,
        option.address,
        option.port,
    )
    if option.hmac is None or not crypto.equal(expected, option.hmac):
        # RFC 8684 §3.4.1: silently ignored, and Linux does not count it.
        return
    counters.increment("MPTcpExtAddAddr")
    if option.port is not None:
        counters.increment("MPTcpExtPortAdd")
    connection.host.path_events.on_announced(subflow, option.address, option.port, option.address_id)
    if not connection.path_manager.takes_announcements(connection):
        counters.increment("MPTcpExtAddAddrDrop")
        return
    subflow.signal(AddAddr(True, option.address_id, option.address, option.port, None), now_us)
    connection.path_manager.on_address_announced(connection, option, now_us)


def _on_fastclose(subflow: MptcpSubflow, option: MpFastclose, now_us: int) -> None:
    """RFC 8684 §3.5: only who knows our key may close the connection."""
    connection = subflow.connection
    if not _is_genuine(subflow, option):
        return
    subflow.environment.counters.increment("MPTcpExtMPFastcloseRx")
    error = EPIPE if connection.state is DataState.CLOSE_WAIT else ECONNRESET
    ending.abort_for_peer(connection, error, now_us, ResetReason.UNSPECIFIED)


def on_reset(subflow: MptcpSubflow, segment: TcpSegment, now_us: int) -> None:
    """The options of a RST that is about to end the subflow."""
    for option in segment.options.mptcp:
        if isinstance(option, MpTcpRst):
            subflow.environment.counters.increment("MPTcpExtMPRstRx")
            subflow.reset_received = subflow.connection.last_reset = option
        elif isinstance(option, MpFail):
            subflow.environment.counters.increment("MPTcpExtMPFailRx")
    for option in segment.options.mptcp:
        if isinstance(option, MpFastclose) and _is_genuine(subflow, option):
            subflow.connection.forget_before_reset(subflow)
            _on_fastclose(subflow, option, now_us)
            return


def _is_genuine(subflow: MptcpSubflow, option: MpFastclose) -> bool:
    connection = subflow.connection
    return connection.mode is Mode.MPTCP and crypto.equal(option.receiver_key, connection.local_key.value)


def on_data(subflow: MptcpSubflow, position: int, pieces: list[Buffer], now_us: int) -> None:
    """In-order bytes of the subflow, the first at ``position``: brings each to its place in the data."""
    connection = subflow.connection
    for piece in pieces:
        rest = memoryview(piece)
        while len(rest):
            if connection.mode is Mode.PLAIN_TCP:
                connection.deliver(connection.receive_buffer.next_position, rest)
                position += len(rest)
                break
            entry = subflow.mappings.find(position)
            if entry is None or position == subflow.mappings.invalid_at:
                if not _on_unmapped_data(subflow, position, len(rest) < len(piece), now_us):
                    return
                continue
            length = entry.end - position
            if not _on_mapped(subflow, entry, position, rest[:length], now_us):
                return
            if len(rest) <= length:
                position += len(rest)
                break
            position += length
            rest = rest[length:]
    subflow.mappings.drop_before(position)
    connection.after_delivery(subflow, now_us)


def _on_unmapped_data(subflow: MptcpSubflow, position: int, is_overrun: bool, now_us: int) -> bool:
    """``is_overrun``: the bytes before it in its segment were mapped. False when the subflow was reset."""
    if position == subflow.mappings.invalid_at:
        return mapping_faults.on_invalid(subflow, now_us)
    if subflow.mappings.is_infinite_at(position):
        return mapping_faults.on_infinite_mapping(subflow, now_us)
    if is_overrun:
        return mapping_faults.on_overrun(subflow, now_us)
    return mapping_faults.on_missing(subflow, position, now_us)


def _on_mapped(
    subflow: MptcpSubflow, entry: ReceivedMapping, position: int, data: memoryview, now_us: int
) -> bool:
    """Delivers mapped bytes; those under a checksum only when it is complete and right (RFC 8684 §3.3.1)."""
    connection = subflow.connection
    mapping = entry.mapping
    subflow.mappings.latest_start = mapping.data_start
    if (mapping.checksum is not None) is not connection.checksum_enabled:
        # RFC 8684 §3.3.1: what the handshake agreed on holds for every mapping.
        if not mapping_faults.on_invalid(subflow, now_us):
            return False
        connection.deliver(connection.receive_buffer.next_position, data)
        return True
    if mapping.checksum is None:
        connection.deliver(mapping.data_start + position - mapping.subflow_start, data)
        return True
    pieces = entry.hold(data)
    if position + len(data) < entry.end:
        return True
    entry.held = None
    # 0 and 0xFFFF are the same number in ones' complement.
    if (data_checksum(connection.remote_sequence_base, mapping, pieces) - mapping.checksum) % 0xFFFF:
        return _on_bad_data(subflow, mapping, pieces, now_us)
    subflow.valid_checksum_seen = True
    _deliver(connection, mapping.data_start, pieces)
    return True


def _on_bad_data(subflow: MptcpSubflow, mapping: Mapping, pieces: Sequence[Buffer], now_us: int) -> bool:
    """Its checksum is wrong. False when the subflow was reset; else the stream goes on, with it, as TCP."""
    receive = subflow.connection.receive_buffer
    told_edge = receive.right_edge
    if not mapping_faults.on_bad_checksum(subflow, now_us):
        return False
    start = mapping.data_start
    if start + mapping.length > receive.next_position:
        # Else a probe of the window, whose byte we have: no new data, damaged or not.
        start = receive.next_position
    _deliver(subflow.connection, start, pieces)
    mapping_faults.on_bad_data_delivered(subflow, told_edge, now_us)
    return True


def _deliver(connection: Connection, start: int, pieces: Sequence[Buffer]) -> None:
    for piece in pieces:
        connection.deliver(start, piece)
        start += len(piece)
