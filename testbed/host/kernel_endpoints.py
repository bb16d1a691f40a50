"""The kernel's MPTCP path manager over generic netlink (family ``mptcp_pm``): what ``ip mptcp`` does.

Spoken directly: it is a handful of messages, while a netlink library would cost every agent its memory and
lacks most of these commands. Layouts: linux/mptcp_pm.h, linux/genetlink.h, linux/netlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntFlag
from types import TracebackType

from testbed.host.protocol import EndpointRequest

_NETLINK_GENERIC = 16
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11

_NLM_F_REQUEST, _NLM_F_ACK = 0x1, 0x4
_NLM_F_DUMP = 0x300
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLMSGERR_ATTR_MSG = 1
_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF

_GENL_ID_CTRL = 16
_CTRL_CMD_GETFAMILY = 3
_CTRL_ATTR_FAMILY_ID, _CTRL_ATTR_FAMILY_NAME = 1, 2

_COMMAND_ADD, _COMMAND_DELETE, _COMMAND_GET, _COMMAND_FLUSH = 1, 2, 3, 4
_COMMAND_SET_LIMITS, _COMMAND_GET_LIMITS, _COMMAND_SET_FLAGS = 5, 6, 7
_ATTRIBUTE_ADDRESS, _ATTRIBUTE_ACCEPTED, _ATTRIBUTE_SUBFLOWS = 1, 2, 3
_FAMILY, _IDENTIFIER, _ADDRESS4, _ADDRESS6, _PORT, _FLAGS, _INTERFACE = 1, 2, 3, 4, 5, 6, 7

_MESSAGE = struct.Struct("=IHHII")
_GENERIC = struct.Struct("=BBxx")
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE_BYTES = 1 << 17


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


class PathManagerError(Exception):
    """The kernel refused: the errno's name and, where it gave one, its own explanation."""


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


class KernelPathManager:
    """A client for the path manager of the network namespace in which it is created."""

    def __init__(self) -> None:
        """Raises PathManagerError when the kernel has no MPTCP."""
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_GENERIC
        )
        self._sequence = 0
        try:
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            self._socket.settimeout(10)
            self._socket.bind((0, 0))
            self._family = self._find_family()
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> KernelPathManager:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add_endpoint(self, endpoint: EndpointRequest) -> int:
        """Returns the endpoint's identifier. Raises PathManagerError."""
        flags = parse_flags(endpoint.flags)
        body = _encode_endpoint(endpoint, flags)
        self._request(_COMMAND_ADD, _nested(_ATTRIBUTE_ADDRESS, body))
        if endpoint.identifier:
            return endpoint.identifier
        wanted = _pack_address(endpoint.address)
        for existing in self.endpoints():
            if _pack_address(existing.address) == wanted and existing.port == endpoint.port:
                return existing.identifier or 0
        raise PathManagerError(f"{endpoint.address}: the kernel took the endpoint but does not list it")

    def delete_endpoint(self, identifier: int, address: str | None = None) -> None:
        """Identifier 0 is the address of the initial subflow, and needs ``address``."""
        body = _attribute(_IDENTIFIER, _byte(identifier, "identifier"))
        if address is not None:
            body += _encode_address(address)
        elif identifier == 0:
            raise PathManagerError("deleting identifier 0 needs the address of the initial subflow")
        self._request(_COMMAND_DELETE, _nested(_ATTRIBUTE_ADDRESS, body))

    def flush_endpoints(self) -> None:
        self._request(_COMMAND_FLUSH, b"")

    def endpoints(self) -> list[EndpointRequest]:
        """All endpoints, those included that the kernel made by itself (flag "implicit")."""
        found = []
        for attributes in self._request(_COMMAND_GET, b"", dump=True):
            if _ATTRIBUTE_ADDRESS in attributes:
                found.append(_decode_endpoint(dict(_attributes(attributes[_ATTRIBUTE_ADDRESS]))))
        return found

    def set_flags(
        self, flags: tuple[str, ...], *, identifier: int | None, address: str | None = None
    ) -> None:
        """Change "backup" and "fullmesh" of an endpoint, named by identifier or by address.

        A flag that is not given is taken away. Raises PathManagerError.
        """
        if not identifier and address is None:
            raise PathManagerError("changing flags needs an identifier or an address")
        body = _attribute(_FLAGS, struct.pack("=I", parse_flags(flags)))
        if identifier:
            body += _attribute(_IDENTIFIER, _byte(identifier, "identifier"))
        if address is not None:
            body += _encode_address(address)
        self._request(_COMMAND_SET_FLAGS, _nested(_ATTRIBUTE_ADDRESS, body))

    def limits(self) -> PathManagerLimits:
        (attributes,) = self._request(_COMMAND_GET_LIMITS, b"")
        return PathManagerLimits(
            subflows=_unsigned(attributes[_ATTRIBUTE_SUBFLOWS]),
            add_addr_accepted=_unsigned(attributes[_ATTRIBUTE_ACCEPTED]),
        )

    def set_limits(self, limits: PathManagerLimits) -> None:
        """Raises PathManagerError, for instance above the kernel's maximum (8 on Linux 6.18)."""
        for name, value in (("subflows", limits.subflows), ("add_addr_accepted", limits.add_addr_accepted)):
            if not 0 <= value < 1 << 32:
                raise PathManagerError(f"limit {name}: {value} is not in 0 to 4294967295")
        body = _attribute(_ATTRIBUTE_ACCEPTED, struct.pack("=I", limits.add_addr_accepted))
        body += _attribute(_ATTRIBUTE_SUBFLOWS, struct.pack("=I", limits.subflows))
        self._request(_COMMAND_SET_LIMITS, body)

    def _find_family(self) -> int:
        name = _attribute(_CTRL_ATTR_FAMILY_NAME, b"mptcp_pm\0")
        try:
            answers = self._exchange(_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, name, dump=False)
        except PathManagerError as error:
            raise PathManagerError(f"this kernel has no MPTCP path manager: {error}") from None
        return _unsigned(answers[0][_CTRL_ATTR_FAMILY_ID])

    def _request(self, command: int, body: bytes, *, dump: bool = False) -> list[dict[int, bytes]]:
        return self._exchange(self._family, command, body, dump=dump)

    def _exchange(self, family: int, command: int, body: bytes, *, dump: bool) -> list[dict[int, bytes]]:
        self._sequence += 1
        flags = _NLM_F_REQUEST | (_NLM_F_DUMP if dump else _NLM_F_ACK)
        payload = _GENERIC.pack(command, 1) + body
        header = _MESSAGE.pack(_MESSAGE.size + len(payload), family, flags, self._sequence, 0)
        try:
            self._socket.send(header + payload)
            return list(self._answers())
        except OSError as error:
            raise PathManagerError(f"netlink: {_name_errno(error.errno or 0)}") from None

    def _answers(self) -> Iterator[dict[int, bytes]]:
        """The answers to the last request. Ends at its acknowledgement, raises at its error."""
        while True:
            data = self._socket.recv(_RECEIVE_BYTES)
            for kind, flags, sequence, content in _messages(data):
                if sequence != self._sequence:
                    continue
                if kind == _NLMSG_ERROR:
                    _raise_unless_acknowledgement(flags, content)
                    return
                if kind == _NLMSG_DONE:
                    return
                yield dict(_attributes(content[_GENERIC.size :]))


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    offset = 0
    while offset + _MESSAGE.size <= len(data):
        length, kind, flags, sequence, _ = _MESSAGE.unpack_from(data, offset)
        if length < _MESSAGE.size:
            return
        yield kind, flags, sequence, data[offset + _MESSAGE.size : offset + length]
        offset += (length + 3) & ~3


