"""Generic netlink with the family ``mptcp_pm``: requests, answers, events, and how their fields are laid out.

Spoken directly: it is a handful of messages, while a netlink library would cost every agent its memory and
lacks most of these commands. Layouts: linux/mptcp_pm.h, linux/genetlink.h, linux/netlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType

_NETLINK_GENERIC = 16
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
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
_CTRL_ATTR_FAMILY_ID, _CTRL_ATTR_FAMILY_NAME, _CTRL_ATTR_MCAST_GROUPS = 1, 2, 7
_GROUP_NAME, _GROUP_ID = 1, 2
_EVENT_GROUP = b"mptcp_pm_events\0"

FAMILY, IDENTIFIER, ADDRESS4, ADDRESS6, PORT, FLAGS, INTERFACE = 1, 2, 3, 4, 5, 6, 7
"""Of an address."""

_MESSAGE = struct.Struct("=IHHII")
_GENERIC = struct.Struct("=BBxx")
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE_BYTES = 1 << 17


class PathManagerError(Exception):
    """The kernel refused: the errno's name and, where it gave one, its own explanation."""


class PathManagerSocket:
    """Talks to the path manager of the network namespace in which it is created."""

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
            self._family, self._event_group = self._find_family()
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> PathManagerSocket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def request(self, command: int, body: bytes, *, dump: bool = False) -> list[dict[int, bytes]]:
        """The attributes of each answer. Raises PathManagerError."""
        return self._exchange(self._family, command, body, dump=dump)

    def listen_for_events(self) -> None:
        """From now on :meth:`events` tells of them; a socket for requests must not do so as well."""
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, self._event_group)
        self._socket.setblocking(False)

    def events(self) -> Iterator[tuple[int, dict[int, bytes]]]:
        """Those that have come: their numbers and attributes. Raises PathManagerError when some were lost."""
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                raise PathManagerError(f"netlink: {_name_errno(error.errno or 0)}") from None
            for kind, _, _, content in _messages(data):
                if kind == self._family and len(content) >= _GENERIC.size:
                    number, _ = _GENERIC.unpack_from(content)
                    yield number, dict(attributes_of(content[_GENERIC.size :]))

    def _find_family(self) -> tuple[int, int]:
        name = attribute(_CTRL_ATTR_FAMILY_NAME, b"mptcp_pm\0")
        try:
            answers = self._exchange(_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, name, dump=False)
        except PathManagerError as error:
            raise PathManagerError(f"this kernel has no MPTCP path manager: {error}") from None
        groups = {}
        for _, entry in attributes_of(answers[0].get(_CTRL_ATTR_MCAST_GROUPS, b"")):
            group = dict(attributes_of(entry))
            groups[group.get(_GROUP_NAME)] = unsigned(group.get(_GROUP_ID, b""))
        return unsigned(answers[0][_CTRL_ATTR_FAMILY_ID]), groups.get(_EVENT_GROUP, 0)

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
                yield dict(attributes_of(content[_GENERIC.size :]))


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
        text = dict(attributes_of(content[skip:])).get(_NLMSGERR_ATTR_MSG, b"")
        explanation = text.rstrip(b"\0").decode(errors="replace")
    name = _name_errno(-code)
    raise PathManagerError(f"{name}: {explanation}" if explanation else f"{name} ({os.strerror(-code)})")


def _name_errno(number: int) -> str:
    return errno.errorcode.get(number, f"errno {number}")


def attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def nested(kind: int, body: bytes) -> bytes:
    return attribute(kind | _NLA_F_NESTED, body)


def attributes_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _NLA_TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def unsigned(value: bytes) -> int:
    return int.from_bytes(value, "little" if struct.pack("=H", 1)[0] else "big")


def byte(value: int, name: str) -> bytes:
    if not 0 <= value <= 255:
        raise PathManagerError(f"{name}: {value} is not in 0 to 255")
    return bytes((value,))


def pack_address(address: str) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.inet_pton(family, address)
    except OSError:
        raise PathManagerError(f"{address!r} is not an IP address") from None


def encode_address(address: str) -> bytes:
    packed = pack_address(address)
    if len(packed) == 4:
        return attribute(FAMILY, struct.pack("=H", socket.AF_INET)) + attribute(ADDRESS4, packed)
    return attribute(FAMILY, struct.pack("=H", socket.AF_INET6)) + attribute(ADDRESS6, packed)
