"""Lets a test play both the script and the stack: outgoing packets are built by a mirror of the script.

The mirror has bindings of its own in which the two sides are swapped, so that what it builds as "incoming" is
what the stack would send. It shares nothing with the bindings under test but the addresses.
"""

from __future__ import annotations

from testbed.packetdrill.packets import Bindings, Mismatch, build, describe_as_text, match
from testbed.packetdrill.parser import parse_packet
from testbed.packetdrill.syntax import Direction

STACK_V4 = (bytes((192, 168, 0, 1)), bytes((192, 168, 1, 1)), bytes((192, 168, 2, 1)))
SCRIPT_V4 = (bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2)), bytes((192, 0, 2, 3)))
STACK_V6 = tuple(bytes((0xFD, *bytes(13), number, 1)) for number in range(3))
SCRIPT_V6 = tuple(bytes((0xFD, 1, *bytes(12), number, 2)) for number in range(3))
STACK_ISN = 0xFFFFFF00
SCRIPT_ISN = 0xFFFFFFF0


def bindings(*, is_ipv6: bool = False, seed: int = 1) -> Bindings:
    """Of the script; its numbers are about to wrap."""
    stack, script = (STACK_V6, SCRIPT_V6) if is_ipv6 else (STACK_V4, SCRIPT_V4)
    return Bindings(stack, script, remote_initial_sequence=SCRIPT_ISN, seed=seed)


class Conversation:
    def __init__(self, *, is_ipv6: bool = False) -> None:
        self.script = bindings(is_ipv6=is_ipv6)
        self.mirror = Bindings(
            self.script.remote_addresses,
            self.script.local_addresses,
            local_port=40000,
            remote_port=8080,
            remote_initial_sequence=STACK_ISN,
            seed=2,
        )

    def inject(self, text: str) -> bytes:
        """``text`` begins with ``<``. The packet, which the mirror has found to be right."""
        packet = build(parse_packet(text), self.script)
        assert match(parse_packet(_turned(text)), packet, self.mirror, verify_checksum=True) == []
        return packet

    def send(self, text: str) -> bytes:
        """A packet of the stack's; ``text`` begins with ``<`` as well: the mirror's script is the stack."""
        return build(parse_packet(text), self.mirror)

    def expect(self, expected: str, sent: str) -> list[Mismatch]:
        """The stack sends ``sent``; the script says ``expected``, which begins with ``>``."""
        return match(parse_packet(expected), self.send(sent), self.script, verify_checksum=True)

    def trace(self, packet: bytes, direction: Direction) -> str:
        return describe_as_text(packet, direction, self.script)


def _turned(text: str) -> str:
    """The same packet from the other side, where it goes out."""
    return ">" + text.removeprefix("<")


def established(*, is_ipv6: bool = False, checksums: bool = False) -> Conversation:
    """After the handshake of a client (the script) with the keys ``ckey`` and ``skey``."""
    conversation = Conversation(is_ipv6=is_ipv6)
    flags = "flags[flag_a, flag_h]" if checksums else "flags[flag_h]"
    conversation.inject(f"< S 0:0(0) win 65535 <mss 1460, mpcapable v1 {flags} nokey>")
    capable = f"mpcapable v1 {flags}"
    sent = f"< S. 0:0(0) ack 1 win 65535 <mss 1460, {capable} key[skey]>"
    assert conversation.expect(f"> S. 0:0(0) ack 1 <mss 1460, {capable} key[skey]>", sent) == []
    conversation.inject(f"< . 1:1(0) ack 1 win 256 <{capable} key[ckey=2, skey]>")
    return conversation
