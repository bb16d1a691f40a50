"""MD5 signatures: made and checked with the key that a script has set on a socket."""

from __future__ import annotations

import hashlib
import struct

import pytest

from testbed.packetdrill.errors import PacketError
from testbed.packetdrill.md5_signature import key_of_call
from testbed.packetdrill.packets import Mismatch

from .conversation import SCRIPT_V4, STACK_V4, Conversation, established

KEY = b"secret"
DATA = "P. 1:6(5) ack 1 win 7"


def conversation_with_key(*, is_ipv6: bool = False) -> Conversation:
    conversation = established(is_ipv6=is_ipv6)
    conversation.script.signature_key = conversation.mirror.signature_key = KEY
    return conversation


def test_the_signature_is_that_of_the_rfc() -> None:
    packet = conversation_with_key().inject(f"< {DATA} <nop, nop, md5>")
    segment = packet[20:]
    assert segment[20:24] == bytes((1, 1, 19, 18))
    pseudo_header = SCRIPT_V4[0] + STACK_V4[0] + struct.pack("!BBH", 0, 6, len(segment))
    signed = pseudo_header + segment[:16] + bytes(2) + segment[18:20] + segment[40:] + KEY
    assert segment[24:40] == hashlib.md5(signed).digest()


@pytest.mark.parametrize("is_ipv6", [False, True])
@pytest.mark.parametrize("sent", ["md5", "md5 auto"])
def test_a_right_signature_agrees(sent: str, is_ipv6: bool) -> None:
    conversation = conversation_with_key(is_ipv6=is_ipv6)
    assert conversation.expect(f"> {DATA} <nop, nop, md5 auto>", f"< {DATA} <nop, nop, {sent}>") == []


def test_a_wrong_signature_is_named() -> None:
    conversation = conversation_with_key()
    wrong = "00" * 16
    [mismatch] = conversation.expect(f"> {DATA} <nop, nop, md5 auto>", f"< {DATA} <nop, nop, md5 {wrong}>")
    assert (mismatch.field, mismatch.got) == ("md5", wrong)
    right = mismatch.expected
    assert conversation.expect(f"> {DATA} <nop, nop, md5 {right}>", f"< {DATA} <nop, nop, md5>") == []
    other = f"< {DATA} <nop, nop, md5 {'11' * 16}>"
    assert conversation.expect(f"> {DATA} <nop, nop, md5 {right}>", other) == [
        Mismatch("md5", right, "11" * 16)
    ]
    assert conversation.expect(f"> {DATA} <nop, nop, md5>", other) == []


def test_without_a_key_nothing_is_right() -> None:
    conversation = established()
    assert conversation.inject(f"< {DATA} <nop, nop, md5>")[44:60] == bytes(16)
    with pytest.raises(PacketError, match="md5 auto: there is no key yet"):
        conversation.inject(f"< {DATA} <nop, nop, md5 auto>")
    with pytest.raises(PacketError, match="md5 auto: there is no key yet"):
        conversation.expect(f"> {DATA} <nop, nop, md5 auto>", f"< {DATA} <nop, nop, md5>")


def test_the_key_is_learnt_from_the_call() -> None:
    assert key_of_call("setsockopt", [3, 6, 14, {"tcpm_key": KEY}, None]) == KEY
    assert key_of_call("setsockopt", [3, 6, 14, [{"tcpm_key": KEY}], None]) == KEY
    assert key_of_call("setsockopt", [3, 6, 13, {"tcpm_key": KEY}, None]) is None
    assert key_of_call("getsockopt", [3, 6, 14, {"tcpm_key": KEY}, None]) is None
    assert key_of_call("setsockopt", [3, 6, 14, 5, None]) is None
