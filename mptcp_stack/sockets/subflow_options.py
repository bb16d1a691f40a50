"""Options that control single subflows: draft-hesmans-mptcp-socket-03 §3, with its numbers and structures.

Where the draft's structures hold pointers, the bytes they point at follow in the same buffer here.
"""

from __future__ import annotations

import struct
from errno import EADDRNOTAVAIL, EINVAL, ENOENT, ENOTCONN, EOPNOTSUPP
from typing import TYPE_CHECKING

from mptcp_stack.mptcp.states import Mode
from mptcp_stack.sockets.common_options import get_common, set_common
from mptcp_stack.sockets.structures import pack_sockaddr, unpack_sockaddr
from mptcp_stack.sockets.tcp_info import pack_tcp_info, tcp_info

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.mptcp.subflow import MptcpSubflow

MPTCP_GET_SUB_IDS, MPTCP_CLOSE_SUB_ID, MPTCP_GET_SUB_TUPLE, MPTCP_OPEN_SUB_TUPLE = 66, 67, 68, 69
MPTCP_SUB_GETSOCKOPT, MPTCP_SUB_SETSOCKOPT = 71, 72
READABLE = frozenset({MPTCP_GET_SUB_IDS, MPTCP_GET_SUB_TUPLE, MPTCP_SUB_GETSOCKOPT})
WRITABLE = frozenset({MPTCP_CLOSE_SUB_ID, MPTCP_OPEN_SUB_TUPLE, MPTCP_SUB_SETSOCKOPT})

SUB_STATUS = struct.Struct("=BxH")
"""``struct mptcp_sub_status``: the id, then one bit each."""
INITIAL, FULLY_ESTABLISHED, ATTACHED, LOW_PRIORITY = 1, 2, 4, 8
SUB_TUPLE_HEAD = struct.Struct("=BB")
"""Id and priority (1: backup), then the local and the remote sockaddr."""
SUB_OPTION_HEAD = struct.Struct("=B3xiiI")
"""Id, level, option name and the length of the value that follows."""
_TCP_LEVEL, _TCP_INFO_OPTION = 6, 11


def get(connection: Connection, option: int, request: bytes) -> bytes:
    """Raises OSError: EOPNOTSUPP on plain TCP, ENOENT for an id that is no subflow's, EINVAL."""
    _require_mptcp(connection)
    if option == MPTCP_GET_SUB_IDS:
        statuses = [SUB_STATUS.pack(each.identifier & 0xFF, _status(each)) for each in connection.subflows]
        return bytes((len(statuses), 0)) + b"".join(statuses)
    if option == MPTCP_GET_SUB_TUPLE:
        return _tuple_of(_subflow(connection, request[:1]))
    identifier, level, name, length = _unpack(SUB_OPTION_HEAD, request)
    subflow = _subflow(connection, bytes((identifier,)))
    return _get_on_subflow(connection, subflow, level, name, length)


def _get_on_subflow(
    connection: Connection, subflow: MptcpSubflow, level: int, name: int, length: int
) -> bytes:
    if (level, name) == (_TCP_LEVEL, _TCP_INFO_OPTION):
        return pack_tcp_info(tcp_info(subflow, connection.send_buffer.unsent.length))[:length]
    return get_common(subflow.socket_options, subflow.environment.settings, level, name, length)


def set_on(connection: Connection, option: int, value: bytes) -> bytes:
    """MPTCP_OPEN_SUB_TUPLE answers with the tuple that came to be. Raises OSError as ``get`` does."""
    _require_mptcp(connection)
    if option == MPTCP_OPEN_SUB_TUPLE:
        return _open(connection, value)
    if option == MPTCP_CLOSE_SUB_ID:
        _subflow(connection, value[:1]).close()
        return b""
    identifier, level, name, length = _unpack(SUB_OPTION_HEAD, value)
    subflow = _subflow(connection, bytes((identifier,)))
    nested = value[SUB_OPTION_HEAD.size : SUB_OPTION_HEAD.size + length]
    subflow.take_socket_options(
        set_common(subflow.socket_options, subflow.environment.settings, level, name, nested)
    )
    connection.request_output()
    return b""


def _open(connection: Connection, value: bytes) -> bytes:
    """A subflow between two given ends; port 0 of the local one takes any."""
    _, priority = _unpack(SUB_TUPLE_HEAD, value)
    local, used = unpack_sockaddr(value[SUB_TUPLE_HEAD.size :])
    remote, _ = unpack_sockaddr(value[SUB_TUPLE_HEAD.size + used :])
    if len(local[0]) != len(remote[0]) or not remote[1]:
        raise OSError(EINVAL, "a subflow has two ends of one family, the remote one with a port")
    if not connection.is_open_for_joins:
        raise OSError(ENOTCONN, "the connection takes no subflows now")
    if not connection.environment.ip.is_local(local[0]):
        raise OSError(EADDRNOTAVAIL, "no interface has this address")
    port = local[1] or connection.host.free_local_port(local[0], *remote)
    if not port or (local[0], port, *remote) in connection.environment.subflows:
        raise OSError(EADDRNOTAVAIL, "no local port is free")
    local_id = connection.path_manager.local_id_for(connection, local[0])
    remote_id = next((each.remote_id for each in connection.subflows if each.remote == remote[0]), 0)
    return _tuple_of(
        connection.open_join((local[0], port), local_id, remote, remote_id, backup=bool(priority))
    )


def _require_mptcp(connection: Connection) -> None:
    if connection.mode is not Mode.MPTCP:
        raise OSError(EOPNOTSUPP, "the connection is plain TCP, or not established")


def _subflow(connection: Connection, identifier: bytes) -> MptcpSubflow:
    if not identifier:
        raise OSError(EINVAL, "expected the id of a subflow")
    for subflow in connection.subflows:
        if subflow.identifier & 0xFF == identifier[0]:
            return subflow
    raise OSError(ENOENT, f"there is no subflow {identifier[0]}")


def _status(subflow: MptcpSubflow) -> int:
    return (
        (0 if subflow.is_join else INITIAL)
        | (FULLY_ESTABLISHED if subflow.is_confirmed else 0)
        | (ATTACHED if subflow.was_established else 0)
        | (LOW_PRIORITY if subflow.counts_as_backup else 0)
    )


def _tuple_of(subflow: MptcpSubflow) -> bytes:
    head = SUB_TUPLE_HEAD.pack(subflow.identifier & 0xFF, subflow.counts_as_backup)
    local, remote = (subflow.local, subflow.local_port), (subflow.remote, subflow.remote_port)
    return head + pack_sockaddr(local) + pack_sockaddr(remote)


def _unpack(form: struct.Struct, data: bytes) -> tuple[int, ...]:
    if len(data) < form.size:
        raise OSError(EINVAL, f"expected at least {form.size} bytes, got {len(data)}")
    return form.unpack_from(data)
