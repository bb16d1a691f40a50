"""The words of nftables that a simulated router knows."""

from __future__ import annotations

import pytest

from mptcp_stack.wire.frame import Frame
from mptcp_stack.wire.ip_packet import emit_ipv4_header
from testbed.backend.simulated.packet_filter import PacketFilter
from testbed.errors import CapabilityError
from testbed.middlebox.segment import ACK, FIN, RST, SYN, Segment
from tests.middlebox.segments import JOIN_SYN, segment, whole

UDP_HEADER = emit_ipv4_header(b"\x0a\0\0\x01", b"\x0a\0\0\x02", 17, 8, identification=7)
UDP = bytes(12) + b"\x08\x00" + bytes(UDP_HEADER) + bytes(8)


def refuses(rule: str, frame: bytes, interface: str = "eth0") -> bool:
    return PacketFilter([rule], "forward").refuses(Frame(frame), interface) is not None


def answer(sent: Segment, *rules: str) -> Segment:
    refusal = PacketFilter(rules or ["meta l4proto tcp reject with tcp reset"], "forward").refuses(
        Frame(sent.to_bytes()), "eth0"
    )
    assert refusal is not None
    assert refusal.answer is not None
    return whole(refusal.answer)


@pytest.mark.parametrize(
    ("rule", "passing"),
    [
        ('iifname "eth0" drop', ("iifname eth1 drop",)),
        ("ip saddr 10.0.0.1 drop", ("ip saddr 10.0.0.2 drop", "ip6 saddr ::1 drop")),
        ("ip daddr 10.0.0.2 meta l4proto tcp drop", ("ip daddr 10.0.0.1 drop",)),
        ("meta l4proto tcp drop", ("meta l4proto udp drop",)),
        ("tcp flags syn drop", ("tcp flags fin drop", "tcp flags rst drop")),
        ("tcp option mptcp subtype 1 drop", ("tcp option mptcp subtype 3 drop",)),
        (
            "tcp sport 4000 tcp dport 80 drop",
            ("tcp sport 80 drop", "tcp dport 4000 drop", "tcp sport 4000 tcp dport 81 drop"),
        ),
    ],
)
def test_words_that_match_and_words_that_do_not(rule: str, passing: tuple[str, ...]) -> None:
    frame = segment(100, SYN | ACK, options=JOIN_SYN).to_bytes()
    assert refuses(rule, frame)
    for other in passing:
        assert not refuses(other, frame)


def test_what_is_no_tcp_matches_no_word_of_it() -> None:
    assert refuses("meta l4proto udp drop", UDP)
    assert not refuses("tcp flags syn drop", UDP)
    assert refuses("meta l4proto udp reject with tcp reset", UDP)
    assert not refuses("tcp flags syn drop", b"\0" * 12 + b"\x08\x00E")


def test_the_first_rule_that_a_packet_meets_counts() -> None:
    rules = ("tcp dport 81 drop", "tcp dport 80 reject with tcp reset", "meta l4proto tcp drop")
    assert answer(segment(100, SYN), *rules).flags == RST | ACK


@pytest.mark.parametrize("family", [4, 6])
def test_a_reset_is_one_that_the_sender_believes(family: int) -> None:
    refused = answer(segment(100, SYN, family=family, options=JOIN_SYN))
    assert (refused.flags, refused.sequence, refused.acknowledgment) == (RST | ACK, 0, 101)
    assert (refused.source_port, refused.destination_port) == (80, 4000)
    data = answer(segment(100, ACK | FIN, b"data", acknowledgment=77, family=family))
    assert (data.flags, data.sequence, data.options, data.payload) == (RST, 77, b"", b"")


def test_a_reset_is_not_answered() -> None:
    refusal = PacketFilter(["meta l4proto tcp reject with tcp reset"], "forward").refuses(
        Frame(segment(100, RST).to_bytes()), "eth0"
    )
    assert refusal is not None
    assert refusal.answer is None


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "accept",
        "tcp flags",
        "tcp flags urg drop",
        "tcp option mptcp drop",
        "tcp dport http drop",
        "udp dport 53 drop",
        "ip daddr nobody drop",
        "iifname",
        "drop-all",
        "reject with tcp",
    ],
)
def test_words_that_are_not_known_are_told(rule: str) -> None:
    with pytest.raises(CapabilityError, match="no packet filter"):
        PacketFilter([rule], "forward")


def test_hooks_that_are_not_known_are_told() -> None:
    with pytest.raises(CapabilityError, match="no hook 'input'"):
        PacketFilter(["drop"], "input")
