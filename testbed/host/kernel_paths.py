"""Paths of single connections on a kernel host: the commands and events of netlink's mptcp_pm."""

from __future__ import annotations

import struct

from mptcp_stack.wire.addresses import format_address, unmap
from testbed.host.host_stack import HostStackError
from testbed.host.path_control import (
    Announce,
    CreateSubflow,
    DestroySubflow,
    EventFields,
    PathCommand,
    Remove,
    SetSubflowFlags,
)
from testbed.host.path_netlink import (
    FLAGS,
    IDENTIFIER,
    PORT,
    PathManagerError,
    PathManagerSocket,
    attribute,
    encode_address,
    nested,
    unsigned,
)

_SET_FLAGS, _ANNOUNCE, _REMOVE, _CREATE, _DESTROY = 7, 8, 9, 10, 11
_ADDRESS, _TOKEN, _LOCAL_ID, _REMOTE_ADDRESS = 1, 4, 5, 6
_SIGNAL, _SUBFLOW, _BACKUP = 1, 2, 4

_EVENT_NAMES = {
    1: "created",
    2: "established",
    3: "closed",
    6: "announced",
    7: "removed",
    10: "sub_established",
    11: "sub_closed",
    13: "sub_priority",
    15: "listener_created",
    16: "listener_closed",
}
_NUMBERS = {1: "token", 3: "loc_id", 4: "rem_id", 12: "error", 16: "reset_reason", 17: "reset_flags"}
_ADDRESSES = {5: "saddr", 6: "saddr", 7: "daddr", 8: "daddr"}
_PORTS = {9: "sport", 10: "dport"}
_EVENT_BACKUP, _EVENT_FLAGS, _SERVER_SIDE = 11, 13, 18
_DENY_JOIN_ID0, _FLAG_SERVER_SIDE = 1, 2


class KernelPaths:
    """See :class:`testbed.host.path_control.PathControl`."""

    def __init__(self) -> None:
        self._requests: PathManagerSocket | None = None
        self._events: PathManagerSocket | None = None

    def carry_out(self, command: PathCommand) -> None:
        try:
            if self._requests is None:
                self._requests = PathManagerSocket()
            self._requests.request(*_encode(command))
        except (PathManagerError, OSError) as error:
            raise HostStackError(str(error)) from None

    def watch(self) -> None:
        if self._events is not None:
            return
        try:
            self._events = PathManagerSocket()
            self._events.listen_for_events()
        except (PathManagerError, OSError) as error:
            raise HostStackError(str(error)) from None

    def take_events(self) -> list[EventFields]:
        if self._events is None:
            raise HostStackError("events are not watched: ask for watch_paths first")
        try:
            return [_event(number, attributes) for number, attributes in self._events.events()]
        except PathManagerError as error:
            raise HostStackError(f"events were lost: {error}") from None

    def close(self) -> None:
        for used in (self._requests, self._events):
            if used is not None:
                used.close()


def _encode(command: PathCommand) -> tuple[int, bytes]:
    token = attribute(_TOKEN, struct.pack("=I", command.token))
    match command:
        case Announce(_, identifier, address, port):
            body = _address(address, port, identifier=identifier, flags=_SIGNAL)
            return _ANNOUNCE, token + nested(_ADDRESS, body)
        case Remove(_, identifier):
            return _REMOVE, token + attribute(_LOCAL_ID, bytes((identifier,)))
        case CreateSubflow(_, identifier, local, remote, remote_port, backup):
            flags = _SUBFLOW | (_BACKUP if backup else 0)
            ends = nested(_ADDRESS, _address(local, None, identifier=identifier, flags=flags))
            return _CREATE, token + ends + nested(_REMOTE_ADDRESS, _address(remote, remote_port))
        case DestroySubflow(_, local, local_port, remote, remote_port):
            ends = nested(_ADDRESS, _address(local, local_port))
            return _DESTROY, token + ends + nested(_REMOTE_ADDRESS, _address(remote, remote_port))
        case SetSubflowFlags(_, local, local_port, remote, remote_port, backup):
            ends = nested(_ADDRESS, _address(local, local_port or None, flags=_BACKUP if backup else 0))
            ends += nested(_REMOTE_ADDRESS, _address(remote, remote_port or None))
            return _SET_FLAGS, token + ends


def _address(
    address: str, port: int | None, *, identifier: int | None = None, flags: int | None = None
) -> bytes:
    body = encode_address(address)
    if identifier is not None:
        body += attribute(IDENTIFIER, bytes((identifier,)))
    if port is not None:
        body += attribute(PORT, struct.pack("=H", port))
    if flags is not None:
        body += attribute(FLAGS, struct.pack("=I", flags))
    return body


def _event(number: int, attributes: dict[int, bytes]) -> EventFields:
    event: EventFields = {"event": _EVENT_NAMES.get(number, str(number))}
    for kind, value in attributes.items():
        if kind in _NUMBERS:
            event[_NUMBERS[kind]] = unsigned(value)
        elif kind in _PORTS:
            event[_PORTS[kind]] = int.from_bytes(value, "big")
        elif kind in _ADDRESSES:
            # Of an IPv4 subflow that an IPv6 socket accepted the kernel gives the mapped form.
            address = unmap(value)
            event["family"] = "inet" if len(address) == 4 else "inet6"
            event[_ADDRESSES[kind]] = format_address(address)
    if _EVENT_BACKUP in attributes:
        event["backup"] = attributes[_EVENT_BACKUP] != b"\0"
    if event["event"] in ("created", "established"):
        flags = unsigned(attributes.get(_EVENT_FLAGS, b""))
        event["server_side"] = bool(flags & _FLAG_SERVER_SIDE or unsigned(attributes.get(_SERVER_SIDE, b"")))
        event["deny_join_id0"] = bool(flags & _DENY_JOIN_ID0)
    return event
