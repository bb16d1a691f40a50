"""The language speaks with the bundled stack itself: handshake, data, a join, an announcement, the close."""

from __future__ import annotations

import hashlib

from mptcp_stack.ip.interface import InterfaceAddress, LinkType
from mptcp_stack.ip.routing import Route
from mptcp_stack.stack import Stack
from mptcp_stack.wire.frame import Frame
from testbed.packetdrill.packets import Bindings, build, describe_as_text, match
from testbed.packetdrill.parser import parse_packet
from testbed.packetdrill.syntax import Direction

from .conversation import SCRIPT_V4, STACK_V4


class Device:
    """A stack with two addresses, whose packets are judged by the language."""

    def __init__(self) -> None:
        self.stack = Stack(random_bytes=lambda length: next(self._bytes)[:length])
        counter = iter(range(1 << 30))
        self._bytes = (hashlib.sha256(str(number).encode()).digest() for number in counter)
        addresses = [InterfaceAddress(address, 24) for address in STACK_V4[:2]]
        self.interface = self.stack.ip.add_interface(
            "tun0", link_type=LinkType.RAW_IP, mtu=1500, addresses=addresses
        )
        self.stack.ip.routes.add(Route(bytes(4), 0, self.interface))
        self.bindings = Bindings(STACK_V4, SCRIPT_V4)
        self.trace: list[str] = []

    def run(self, *lines: str) -> None:
        """Injects what begins with ``<``; expects what begins with ``>`` as the next packet."""
        for line in lines:
            packet = parse_packet(line)
            if packet.direction is Direction.IN:
                self.stack.receive_frame(Frame(build(packet, self.bindings)), self.interface, 0)
                continue
            sent = self.sent()
            text = describe_as_text(sent, Direction.OUT, self.bindings)
            assert match(packet, sent, self.bindings.copy()) == [], text
            # What is printed in its place must agree as well.
            assert match(parse_packet(text), sent, self.bindings.copy()) == [], text
            match(packet, sent, self.bindings)

    def sent(self) -> bytes:
        if not self._waiting:
            self._waiting = [frame.to_bytes() for _, frame in self.stack.frames_to_send(0)]
        assert self._waiting, "the stack has sent nothing"
        return self._waiting.pop(0)

    _waiting: list[bytes] = []
