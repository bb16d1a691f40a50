"""Socket addresses of system calls on the bundled stack: a script's form, and the stack's."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from errno import EAFNOSUPPORT, EINVAL

from mptcp_stack.wire.addresses import is_unspecified, unmap, v4_mapped
from testbed.packetdrill.stack_under_test import Value

SOCKET_ADDRESS_BYTES: Mapping[int, int] = {int(socket.AF_INET): 16, int(socket.AF_INET6): 28}

AddressAndPort = tuple[bytes, int]


def read_socket_address(value: Value, default: AddressAndPort, domain: int) -> AddressAndPort:
    """The packed address and the port that a call names; ``...``, as a whole or in part, is the default.

    Raises OSError as the kernel would for an address of another family, ValueError for what is none.
    """
    if value is None:
        return default
    if not isinstance(value, dict):
        raise ValueError("expected a socket address, {sa_family=…, …} or ...")
    family = value.get("sa_family", value.get("sin_family", value.get("sin6_family")))
    if family is None:
        family = domain
    if family not in SOCKET_ADDRESS_BYTES:
        raise OSError(EAFNOSUPPORT, "address family")
    if family == socket.AF_INET6 and domain == socket.AF_INET:
        raise OSError(EINVAL, "an IPv6 address for an IPv4 socket")
    prefix = "sin" if family == socket.AF_INET else "sin6"
    port = value.get(f"{prefix}_port")
    address = _packed(value.get(f"{prefix}_addr"), 4 if family == socket.AF_INET else 16)
    if port is not None and not isinstance(port, int):
        raise ValueError(f"{prefix}_port: expected a number")
    if address is None:
        address = default[0]
    return address, default[1] if port is None else port


def is_unspecified_family(value: Value) -> bool:
    """What connect(2) takes as the wish to disconnect: AF_UNSPEC."""
    return isinstance(value, dict) and value.get("sa_family") == socket.AF_UNSPEC


def _packed(value: Value, length: int) -> bytes | None:
    """A packed address; numbers, such as INADDR_ANY, are in host order."""
    if value is None:
        return None
    if isinstance(value, int) and 0 <= value < 1 << 8 * length:
        return value.to_bytes(length, "big")
    if isinstance(value, bytes) and len(value) in (4, 16):
        return v4_mapped(value) if len(value) < length else value
    raise ValueError("expected an address")


def socket_address_value(domain: int, address: bytes, port: int) -> dict[str, Value]:
    """As a call gives it back; an IPv6 socket sees IPv4 peers as mapped addresses."""
    if domain == socket.AF_INET:
        return {"sa_family": int(socket.AF_INET), "sin_port": port, "sin_addr": address}
    shown = v4_mapped(address) if len(address) == 4 else address
    return {"sa_family": int(socket.AF_INET6), "sin6_port": port, "sin6_addr": shown}


def listening_address(domain: int, address: bytes | None) -> bytes | None:
    """What `Stack.listen` takes: an IPv6 socket for an IPv4-mapped address takes any address here."""
    if address is None or (domain == socket.AF_INET6 and is_unspecified(address)):
        return None
    if domain == socket.AF_INET6 and len(unmap(address)) == 4:
        return None
    return address