def _raise_unless_acknowledgement(flags: int, content: bytes) -> None:
    (code,) = struct.unpack_from("=i", content)
    if code == 0:
        return
    explanation = ""
    if flags & _NLM_F_ACK_TLVS:
        # After the code stands the request that failed: its header, and without the "capped" flag all of it.
        (request_length,) = struct.unpack_from("=I", content, 4)
        skip = 4 + (_MESSAGE.size if flags & _NLM_F_CAPPED else (request_length + 3) & ~3)
        text = dict(_attributes(content[skip:])).get(_NLMSGERR_ATTR_MSG, b"")
        explanation = text.rstrip(b"\0").decode(errors="replace")
    name = _name_errno(-code)
    raise PathManagerError(f"{name}: {explanation}" if explanation else f"{name} ({os.strerror(-code)})")


def _name_errno(number: int) -> str:
    return errno.errorcode.get(number, f"errno {number}")


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def _nested(kind: int, body: bytes) -> bytes:
    return _attribute(kind | _NLA_F_NESTED, body)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _NLA_TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def _unsigned(value: bytes) -> int:
    return int.from_bytes(value, "little" if struct.pack("=H", 1)[0] else "big")


def _byte(value: int, name: str) -> bytes:
    if not 0 <= value <= 255:
        raise PathManagerError(f"{name}: {value} is not in 0 to 255")
    return bytes((value,))


def _pack_address(address: str) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.inet_pton(family, address)
    except OSError:
        raise PathManagerError(f"{address!r} is not an IP address") from None


def _encode_address(address: str) -> bytes:
    packed = _pack_address(address)
    if len(packed) == 4:
        return _attribute(_FAMILY, struct.pack("=H", socket.AF_INET)) + _attribute(_ADDRESS4, packed)
    return _attribute(_FAMILY, struct.pack("=H", socket.AF_INET6)) + _attribute(_ADDRESS6, packed)


def _encode_endpoint(endpoint: EndpointRequest, flags: EndpointFlags) -> bytes:
    body = _encode_address(endpoint.address) + _attribute(_FLAGS, struct.pack("=I", flags))
    if endpoint.identifier is not None:
        body += _attribute(_IDENTIFIER, _byte(endpoint.identifier, "identifier"))
    if endpoint.port is not None:
        if not 0 < endpoint.port <= 0xFFFF:
            raise PathManagerError(f"port: {endpoint.port} is not in 1 to 65535")
        body += _attribute(_PORT, struct.pack("=H", endpoint.port))
    if endpoint.interface is not None:
        try:
            index = socket.if_nametoindex(endpoint.interface)
        except OSError:
            raise PathManagerError(f"no interface {endpoint.interface!r}") from None
        body += _attribute(_INTERFACE, struct.pack("=i", index))
    return body


def _decode_endpoint(attributes: Mapping[int, bytes]) -> EndpointRequest:
    packed = attributes.get(_ADDRESS4) or attributes.get(_ADDRESS6) or bytes(4)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    flags = EndpointFlags(_unsigned(attributes.get(_FLAGS, b"")))
    index = _unsigned(attributes.get(_INTERFACE, b""))
    return EndpointRequest(
        address=socket.inet_ntop(family, packed),
        flags=tuple(flag.name.lower() for flag in EndpointFlags if flag in flags and flag.name),
        interface=_interface_name(index) if index else None,
        identifier=_unsigned(attributes.get(_IDENTIFIER, b"")),
        port=_unsigned(attributes.get(_PORT, b"")) or None,
    )


def _interface_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        # Interfaces may vanish while endpoints on them remain.
        return f"if{index}"
