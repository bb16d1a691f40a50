"""Every construct of a packet, from text to tree."""

from __future__ import annotations

import pytest

from testbed.packetdrill.errors import Location
from testbed.packetdrill.parser import parse_packet, parse_script
from testbed.packetdrill.syntax import (
    AddAddressOption,
    AddressReference,
    ChecksumForm,
    Computed,
    DataSequence,
    Direction,
    DssOption,
    Ecn,
    EndOfOptions,
    FastOpen,
    IcmpPart,
    IpPart,
    KeyFunction,
    KeyReference,
    MaximumSegmentSize,
    Md5Signature,
    MpCapableOption,
    MpFailOption,
    MpFastcloseOption,
    MpJoinAckOption,
    MpJoinSynAckOption,
    MpJoinSynOption,
    MpPrioOption,
    MpResetOption,
    NoOperation,
    Packet,
    RawOption,
    RemoveAddressOption,
    Sack,
    SackPermitted,
    ScriptOption,
    SequenceRange,
    TcpPart,
    Timestamps,
    Truncation,
    WindowScale,
)

IDSN = Truncation.INITIAL_DATA_SEQUENCE


def option(text: str) -> ScriptOption:
    content = parse_packet(f"> . 1:1(0) ack 1 <{text}>").content
    assert isinstance(content, TcpPart)
    assert content.options is not None
    (only,) = content.options
    return only


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nop", NoOperation()),
        ("eol", EndOfOptions()),
        ("mss 1460", MaximumSegmentSize(1460)),
        ("wscale 14", WindowScale(14)),
        ("sackOK", SackPermitted()),
        ("sack 1001:2001 3001:4001", Sack(((1001, 2001), (3001, 4001)))),
        ("TS val 100 ecr 200", Timestamps(100, 200)),
        ("TS ecr 200", Timestamps(None, 200)),
        ("TS", Timestamps()),
        ("FO", FastOpen(b"")),
        ("FO ...", FastOpen(None)),
        ("FO 0a1b2c3d", FastOpen(b"\x0a\x1b\x2c\x3d")),
        ("FOEXP", FastOpen(b"", is_experimental=True)),
        ("FOEXP 00112233", FastOpen(b"\x00\x11\x22\x33", is_experimental=True)),
        ("md5", Md5Signature()),
        ("md5 auto", Md5Signature(Computed.AUTO)),
        (f"md5 {'0f' * 16}", Md5Signature(b"\x0f" * 16)),
        ("raw fd04abcd", RawOption(b"\xfd\x04\xab\xcd")),
        ("raw 0xfd04abcd", RawOption(b"\xfd\x04\xab\xcd")),
        ("mpcapable", MpCapableOption()),
        ("mpcapable v1 flags[flag_h] nokey", MpCapableOption(1, 1, ())),
        ("mpcapable v0 flags[flag_a, flag_h] key[k]", MpCapableOption(0, 0x81, (KeyReference("k"),))),
        ("mpcapable flags 0x41", MpCapableOption(None, 0x41)),
        (
            "mpcapable v1 key[c=2, s] mpcdatalen 100 nocs",
            MpCapableOption(1, None, (KeyReference("c", 2), KeyReference("s")), 100, ChecksumForm.NONE),
        ),
        (
            "mpcapable key[c, s] mpcdatalen 100 cksum=auto",
            MpCapableOption(None, None, (KeyReference("c"), KeyReference("s")), 100, ChecksumForm.CORRECT),
        ),
        ("mp_join_syn", MpJoinSynOption()),
        (
            "mp_join_syn backup=1 address_id=2 token=0xabc rand=7",
            MpJoinSynOption(True, 2, 0xABC, 7),
        ),
        (
            "mp_join_syn address_id=auto token=sha256_32(skey)",
            MpJoinSynOption(None, Computed.AUTO, KeyFunction(Truncation.TOKEN, ("skey",))),
        ),
        ("mp_join_syn token=auto", MpJoinSynOption(token=Computed.AUTO)),
        (
            "mp_join_syn_ack backup=0 address_id=0 sender_hmac=auto rand=5",
            MpJoinSynAckOption(False, 0, Computed.AUTO, 5),
        ),
        (
            "mp_join_syn_ack sender_hmac=trunc_l64_hmac(s c)",
            MpJoinSynAckOption(hmac=KeyFunction(Truncation.LEFT_64, ("s", "c"))),
        ),
        ("mp_join_ack", MpJoinAckOption()),
        (f"mp_join_ack sender_hmac=0x{'f' * 40}", MpJoinAckOption((1 << 160) - 1)),
        (
            "mp_join_ack sender_hmac=full_160_hmac(c, s)",
            MpJoinAckOption(KeyFunction(Truncation.FULL_160, ("c", "s"))),
        ),
        ("dss", DssOption()),
        ("dss dack8=1001 nocs", DssOption(DataSequence(True, 1001), checksum=ChecksumForm.NONE)),
        (
            "dss dack4 dsn8=1 ssn=1 dll=1000 cksum=0x1234",
            DssOption(DataSequence(False), DataSequence(True, 1), 1, 1000, 0x1234),
        ),
        (
            "dss dack8=1 dsn4=2 ssn=0 dll=1 nocs fin",
            DssOption(DataSequence(True, 1), DataSequence(False, 2), 0, 1, ChecksumForm.NONE, fin=True),
        ),
        (
            "dss dack8=trunc_r64_hmac(s)+1001 dsn8=trunc_r64_hmac(c)",
            DssOption(
                DataSequence(True, KeyFunction(IDSN, ("s",), 1001)),
                DataSequence(True, KeyFunction(IDSN, ("c",))),
            ),
        ),
        (
            "add_address address_id=1 addr[a] hmac=auto",
            AddAddressOption(1, AddressReference("a"), None, Computed.AUTO),
        ),
        (
            'add_address addr[a=inet_addr("1.2.3.4")] port=8080 hmac=0x11',
            AddAddressOption(None, AddressReference("a", b"\1\2\3\4"), 8080, 0x11),
        ),
        (
            'add_address address_id=2 inet6_addr[a="::1"] addr_echo',
            AddAddressOption(2, AddressReference("a", bytes(15) + b"\1"), is_echo=True),
        ),
        ("remove_address address_id=[1,2]", RemoveAddressOption((1, 2))),
        ("remove_address address_id=3", RemoveAddressOption((3,))),
        ("mp_prio", MpPrioOption()),
        ("mp_prio backup=1 address_id=4", MpPrioOption(True, 4)),
        ("mp_fail", MpFailOption()),
        ("mp_fail dsn8=1001", MpFailOption(1001)),
        ("mp_fail dsn8=trunc_r64_hmac(s)+1", MpFailOption(KeyFunction(IDSN, ("s",), 1))),
        ("mp_fastclose", MpFastcloseOption()),
        ("mp_fastclose skey", MpFastcloseOption(KeyReference("skey"))),
        ("mp_fastclose skey=5", MpFastcloseOption(KeyReference("skey", 5))),
        ("mp_fastclose key[skey=5]", MpFastcloseOption(KeyReference("skey", 5))),
        ("mp_reset 3", MpResetOption(3)),
        ("mp_reset 1 flags[flag_t]", MpResetOption(1, 1)),
        ("mp_reset", MpResetOption()),
    ],
)
def test_options(text: str, expected: ScriptOption) -> None:
    assert option(text) == expected


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("S", 2),
        ("S.", 18),
        (".", 16),
        ("F.", 17),
        ("FP.", 25),
        ("R", 4),
        ("SEW", 194),
        ("SEC", 194),
        ("U", 32),
        ("-", 0),
    ],
)
def test_flags(text: str, flags: int) -> None:
    assert parse_packet(f"> {text} 0:0(0)").content == TcpPart(flags, SequenceRange(0, 0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("< . 1:1(0)", TcpPart(16, SequenceRange(1, 0))),
        ("< . 1:1(0) ack 5", TcpPart(16, SequenceRange(1, 0), 5)),
        ("< . 1:1(0) ack 5 win 7 urg 3", TcpPart(16, SequenceRange(1, 0), 5, 7, 3)),
        ("> . 1:1001(1000) <...>", TcpPart(16, SequenceRange(1, 1000), options=None)),
        ("< . 1:1(0) <>", TcpPart(16, SequenceRange(1, 0))),
        ("< . 4294967295:1(2)", TcpPart(16, SequenceRange(4294967295, 2))),
        ("< . 4294967295:4294967297(2)", TcpPart(16, SequenceRange(4294967295, 2))),
    ],
)
def test_tcp(text: str, expected: TcpPart) -> None:
    packet = parse_packet(text)
    assert packet.content == expected
    assert packet.payload_length == expected.sequence.length


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ect0", IpPart(ecn=Ecn.ECT0)),
        ("ect1", IpPart(ecn=Ecn.ECT1)),
        ("ect01", IpPart(ecn=Ecn.ECT0_OR_ECT1)),
        ("ce", IpPart(ecn=Ecn.CE)),
        ("noecn", IpPart(ecn=Ecn.NOT_ECT)),
        ("tos 0x10", IpPart(traffic_class=16)),
        ("ttl 64", IpPart(hop_limit=64)),
        ("flowlabel 0xfffff", IpPart(flow_label=0xFFFFF)),
        ("ce, tos 8, ttl 1", IpPart(8, Ecn.CE, 1)),
    ],
)
def test_ip_part(text: str, expected: IpPart) -> None:
    assert parse_packet(f"> [{text}] S 0:0(0)").ip == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[1:1461(1460)] icmp unreachable frag_needed mtu 1400",
            IcmpPart(False, "unreachable", "frag_needed", 1400, SequenceRange(1, 1460)),
        ),
        (
            "icmp unreachable port_unreachable [0:0(0)]",
            IcmpPart(False, "unreachable", "port_unreachable", None, SequenceRange(0, 0)),
        ),
        ("icmpv6 packet_too_big mtu 1280", IcmpPart(True, "packet_too_big", None, 1280)),
        ("icmp6 time_exceeded exceeded_hoplimit", IcmpPart(True, "time_exceeded", "exceeded_hoplimit")),
        ("icmp 3 4 mtu 5", IcmpPart(False, "3", "4", 5)),
        ("icmp source_quench", IcmpPart(False, "source_quench")),
    ],
)
def test_icmp(text: str, expected: IcmpPart) -> None:
    assert parse_packet(f"< {text}").content == expected


