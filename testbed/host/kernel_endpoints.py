"""The endpoints and limits of the kernel's MPTCP path manager: what ``ip mptcp`` does."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag

from testbed.host.path_netlink import (
    ADDRESS4,
    ADDRESS6,
    FLAGS,
    IDENTIFIER,
    INTERFACE,
    PORT,
    PathManagerError,
    PathManagerSocket,
    attribute,
    attributes_of,
    byte,
    encode_address,
    nested,
    pack_address,
    unsigned,
)
from testbed.host.protocol import EndpointRequest

_COMMAND_ADD, _COMMAND_DELETE, _COMMAND_GET, _COMMAND_FLUSH = 1, 2, 3, 4
_COMMAND_SET_LIMITS, _COMMAND_GET_LIMITS, _COMMAND_SET_FLAGS = 5, 6, 7
_ATTRIBUTE_ADDRESS, _ATTRIBUTE_ACCEPTED, _ATTRIBUTE_SUBFLOWS = 1, 2, 3


class EndpointFlags(IntFlag):
    SIGNAL = 1
    SUBFLOW = 2
    BACKUP = 4
    FULLMESH = 8
    IMPLICIT = 16
    LAMINAR = 32


@dataclass(frozen=True, slots=True)
class PathManagerLimits:
    subflows: int
    add_addr_accepted: int


def parse_flags(names: tuple[str, ...]) -> EndpointFlags:
    """``("signal", "backup")`` → flags. Raises PathManagerError for an unknown word."""
    flags = EndpointFlags(0)
    for name in names:
        try:
            flags |= EndpointFlags[name.upper()]
        except KeyError:
            known = ", ".join(flag.name.lower() for flag in EndpointFlags if flag.name)
            raise PathManagerError(f"unknown endpoint flag {name!r}: the flags are {known}") from None
    return flags


class KernelPathManager(PathManagerSocket):
    """A client for the path manager of the network namespace in which it is created."""

    def __enter__(self) -> KernelPathManager:
        return self

    def add_endpoint(self, endpoint: EndpointRequest) -> int:
        """Returns the endpoint's identifier. Raises PathManagerError."""
        flags = parse_flags(endpoint.flags)
        body = _encode_endpoint(endpoint, flags)
        self.request(_COMMAND_ADD, nested(_ATTRIBUTE_ADDRESS, body))
        if endpoint.identifier:
            return endpoint.identifier
        wanted = pack_address(endpoint.address)
        for existing in self.endpoints():
            if pack_address(existing.address) == wanted and existing.port == endpoint.port:
                return existing.identifier or 0
        raise PathManagerError(f"{endpoint.address}: the kernel took the endpoint but does not list it")

    def delete_endpoint(self, identifier: int, address: str | None = None) -> None:
        """Identifier 0 is the address of the initial subflow, and needs ``address``."""
        body = attribute(IDENTIFIER, byte(identifier, "identifier"))
        if address is not None:
            body += encode_address(address)
        elif identifier == 0:
            raise PathManagerError("deleting identifier 0 needs the address of the initial subflow")
        self.request(_COMMAND_DELETE, nested(_ATTRIBUTE_ADDRESS, body))

    def flush_endpoints(self) -> None:
        self.request(_COMMAND_FLUSH, b"")

    def endpoints(self) -> list[EndpointRequest]:
        """All endpoints, those included that the kernel made by itself (flag "implicit")."""
        found = []
        for attributes in self.request(_COMMAND_GET, b"", dump=True):
            if _ATTRIBUTE_ADDRESS in attributes:
                found.append(_decode_endpoint(dict(attributes_of(attributes[_ATTRIBUTE_ADDRESS]))))
        return found

    def set_flags(
        self, flags: tuple[str, ...], *, identifier: int | None, address: str | None = None
    ) -> None:
        """Change "backup" and "fullmesh" of an endpoint, named by identifier or by address.

        A flag that is not given is taken away. Raises PathManagerError.
        """
        if not identifier and address is None:
            raise PathManagerError("changing flags needs an identifier or an address")
        body = attribute(FLAGS, struct.pack("=I", parse_flags(flags)))
        if identifier:
            body += attribute(IDENTIFIER, byte(identifier, "identifier"))
        if address is not None:
            body += encode_address(address)
        self.request(_COMMAND_SET_FLAGS, nested(_ATTRIBUTE_ADDRESS, body))

    def limits(self) -> PathManagerLimits:
        (attributes,) = self.request(_COMMAND_GET_LIMITS, b"")
        return PathManagerLimits(
            subflows=unsigned(attributes[_ATTRIBUTE_SUBFLOWS]),
            add_addr_accepted=unsigned(attributes[_ATTRIBUTE_ACCEPTED]),
        )

    def set_limits(self, limits: PathManagerLimits) -> None:
        """Raises PathManagerError, for instance above the kernel's maximum (8 on Linux 6.18)."""
        for name, value in (("subflows", limits.subflows), ("add_addr_accepted", limits.add_addr_accepted)):
            if not 0 <= value < 1 << 32:
                raise PathManagerError(f"limit {name}: {value} is not in 0 to 4294967295")
        body = attribute(_ATTRIBUTE_ACCEPTED, struct.pack("=I", limits.add_addr_accepted))
        body += attribute(_ATTRIBUTE_SUBFLOWS, struct.pack("=I", limits.subflows))
        self.request(_COMMAND_SET_LIMITS, body)


def _encode_endpoint(endpoint: EndpointRequest, flags: EndpointFlags) -> bytes:
    body = encode_address(endpoint.address) + attribute(FLAGS, struct.pack("=I", flags))
    if endpoint.identifier is not None:
        body += attribute(IDENTIFIER, byte(endpoint.identifier, "identifier"))
    if endpoint.port is not None:
        if not 0 < endpoint.port <= 0xFFFF:
            raise PathManagerError(f"port: {endpoint.port} is not in 1 to 65535")
        body += attribute(PORT, struct.pack("=H", endpoint.port))
    if endpoint.interface is not None:
        try:
            index = socket.if_nametoindex(endpoint.interface)
        except OSError:
            raise PathManagerError(f"no interface {endpoint.interface!r}") from None
        body += attribute(INTERFACE, struct.pack("=i", index))
    return body


def _decode_endpoint(attributes: Mapping[int, bytes]) -> EndpointRequest:
    packed = attributes.get(ADDRESS4) or attributes.get(ADDRESS6) or bytes(4)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    flags = EndpointFlags(unsigned(attributes.get(FLAGS, b"")))
    index = unsigned(attributes.get(INTERFACE, b""))
    return EndpointRequest(
        address=socket.inet_ntop(family, packed),
        flags=tuple(flag.name.lower() for flag in EndpointFlags if flag in flags and flag.name),
        interface=_interface_name(index) if index else None,
        identifier=unsigned(attributes.get(IDENTIFIER, b"")),
        port=unsigned(attributes.get(PORT, b"")) or None,
    )


def _interface_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        # Interfaces may vanish while endpoints on them remain.
        return f"if{index}"
