"""Echo requests of this host and the replies to them (RFC 792, RFC 4443 §4.1): what ping(8) does."""

from __future__ import annotations

from collections.abc import Callable
from errno import ENETUNREACH

from mptcp_stack.ip.host_configuration import HostConfiguration
from mptcp_stack.ip.icmp_output import IcmpOutput
from mptcp_stack.wire import icmp

MAXIMUM_AWAITED = 256
"""Requests whose reply would still be noticed; the oldest gives way."""

OnReply = Callable[[int], None]
"""Given the time of the reply, in microseconds."""
_Key = tuple[bytes, int, int]
"""Who was asked, identifier, number."""


class EchoRequests:
    def __init__(self, configuration: HostConfiguration, output: IcmpOutput) -> None:
        self._configuration = configuration
        self._output = output
        self._awaited: dict[_Key, tuple[bytes, OnReply]] = {}

    def send(
        self,
        destination: bytes,
        *,
        identifier: int,
        sequence: int,
        data: bytes = b"",
        on_reply: OnReply,
        now_us: int,
    ) -> None:
        """One request; a host's own address answers at once. Raises OSError(ENETUNREACH) without a way."""
        if self._configuration.is_local(destination):
            on_reply(now_us)
            return
        source = self._configuration.select_source(destination)
        if source is None:
            raise OSError(ENETUNREACH, "no route")
        if len(self._awaited) >= MAXIMUM_AWAITED:
            del self._awaited[next(iter(self._awaited))]
        self._awaited[destination, identifier, sequence] = data, on_reply
        request = icmp.IcmpEcho(False, identifier, sequence, data)
        if not self._output.send_echo_request(request, source, destination, now_us):
            raise OSError(ENETUNREACH, "no route")

    def take_reply(self, source: bytes, reply: icmp.IcmpEcho, now_us: int) -> bool:
        """False for one that nobody waits for, or that does not repeat what was sent."""
        key = source, reply.identifier, reply.sequence
        awaited = self._awaited.get(key)
        if awaited is None or awaited[0] != bytes(reply.data):
            return False
        del self._awaited[key]
        awaited[1](now_us)
        return True
