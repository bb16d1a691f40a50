"""Batched rtnetlink: many requests in one ``sendmsg``, their answers read together.

pyroute2 knows the messages; its own sockets wait for each answer before the next request and run an event
loop for it, which is most of the time that it takes to bring up a lab of a hundred hosts.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from testbed.errors import LabError

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_NEWRULE = 32
RTM_DELRULE = 33
RTM_NEWQDISC = 36
RTM_DELQDISC = 37
RTM_GETQDISC = 38
RTM_NEWTFILTER = 44

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400

_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_SOL_NETLINK = 270
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1

# The answers to a batch wait in the socket's receive buffer while the batch is processed: so many that they
# always fit into the default buffer (about 770 bytes of it each).
_BATCH_REQUESTS = 128
_BATCH_BYTES = 64 * 1024

INTERFACE_MESSAGE = struct.Struct("=BxHiII")
"""struct ifinfomsg: family, type, index, flags, change mask."""

_HEADER = struct.Struct("=LHHLL")
_RECEIVE_BYTES = 1 << 16

_MESSAGE_CLASSES: dict[int, type[Any]] = {
    RTM_NEWLINK: ifinfmsg,
    RTM_DELLINK: ifinfmsg,
    RTM_GETLINK: ifinfmsg,
    RTM_NEWADDR: ifaddrmsg,
    RTM_DELADDR: ifaddrmsg,
    RTM_NEWROUTE: rtmsg,
    RTM_DELROUTE: rtmsg,
    RTM_NEWRULE: fibmsg,
    RTM_DELRULE: fibmsg,
    RTM_NEWQDISC: tcmsg,
    RTM_DELQDISC: tcmsg,
    RTM_GETQDISC: tcmsg,
    RTM_NEWTFILTER: tcmsg,
}


@dataclass(frozen=True, slots=True)
class Request:
    """One rtnetlink request: its type, pyroute2's fields, and what it is for (used in errors)."""

    kind: int
    fields: dict[str, Any]
    purpose: str
    flags: int = NLM_F_CREATE | NLM_F_EXCL
    tolerated: frozenset[int] = frozenset()
    """Errors that mean that all is as wanted already."""
    payload: bytes | None = None
    """The whole message behind its header, for what pyroute2 cannot encode; ``fields`` do not matter then."""

    def encode(self, sequence_number: int) -> bytes:
        if self.payload is not None:
            length = _HEADER.size + len(self.payload)
            flags = NLM_F_REQUEST | self.flags
            return _HEADER.pack(length, self.kind, flags, sequence_number, 0) + self.payload
        message = _MESSAGE_CLASSES[self.kind]()
        message["header"]["type"] = self.kind
        message["header"]["flags"] = NLM_F_REQUEST | self.flags
        message["header"]["sequence_number"] = sequence_number
        for name, value in self.fields.items():
            message[name] = value
        message.encode()
        return bytes(message.data)


class RequestError(LabError):
    """The kernel refused a request. ``number`` is the errno."""

    def __init__(self, request: Request, number: int, explanation: str) -> None:
        detail = f" ({explanation})" if explanation else ""
        super().__init__(f"cannot {request.purpose}: {os.strerror(number)}{detail}")
        self.request = request
        self.number = number


class NetlinkSocket:
    """A rtnetlink socket in the network namespace in which it was opened."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._sequence_number = 0

    def close(self) -> None:
        self._socket.close()

    def run(self, requests: Sequence[Request]) -> None:
        """Carry out all requests, in order. Raises RequestError for the first one that failed."""
        batch: list[tuple[Request, bytes]] = []
        batch_bytes = 0
        for request in requests:
            self._sequence_number += 1
            encoded = replace(request, flags=request.flags | NLM_F_ACK).encode(self._sequence_number)
            batch.append((request, encoded))
            batch_bytes += len(encoded)
            if len(batch) >= _BATCH_REQUESTS or batch_bytes >= _BATCH_BYTES:
                self._run_batch(batch)
                batch, batch_bytes = [], 0
        if batch:
            self._run_batch(batch)

    def ask(self, request: Request) -> bytes:
        """The one message that answers a request, behind its header. Raises RequestError."""
        self._sequence_number += 1
        self._socket.send(request.encode(self._sequence_number))
        while True:
            for kind, flags, sequence_number, payload in self._receive():
                if sequence_number != self._sequence_number:
                    continue
                if kind == _NLMSG_ERROR:
                    number = _error_number(payload)
                    raise RequestError(request, number, _explanation(flags, payload))
                return payload

    def _run_batch(self, batch: Sequence[tuple[Request, bytes]]) -> None:
        first_sequence_number = self._sequence_number - len(batch) + 1
        self._socket.sendmsg([encoded for _request, encoded in batch])
        first_error: RequestError | None = None
        waiting = len(batch)
        while waiting:
            for kind, flags, sequence_number, payload in self._receive():
                index = sequence_number - first_sequence_number
                if kind != _NLMSG_ERROR or not 0 <= index < len(batch):
                    continue
                waiting -= 1
                request = batch[index][0]
                number = _error_number(payload)
                if number and number not in request.tolerated and first_error is None:
                    first_error = RequestError(request, number, _explanation(flags, payload))
        if first_error is not None:
            raise first_error

    def dump(self, request: Request) -> list[Any]:
        """All answers to a dump request, decoded by pyroute2. Raises RequestError."""
        answers: list[Any] = []
        for kind, payload in self._dump(request):
            message: nlmsg = _MESSAGE_CLASSES[request.kind](
                _HEADER.pack(len(payload) + _HEADER.size, kind, 0, self._sequence_number, 0) + payload
            )
            message.decode()
            answers.append(message)
        return answers

    def dump_payloads(self, request: Request) -> list[bytes]:
        """The same as the kernel sent them, behind their headers."""
        return [payload for _kind, payload in self._dump(request)]

    def _dump(self, request: Request) -> Iterator[tuple[int, bytes]]:
        self._sequence_number += 1
        asked = replace(request, flags=NLM_F_DUMP)
        self._socket.send(asked.encode(self._sequence_number))
        while True:
            for kind, _flags, sequence_number, payload in self._receive():
                if sequence_number != self._sequence_number:
                    continue
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    number = _error_number(payload)
                    raise RequestError(request, number, "")
                yield kind, payload

    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        """The messages of one datagram: type, flags, sequence number, payload."""
        data = self._socket.recv(_RECEIVE_BYTES)
        messages = []
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence_number, _port = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                break
            messages.append((kind, flags, sequence_number, data[offset + _HEADER.size : offset + length]))
            offset += (length + 3) & ~3
        return messages


def _error_number(payload: bytes) -> int:
    """The errno of an answer of type NLMSG_ERROR; 0 acknowledges."""
    return -int.from_bytes(payload[:4], "little", signed=True)


def _explanation(flags: int, payload: bytes) -> str:
    """The kernel's own words about an error, where it sent some (extended acknowledgements)."""
    if not flags & _NLM_F_ACK_TLVS:
        return ""
    offset = 4 + _HEADER.size
    while offset + 4 <= len(payload):
        length, kind = struct.unpack_from("=HH", payload, offset)
        if length < 4:
            break
        if kind == _NLMSGERR_ATTR_MSG:
            return payload[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += (length + 3) & ~3
    return ""