def test_addresses() -> None:
    packet = parse_packet('< addr[caddr1] > addr[s=inet_addr("10.0.0.1")]:8080 S 0:0(0)')
    assert packet.direction is Direction.IN
    assert packet.source == AddressReference("caddr1")
    assert packet.destination == AddressReference("s", b"\x0a\0\0\1", 8080)


def test_options_may_go_over_several_lines() -> None:
    script = parse_script(
        "+0 < S 0:0(0) win 1000 <mss 1460,\n      nop, nop, // two\n      sackOK\n   >\n"
        "+0 > S. 0:0(0) ack 1\n   <...>\n"
    )
    first, second = (event.action for event in script.events)
    assert isinstance(first, Packet)
    assert isinstance(second, Packet)
    assert isinstance(first.content, TcpPart)
    assert isinstance(second.content, TcpPart)
    assert first.content.options == (MaximumSegmentSize(1460), NoOperation(), NoOperation(), SackPermitted())
    assert second.content.options is None


def test_places_in_a_packet() -> None:
    (event,) = parse_script("0 < S 0:0(0) <mss 1460,\n  mpcapable key[ckey=2]>").events
    assert isinstance(event.action, Packet)
    assert event.action.location == Location(1, 3)
    content = event.action.content
    assert isinstance(content, TcpPart)
    assert content.options is not None
    capable = content.options[1]
    assert content.options[0].location == Location(1, 15)
    assert capable.location == Location(2, 3)
    assert isinstance(capable, MpCapableOption)
    assert capable.keys is not None
    assert capable.keys[0].location == Location(2, 17)
