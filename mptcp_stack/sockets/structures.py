"""The structures of linux/mptcp.h and of sockaddr, packed as the kernel lays them out on 64-bit machines."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from errno import EAFNOSUPPORT, EINVAL
from typing import Self

AF_INET, AF_INET6 = 2, 10
SOCKADDR_STORAGE_BYTES = 128
_SOCKADDR_IN = struct.Struct("=H2s4s8x")
_SOCKADDR_IN6 = struct.Struct("=H2s4x16s4x")

MPTCP_INFO = struct.Struct("=6B2xII3Q3BxI4Q3BxIII")
SUBFLOW_DATA = struct.Struct("=4I")
"""``struct mptcp_subflow_data``: its own size, subflows, an element's size here, the same for the user."""
FULL_INFO_HEAD = struct.Struct("=6I2Q")
SUBFLOW_IDENTIFIER = struct.Struct("=I4x")

FLAG_FALLBACK, FLAG_REMOTE_KEY_RECEIVED = 1, 2

Address = tuple[bytes, int]
"""Packed address and port."""


def pack_sockaddr(address: Address) -> bytes:
    """``sockaddr_in`` (16 bytes) or ``sockaddr_in6`` (28 bytes)."""
    packed, port = address
    if len(packed) == 4:
        return _SOCKADDR_IN.pack(AF_INET, port.to_bytes(2, "big"), packed)
    return _SOCKADDR_IN6.pack(AF_INET6, port.to_bytes(2, "big"), packed)


def unpack_sockaddr(data: bytes) -> tuple[Address, int]:
    """The address and how many bytes it took. Raises OSError (EINVAL, EAFNOSUPPORT)."""
    if len(data) < 2:
        raise OSError(EINVAL, "a sockaddr has at least a family")
    family = int.from_bytes(data[:2], "little" if struct.pack("=H", 1) == b"\x01\x00" else "big")
    form = {AF_INET: _SOCKADDR_IN, AF_INET6: _SOCKADDR_IN6}.get(family)
    if form is None:
        raise OSError(EAFNOSUPPORT, f"address family {family}: expected AF_INET or AF_INET6")
    if len(data) < form.size:
        raise OSError(EINVAL, f"a sockaddr of family {family} has {form.size} bytes, got {len(data)}")
    _, port, packed = form.unpack_from(data)
    return (packed, int.from_bytes(port, "big")), form.size


def pack_subflow_addresses(local: Address, remote: Address) -> bytes:
    """``struct mptcp_subflow_addrs``: two sockaddr_storage."""
    return b"".join(pack_sockaddr(end).ljust(SOCKADDR_STORAGE_BYTES, b"\0") for end in (local, remote))


@dataclass(frozen=True, slots=True)
class MptcpInfo:
    """``struct mptcp_info``, 96 bytes. ``subflows`` are the extra ones, ``subflows_total`` all."""

    subflows: int
    add_addr_signal: int
    add_addr_accepted: int
    subflows_max: int
    add_addr_signal_max: int
    add_addr_accepted_max: int
    flags: int
    token: int
    write_seq: int
    snd_una: int
    rcv_nxt: int
    local_addr_used: int
    local_addr_max: int
    csum_enabled: int
    retransmits: int
    bytes_retrans: int
    bytes_sent: int
    bytes_received: int
    bytes_acked: int
    subflows_total: int
    endp_laminar_max: int
    endp_fullmesh_max: int
    last_data_sent_ms: int
    last_data_recv_ms: int
    last_ack_recv_ms: int

    def pack(self) -> bytes:
        return MPTCP_INFO.pack(*(getattr(self, name) for name in self.__slots__))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Raises struct.error when there are fewer than 96 bytes."""
        return cls(*MPTCP_INFO.unpack_from(data))
