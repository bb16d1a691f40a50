"""One super-segment or several segments: the same range of bytes."""

from __future__ import annotations

import pytest

from testbed.packetdrill.packets import match, merge, payload_length, split
from testbed.packetdrill.parser import parse_packet

from .conversation import Conversation, established

WHOLE = "P. 1:3001(3000) ack 1 <dss dack8=1 dsn8=1 ssn=1 dll=3000 nocs, nop, nop>"
FIRST = ". 1:1001(1000) ack 1 <dss dack8=1 dsn8=1 ssn=1 dll=1000 nocs, nop, nop>"
REST = "P. 1001:3001(2000) ack 1 <dss dack8=1 dsn8=1001 ssn=1001 dll=2000 nocs, nop, nop>"


def agrees(conversation: Conversation, text: str, data: bytes) -> bool:
    return match(parse_packet(f"> {text}"), data, conversation.script, verify_checksum=True) == []


def test_split_with_its_mapping() -> None:
    conversation = established()
    parts = split(conversation.send(f"< {WHOLE}"), 1000)
    assert parts is not None
    assert agrees(conversation, FIRST, parts[0])
    assert agrees(conversation, REST, parts[1])


def test_split_as_a_network_card_does() -> None:
    conversation = established()
    parts = split(conversation.send(f"< {WHOLE}"), 1000, narrow_mapping=False)
    assert parts is not None
    mapping = "<dss dack8=1 dsn8=1 ssn=1 dll=3000 nocs, nop, nop>"
    assert agrees(conversation, f". 1:1001(1000) ack 1 {mapping}", parts[0])
    assert agrees(conversation, f"P. 1001:3001(2000) ack 1 {mapping}", parts[1])
    merged = merge(*parts)
    assert merged is not None
    assert agrees(conversation, WHOLE, merged)


def test_merge_is_the_inverse() -> None:
    conversation = established(is_ipv6=True)
    whole = conversation.send(f"< {WHOLE}")
    for length in (1, 1000, 2999):
        parts = split(whole, length)
        assert parts is not None
        assert [payload_length(part) for part in parts] == [length, 3000 - length]
        merged = merge(*parts)
        assert merged is not None
        assert agrees(conversation, WHOLE, merged)


@pytest.mark.parametrize("length", [0, 3000, 3001, -1])
def test_nothing_to_split(length: int) -> None:
    assert split(established().send(f"< {WHOLE}"), length) is None


def test_data_fin_and_fin_go_with_the_end() -> None:
    conversation = established()
    whole = conversation.send("< FP. 1:11(10) ack 1 <dss dack8=1 dsn4=1 ssn=1 dll=11 nocs fin, nop, nop>")
    parts = split(whole, 4)
    assert parts is not None
    assert agrees(conversation, ". 1:5(4) ack 1 <dss dack8=1 dsn4=1 ssn=1 dll=4 nocs, nop, nop>", parts[0])
    assert agrees(
        conversation, "FP. 5:11(6) ack 1 <dss dack8=1 dsn4=5 ssn=5 dll=7 nocs fin, nop, nop>", parts[1]
    )
    merged = merge(*parts)
    assert merged is not None
    assert (
        match(
            parse_packet("> FP. 1:11(10) ack 1 <dss dack8=1 dsn4=1 ssn=1 dll=11 nocs fin, nop, nop>"),
            merged,
            conversation.script,
        )
        == []
    )


def test_without_mptcp() -> None:
    conversation = established()
    parts = split(conversation.send("< P. 1:11(10) ack 1 <nop, nop, TS val 1 ecr 0>"), 5)
    assert parts is not None
    assert agrees(conversation, ". 1:6(5) ack 1 <nop, nop, TS val 1 ecr 0>", parts[0])
    merged = merge(*parts)
    assert merged is not None
    assert agrees(conversation, "P. 1:11(10) ack 1 <nop, nop, TS val 1 ecr 0>", merged)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (". 1:11(10) ack 1", ". 12:22(10) ack 1"),
        ("F. 1:11(10) ack 1", ". 11:21(10) ack 1"),
        (". 1:1(0) ack 1", ". 1:11(10) ack 1"),
        (". 1:11(10) ack 1 <nop, nop, TS val 1 ecr 0>", ". 11:21(10) ack 1"),
        (". 1:11(10) ack 1 <nop, nop, TS val 1 ecr 0>", ". 11:21(10) ack 1 <nop, nop, TS val 2 ecr 0>"),
        (". 1:11(10) <dss dsn8=1 ssn=1 dll=10 nocs>", ". 11:21(10) <dss dsn8=12 ssn=11 dll=10 nocs>"),
        (". 1:11(10) <dss dsn8=1 ssn=1 dll=10 nocs>", ". 11:21(10) <dss dsn8=11 ssn=12 dll=10 nocs>"),
        (
            ". 1:11(10) <dss dsn8=1 ssn=1 dll=10 cksum=auto>",
            ". 11:21(10) <dss dsn8=11 ssn=11 dll=10 cksum=auto>",
        ),
        (". 1:40001(40000) ack 1", ". 40001:80001(40000) ack 1"),
        (". 1:11(10) ack 1", "addr[saddr0] > addr[caddr1] S 11:21(10)"),
        (". 1:11(10) ack 1", "icmp unreachable"),
    ],
)
def test_what_cannot_be_merged(first: str, second: str) -> None:
    conversation = established()
    assert merge(conversation.send(f"< {first}"), conversation.send(f"< {second}")) is None


def test_no_tcp() -> None:
    assert split(b"", 5) is None
    assert merge(b"", b"") is None
    assert payload_length(b"") == 0
    assert payload_length(established().send("< icmp unreachable")) == 0
