"""Any packet on the wire is printed in the language such that, read back, it agrees with the packet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.packetdrill.packets import Bindings, build, describe, describe_as_text, match
from testbed.packetdrill.parser import parse_packet
from testbed.packetdrill.printer import print_packet
from testbed.packetdrill.syntax import Direction

from .conversation import SCRIPT_V4, SCRIPT_V6, STACK_V4, STACK_V6, established
from .strategies import wire_packets


def check_outgoing(bindings: Bindings, data: bytes) -> None:
    text = describe_as_text(data, Direction.OUT, bindings)
    assert match(parse_packet(text), data, bindings.copy()) == [], text


@given(wire_packets(STACK_V4[0], SCRIPT_V4[0], 8080, 40000))
def test_of_the_first_subflow(data: bytes) -> None:
    check_outgoing(established().script, data)


@given(wire_packets(STACK_V6[1], SCRIPT_V6[2], 1234, 5678))
def test_of_an_unknown_subflow(data: bytes) -> None:
    check_outgoing(established(is_ipv6=True).script, data)


@given(wire_packets(SCRIPT_V4[0], STACK_V4[0], 40000, 8080))
def test_incoming_packets_are_built_again(data: bytes) -> None:
    """A trace can be turned into a script: what was injected comes out of its printed form again."""
    script = established().script
    packet = describe(data, Direction.IN, script)
    again = build(
        parse_packet(print_packet(packet)), script.copy(), data[len(data) - packet.payload_length :]
    )
    assert describe(again, Direction.IN, script) == packet


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda rest: b"\x45\x00" + rest))
def test_any_bytes_are_described(data: bytes) -> None:
    script = established().script
    for direction in Direction:
        assert describe_as_text(data, direction, script)


def test_describing_changes_nothing() -> None:
    conversation = established()
    before = conversation.script.copy()
    packet = conversation.send("< addr[saddr1] > addr[caddr1] S 0:0(0) <mp_join_syn token=auto>")
    conversation.trace(packet, Direction.OUT)
    assert conversation.script.addresses == before.addresses
    assert conversation.script.keys == before.keys
    assert len(conversation.script.subflows) == len(before.subflows)


PRINTED = [
    (
        "< P. 1:11(10) ack 1 win 7 <dss dack8=1 dsn8=1 ssn=1 dll=10 cksum=auto>",
        "> P. 1:11(10) ack 1 win 7 <dss dack8=1 dsn8=1 ssn=1 dll=10 cksum=auto>",
    ),
    (
        "< [ce, tos 0x10] F. 1:1(0) ack 1 win 7 <nop, nop, TS val 3 ecr 0>",
        "> [ce, tos 0x13] F. 1:1(0) ack 1 win 7 <nop, nop, TS val 3 ecr 0>",
    ),
    (
        "< addr[saddr0]:8080 > addr[caddr1]:6000 S 0:0(0) win 7 <mp_join_syn address_id=1 token=auto rand=3>",
        (
            '> addr[saddr0=inet_addr("192.168.0.1")]:8080 > addr[caddr1=inet_addr("192.0.2.2")]:6000 '
            "S 0:0(0) win 7 <mp_join_syn backup=0 address_id=1 token=sha256_32(ckey) rand=3>"
        ),
    ),
    (
        "< . 1:1(0) ack 1 win 7 <add_address address_id=1 addr[saddr1] port=99 hmac=auto, nop, nop>",
        (
            '> . 1:1(0) ack 1 win 7 <add_address address_id=1 addr[addr_1=inet_addr("192.168.1.1")] '
            "port=99 hmac=auto, nop, nop>"
        ),
    ),
    (
        "< R. 1:1(0) ack 1 win 0 <mp_fastclose, mp_reset 1>",
        "> R. 1:1(0) ack 1 win 0 <mp_fastclose ckey, mp_reset 1 flags 0x0>",
    ),
    (
        "< [1:11(10)] icmp unreachable frag_needed mtu 99",
        "> [1:11(10)] icmp unreachable frag_needed mtu 99",
    ),
]


@pytest.mark.parametrize(("sent", "text"), PRINTED)
def test_how_packets_are_printed(sent: str, text: str) -> None:
    conversation = established()
    assert conversation.trace(conversation.send(sent), Direction.OUT) == text


def test_what_the_language_cannot_say() -> None:
    text = describe_as_text(b"\x45" + bytes(19), Direction.OUT, established().script)
    assert text.startswith("// > 20 bytes: ")
