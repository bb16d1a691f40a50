"""What the kernel tells of a connection's subflows: MPTCP_TCPINFO, MPTCP_SUBFLOW_ADDRS and TCP_INFO."""

from __future__ import annotations

import ctypes
import os
import socket
import struct

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.sockets.mptcp_options import (
    ADDRESSES_BYTES,
    MPTCP_SUBFLOW_ADDRS,
    MPTCP_TCPINFO,
    SOL_MPTCP,
)
from mptcp_stack.sockets.structures import SOCKADDR_STORAGE_BYTES, SUBFLOW_DATA, Address, unpack_sockaddr
from mptcp_stack.wire.addresses import format_address, unmap
from testbed.host.streams import SubflowTraffic

_MAXIMUM_SUBFLOWS = 64
_COUNTS_OFFSET = 120
"""Of tcpi_bytes_acked and tcpi_bytes_received in ``struct tcp_info``."""
_COUNTS = struct.Struct("=2Q")
_COUNTS_END = _COUNTS_OFFSET + _COUNTS.size

_libc = ctypes.CDLL(None, use_errno=True)


def mptcp_subflows(connection: socket.socket) -> list[SubflowTraffic]:
    """Of an MPTCP connection; empty where the kernel does not tell."""
    try:
        infos = _read_array(connection, MPTCP_TCPINFO, _COUNTS_END)
        addresses = _read_array(connection, MPTCP_SUBFLOW_ADDRS, ADDRESSES_BYTES)
        return [
            _traffic(info, _text_of(ends[:SOCKADDR_STORAGE_BYTES]), _text_of(ends[SOCKADDR_STORAGE_BYTES:]))
            for info, ends in zip(infos, addresses, strict=False)
        ]
    except (OSError, ConfigurationError):
        return []


def plain_subflow(connection: socket.socket, local: str, remote: str) -> list[SubflowTraffic]:
    """Of plain TCP: itself."""
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _COUNTS_END)
    except OSError:
        return []
    return [_traffic(info, local, remote)] if len(info) == _COUNTS_END else []


def _traffic(info: bytes, local: str, remote: str) -> SubflowTraffic:
    acknowledged, received = _COUNTS.unpack_from(info, _COUNTS_OFFSET)
    return SubflowTraffic(local, remote, acknowledged, received)


def _text_of(data: bytes) -> str:
    address: Address
    address, _ = unpack_sockaddr(data)
    return f"{format_address(unmap(address[0]))} {address[1]}"


def _read_array(connection: socket.socket, option: int, element_bytes: int) -> list[bytes]:
    """The elements behind ``struct mptcp_subflow_data``, which asks and answers. Raises OSError."""
    size = SUBFLOW_DATA.size + _MAXIMUM_SUBFLOWS * element_bytes
    request = SUBFLOW_DATA.pack(SUBFLOW_DATA.size, 0, 0, element_bytes)
    buffer = ctypes.create_string_buffer(request, size)
    length = ctypes.c_uint32(size)
    # Python's own getsockopt gives the kernel a buffer without a request in it
    if _libc.getsockopt(connection.fileno(), SOL_MPTCP, option, buffer, ctypes.byref(length)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    _, subflows, _, _ = SUBFLOW_DATA.unpack_from(buffer.raw)
    data = buffer.raw[SUBFLOW_DATA.size :]
    return [
        data[number * element_bytes : (number + 1) * element_bytes]
        for number in range(min(subflows, _MAXIMUM_SUBFLOWS))
    ]
