"""The socket options of SOL_MPTCP (linux/mptcp.h), which can only be read."""

from __future__ import annotations

import struct
from errno import EINVAL, EOPNOTSUPP
from typing import TYPE_CHECKING

from mptcp_stack.mptcp.states import Mode
from mptcp_stack.sockets import structures
from mptcp_stack.sockets.structures import FULL_INFO_HEAD, SUBFLOW_DATA, SUBFLOW_IDENTIFIER, MptcpInfo
from mptcp_stack.sockets.tcp_info import TCP_INFO_BYTES, pack_tcp_info, tcp_info

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.mptcp.subflow import MptcpSubflow

SOL_MPTCP = 284
MPTCP_INFO, MPTCP_TCPINFO, MPTCP_SUBFLOW_ADDRS, MPTCP_FULL_INFO = 1, 2, 3, 4
ADDRESSES_BYTES = 2 * structures.SOCKADDR_STORAGE_BYTES
SUBFLOW_INFO_BYTES = SUBFLOW_IDENTIFIER.size + ADDRESSES_BYTES
_BYTE_LIMIT = 255


def get(connection: Connection, option: int, length: int, request: bytes) -> bytes:
    """Raises OSError: EOPNOTSUPP after a fallback and for an unknown option, EINVAL for a bad header."""
    if not connection.is_mptcp:
        raise OSError(EOPNOTSUPP, "the connection is plain TCP")
    if option == MPTCP_INFO:
        return mptcp_info(connection).pack()[:length]
    if option == MPTCP_TCPINFO:
        return _get_array([_tcp_info(connection, each) for each in connection.subflows], length, request)
    if option == MPTCP_SUBFLOW_ADDRS:
        return _get_array([_addresses(each) for each in connection.subflows], length, request)
    if option == MPTCP_FULL_INFO:
        return _get_full_info(connection, length, request)
    raise OSError(EOPNOTSUPP, f"SOL_MPTCP has no option {option}")


def mptcp_info(connection: Connection) -> MptcpInfo:
    """What the kernel tells of an MPTCP connection; sequence numbers are those of the wire, not cut."""
    counts = connection.path_manager.counts(connection)
    send, receive = connection.send_buffer, connection.receive_buffer
    now_us = connection.environment.timers.clock_us
    flags = structures.FLAG_REMOTE_KEY_RECEIVED if connection.remote_key is not None else 0
    if connection.mode is Mode.PLAIN_TCP:
        flags |= structures.FLAG_FALLBACK
    return MptcpInfo(
        subflows=min(counts.extra_subflows, _BYTE_LIMIT),
        add_addr_signal=counts.add_addr_signal,
        add_addr_accepted=counts.add_addr_accepted,
        subflows_max=counts.extra_subflows_limit,
        add_addr_signal_max=counts.signal_endpoints,
        add_addr_accepted_max=counts.add_addr_accepted_limit,
        flags=flags,
        token=connection.local_key.token,
        write_seq=connection.wire_sequence(send.nxt + send.unsent.length),
        snd_una=connection.wire_sequence(send.una),
        rcv_nxt=connection.wire_data_ack() if connection.remote_key is not None else 0,
        local_addr_used=counts.local_addr_used,
        local_addr_max=counts.subflow_endpoints,
        csum_enabled=int(connection.checksum_enabled),
        retransmits=connection.data_retransmissions,
        bytes_retrans=connection.retransmitted_bytes,
        bytes_sent=send.nxt - 1,
        bytes_received=receive.next_position - 1 - receive.fin_was_taken,
        bytes_acked=send.una - 1,
        subflows_total=min(len(connection.subflows), _BYTE_LIMIT),
        endp_laminar_max=counts.laminar_endpoints,
        endp_fullmesh_max=counts.fullmesh_endpoints,
        last_data_sent_ms=(now_us - connection.last_data_sent_us) // 1000,
        last_data_recv_ms=(now_us - connection.last_data_received_us) // 1000,
        last_ack_recv_ms=(now_us - connection.last_ack_received_us) // 1000,
    )


def _tcp_info(connection: Connection, subflow: MptcpSubflow) -> bytes:
    return pack_tcp_info(tcp_info(subflow, connection.send_buffer.unsent.length))


def _addresses(subflow: MptcpSubflow) -> bytes:
    return structures.pack_subflow_addresses(
        (subflow.local, subflow.local_port), (subflow.remote, subflow.remote_port)
    )


def _get_array(elements: list[bytes], length: int, request: bytes) -> bytes:
    """``struct mptcp_subflow_data`` and behind it the elements that fit, each at the user's size."""
    own_size = len(elements[0]) if elements else ADDRESSES_BYTES
    header_size, subflows, kernel_size, user_size = _unpack(
        SUBFLOW_DATA, request or SUBFLOW_DATA.pack(SUBFLOW_DATA.size, 0, 0, own_size)
    )
    if header_size < SUBFLOW_DATA.size or subflows or kernel_size or not user_size:
        raise OSError(
            EINVAL,
            "mptcp_subflow_data: expected its own size, 0 subflows, size_kernel 0 and the size of an element",
        )
    if length < header_size:
        raise OSError(EINVAL, f"a buffer of {length} bytes does not hold the header")
    kept = min(user_size, own_size)
    room = (length - header_size) // kept
    header = SUBFLOW_DATA.pack(header_size, len(elements), own_size, kept).ljust(header_size, b"\0")
    return header + b"".join(element[:kept] for element in elements[:room])


def _get_full_info(connection: Connection, length: int, request: bytes) -> bytes:
    """``struct mptcp_full_info``, then the two arrays; its two pointers are offsets from its start here.

    ``size_arrays_user`` bounds the elements in both, as in the kernel; without a request all are given.
    """
    infos = [
        SUBFLOW_IDENTIFIER.pack(subflow.identifier) + _addresses(subflow) for subflow in connection.subflows
    ]
    tcp_infos = [_tcp_info(connection, subflow) for subflow in connection.subflows]
    default = FULL_INFO_HEAD.pack(0, TCP_INFO_BYTES, 0, SUBFLOW_INFO_BYTES, 0, len(infos), 0, 0)
    head = _unpack(FULL_INFO_HEAD, request or default)
    tcp_kernel, tcp_user, info_kernel, info_user, subflows, arrays = head[:6]
    if tcp_kernel or info_kernel or subflows:
        raise OSError(
            EINVAL, "mptcp_full_info: size_tcpinfo_kernel, size_sfinfo_kernel and num_subflows must be 0"
        )
    tcp_kept, info_kept = min(tcp_user, TCP_INFO_BYTES), min(info_user, SUBFLOW_INFO_BYTES)
    info_offset = FULL_INFO_HEAD.size + structures.MPTCP_INFO.size
    count = min(arrays, len(infos))
    tcp_offset = info_offset + count * info_kept
    packed = FULL_INFO_HEAD.pack(
        TCP_INFO_BYTES, tcp_kept, SUBFLOW_INFO_BYTES, info_kept, len(infos), count, info_offset, tcp_offset
    )
    arrays_packed = b"".join(info[:info_kept] for info in infos[:count]) + b"".join(
        info[:tcp_kept] for info in tcp_infos[:count]
    )
    return (packed + mptcp_info(connection).pack() + arrays_packed)[:length]


def _unpack(form: struct.Struct, request: bytes) -> tuple[int, ...]:
    if len(request) < form.size:
        raise OSError(EINVAL, f"expected a request of {form.size} bytes, got {len(request)}")
    return form.unpack_from(request)
