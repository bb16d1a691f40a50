"""What comes out of the stack: equal packets agree, and each single deviation is named."""

from __future__ import annotations

import pytest

from testbed.packetdrill.errors import PacketError
from testbed.packetdrill.packets import Bindings, Mismatch, match
from testbed.packetdrill.parser import parse_packet

from .conversation import SCRIPT_V4, STACK_V4, Conversation, bindings, established

JOIN = "addr[saddr0] > addr[caddr1]"
# What the stack sends, what the script says, which field differs, how the two values are written.
DEVIATIONS = [
    ("P. 1:11(10) ack 1", "P. 2:12(10) ack 1", "sequence", "2", "1"),
    ("P. 1:11(10) ack 1", "P. 1:10(9) ack 1", "length", "9", "10"),
    ("P. 1:11(10) ack 1", ". 1:11(10) ack 1", "flags", ".", "P."),
    ("P. 1:11(10) ack 1", "P. 1:11(10) ack 2", "ack", "2", "1"),
    ("P. 1:11(10) ack 1 win 5", "P. 1:11(10) ack 1 win 6", "win", "6", "5"),
    ("U. 1:1(0) ack 1 urg 4", "U. 1:1(0) ack 1 urg 3", "urg", "3", "4"),
    ("[ect0] . 1:1(0)", "[ce] . 1:1(0)", "ecn", "ce", "ect0"),
    ("[ce] . 1:1(0)", "[ect01] . 1:1(0)", "ecn", "ect01", "ce"),
    ("[tos 0x10] . 1:1(0)", "[tos 0x20] . 1:1(0)", "tos", "0x20", "0x10"),
    ("[ttl 3] . 1:1(0)", "[ttl 4] . 1:1(0)", "ttl", "4", "3"),
    (". 1:1(0) <mss 5>", ". 1:1(0) <mss 6>", "mss", "mss 6", "mss 5"),
    (". 1:1(0) <wscale 5>", ". 1:1(0) <wscale 6>", "wscale", "wscale 6", "wscale 5"),
    (". 1:1(0) <sack 1:2>", ". 1:1(0) <sack 1:3>", "sack", "sack 1:3", "sack 1:2"),
    (". 1:1(0) <TS val 5 ecr 0>", ". 1:1(0) <TS val 5 ecr 6>", "TS ecr", "6", "0"),
    (". 1:1(0) <FO 0a0b>", ". 1:1(0) <FO 0a0c>", "FO cookie", "0a0c", "0a0b"),
    (". 1:1(0) <FO>", ". 1:1(0) <FO ...>", "FO cookie", "FO cookie", "nothing"),
    (". 1:1(0) <FO 0a0b>", ". 1:1(0) <FO>", "FO cookie", "an empty one", "0a0b"),
    (f". 1:1(0) <md5 {'11' * 16}>", f". 1:1(0) <md5 {'22' * 16}>", "md5", "22" * 16, "11" * 16),
    (". 1:1(0) <raw fd04aa01>", ". 1:1(0) <raw fd04aa02>", "raw option", "fd04aa02", "fd04aa01"),
    (". 1:1(0) <mss 5>", ". 1:1(0)", "options", "nothing", "<mss 5>"),
    (". 1:1(0)", ". 1:1(0) <mss 5>", "options", "<mss 5>", "nothing"),
    (". 1:1(0) <nop, wscale 5>", ". 1:1(0) <wscale 5, nop>", "options", "<wscale 5, nop>", "<nop, wscale 5>"),
    (". 1:1(0) <FO>", ". 1:1(0) <FOEXP>", "options", "<FOEXP>", "<FO, nop, nop>"),
    ("S 0:0(0) <mpcapable v1>", "S 0:0(0) <mpcapable v0>", "mpcapable version", "0", "1"),
    (
        "S 0:0(0) <mpcapable flags[flag_h]>",
        "S 0:0(0) <mpcapable flags[flag_a, flag_h]>",
        "mpcapable flags",
        "0x81",
        "0x1",
    ),
    (
        "S 0:0(0) <mpcapable nokey>",
        "S 0:0(0) <mpcapable key[q]>",
        "mpcapable sender key",
        "mpcapable sender key",
        "nothing",
    ),
    (
        "S 0:0(0) <mpcapable key[q]>",
        "S 0:0(0) <mpcapable nokey>",
        "mpcapable sender key",
        "nothing",
        "mpcapable sender key",
    ),
    (
        "S 0:0(0) <mpcapable key[q=5]>",
        "S 0:0(0) <mpcapable key[q=6]>",
        "mpcapable sender key",
        "q=0x0000000000000006",
        "q=0x0000000000000005",
    ),
    (
        ". 1:1(0) <mpcapable key[skey, q=5]>",
        ". 1:1(0) <mpcapable key[skey, ckey]>",
        "mpcapable receiver key",
        "ckey=0x0000000000000002",
        "ckey=0x0000000000000005",
    ),
    (
        ". 1:6(5) <mpcapable key[skey, ckey] mpcdatalen 5>",
        ". 1:6(5) <mpcapable key[skey, ckey] mpcdatalen 6>",
        "mpcapable mpcdatalen",
        "6",
        "5",
    ),
    (
        ". 1:6(5) <mpcapable key[skey, ckey]>",
        ". 1:6(5) <mpcapable key[skey, ckey] mpcdatalen 5>",
        "mpcapable mpcdatalen",
        "5",
        "nothing",
    ),
    (
        ". 1:6(5) <mpcapable key[skey, ckey] mpcdatalen 5 cksum=3>",
        ". 1:6(5) <mpcapable key[skey, ckey] mpcdatalen 5 cksum=4>",
        "mpcapable checksum",
        "0x4",
        "0x3",
    ),
    (". 1:1(0) <dss dack8=1 nocs>", ". 1:1(0) <dss dack8=2 nocs>", "dss dack", "2", "1"),
    (". 1:1(0) <dss dack4=1 nocs>", ". 1:1(0) <dss dack4=2 nocs>", "dss dack", "2", "1"),
    (". 1:1(0) <dss dack4=1 nocs>", ". 1:1(0) <dss dack8=1 nocs>", "dss dack width", "8", "4"),
    (". 1:1(0) <dss dack8=1 nocs>", ". 1:1(0) <dss dack8=trunc_r64_hmac(ckey)+2 nocs>", "dss dack", "2", "1"),
    (
        ". 1:6(5) <dss dack8=1 dsn8=1 ssn=1 dll=5 nocs>",
        ". 1:6(5) <dss dack8=1 dsn8=2 ssn=1 dll=5 nocs>",
        "dss dsn",
        "2",
        "1",
    ),
    (
        ". 1:6(5) <dss dack8=1 dsn4=1 ssn=1 dll=5 nocs>",
        ". 1:6(5) <dss dack8=1 dsn8=1 ssn=1 dll=5 nocs>",
        "dss dsn width",
        "8",
        "4",
    ),
    (". 1:6(5) <dss dsn8=1 ssn=1 nocs>", ". 1:6(5) <dss dsn8=1 ssn=2 nocs>", "dss ssn", "2", "1"),
    (". 1:6(5) <dss dsn8=1 dll=5 nocs>", ". 1:6(5) <dss dsn8=1 dll=6 nocs>", "dss dll", "6", "5"),
    (". 1:6(5) <dss dsn8=1 nocs>", ". 1:6(5) <dss dsn8=1 cksum=1>", "dss checksum", "0x1", "nothing"),
    (". 1:6(5) <dss dsn8=1 cksum=2>", ". 1:6(5) <dss dsn8=1 cksum=1>", "dss checksum", "0x1", "0x2"),
    (
        ". 1:6(5) <dss dsn8=1 cksum=1>",
        ". 1:6(5) <dss dsn8=1 nocs>",
        "dss checksum",
        "nothing",
        "dss checksum",
    ),
    (". 1:1(0) <dss dsn8=1 nocs fin>", ". 1:1(0) <dss dsn8=1 nocs>", "dss fin", "nothing", "dss fin"),
    (
        ". 1:1(0) <dss dsn8=1 dll=1 nocs>",
        ". 1:1(0) <dss dsn8=1 dll=1 nocs fin>",
        "dss fin",
        "dss fin",
        "nothing",
    ),
    (
        ". 1:1(0) <dss dack8=1 dsn8 nocs>",
        ". 1:1(0) <dss dack8=1 nodsn nocs>",
        "dss dsn",
        "nothing",
        "dss dsn",
    ),
    (". 1:1(0) <dss dack8=1 dsn8 nocs>", ". 1:1(0) <dss nodack nocs>", "dss dack", "nothing", "dss dack"),
    (". 1:1(0) <dss dack8=1 nocs>", ". 1:1(0) <dss dack8=1 dsn nocs>", "dss dsn", "dss dsn", "nothing"),
    (". 1:1(0) <dss dack8=1 nocs>", ". 1:1(0) <dss ssn=1>", "dss ssn", "1", "nothing"),
    (". 1:1(0) <dss dack8=1 nocs>", ". 1:1(0) <dss dll=1>", "dss dll", "1", "nothing"),
    (". 1:1(0) <dss dack8=1 nocs>", ". 1:1(0) <dss cksum=1>", "dss checksum", "0x1", "nothing"),
    (". 1:1(0) <dss dack4=1 nocs>", ". 1:1(0) <dss dack=2 nocs>", "dss dack", "2", "1"),
    (". 1:1(0) <dss dack8=1 nocs>", ". 1:1(0) <dss dack=2 nocs>", "dss dack", "2", "1"),
    (". 1:1(0) <dss dsn8 nocs>", ". 1:1(0) <dss dack8 dsn8 nocs>", "dss dack", "dss dack", "nothing"),
    (
        f"{JOIN} S 0:0(0) <mp_join_syn token=5>",
        f"{JOIN} S 0:0(0) <mp_join_syn token=6>",
        "mp_join_syn token",
        "0x6",
        "0x5",
    ),
    (
        f"{JOIN} S 0:0(0) <mp_join_syn token=5 backup=1>",
        f"{JOIN} S 0:0(0) <mp_join_syn backup=0>",
        "mp_join_syn backup",
        "0",
        "1",
    ),
    (
        f"{JOIN} S 0:0(0) <mp_join_syn token=5 address_id=1>",
        f"{JOIN} S 0:0(0) <mp_join_syn address_id=2>",
        "mp_join_syn address_id",
        "2",
        "1",
    ),
    (
        f"{JOIN} S 0:0(0) <mp_join_syn token=5 rand=1>",
        f"{JOIN} S 0:0(0) <mp_join_syn rand=2>",
        "mp_join_syn rand",
        "2",
        "1",
    ),
    (
        ". 1:1(0) <mp_join_syn_ack sender_hmac=1>",
        ". 1:1(0) <mp_join_syn_ack sender_hmac=2>",
        "mp_join_syn_ack sender_hmac",
        "0000000000000002",
        "0000000000000001",
    ),
    (
        ". 1:1(0) <mp_join_ack sender_hmac=1>",
        ". 1:1(0) <mp_join_ack sender_hmac=2>",
        "mp_join_ack sender_hmac",
        f"{2:040x}",
        f"{1:040x}",
    ),
    (
        ". 1:1(0) <add_address address_id=1 addr[saddr1]>",
        ". 1:1(0) <add_address address_id=2 addr[saddr1]>",
        "add_address address_id",
        "2",
        "1",
    ),
    (
        '. 1:1(0) <add_address addr[x="10.0.0.1"]>',
        '. 1:1(0) <add_address addr[x="10.0.0.2"]>',
        "add_address addr",
        "10.0.0.2",
        "10.0.0.1",
    ),
    (
        ". 1:1(0) <add_address addr[saddr1] port=1>",
        ". 1:1(0) <add_address addr[saddr1] port=2>",
        "add_address port",
        "2",
        "1",
    ),
    (
        ". 1:1(0) <add_address addr[saddr1]>",
        ". 1:1(0) <add_address addr[saddr1] port=1>",
        "add_address port",
        "1",
        "nothing",
    ),
    (
        ". 1:1(0) <add_address addr[saddr1] hmac=1>",
        ". 1:1(0) <add_address addr[saddr1] hmac=2>",
        "add_address hmac",
        "0000000000000002",
        "0000000000000001",
    ),
    (
        ". 1:1(0) <add_address address_id=1 addr[caddr1] addr_echo>",
        ". 1:1(0) <add_address address_id=1 addr[caddr1]>",
        "add_address addr_echo",
        "nothing",
        "add_address addr_echo",
    ),
    (
        ". 1:1(0) <remove_address address_id=[1,2]>",
        ". 1:1(0) <remove_address address_id=[1,3]>",
        "remove_address address_id",
        "[1, 3]",
        "[1, 2]",
    ),
    (". 1:1(0) <mp_prio backup=1>", ". 1:1(0) <mp_prio backup=0>", "mp_prio backup", "0", "1"),
    (
        ". 1:1(0) <mp_prio>",
        ". 1:1(0) <mp_prio address_id=1>",
        "mp_prio address_id",
        "1",
        "nothing",
    ),
    (". 1:1(0) <mp_fail dsn8=1>", ". 1:1(0) <mp_fail dsn8=2>", "mp_fail dsn8", "2", "1"),
    (
        "R 1:1(0) <mp_fastclose q=5>",
        "R 1:1(0) <mp_fastclose ckey>",
        "mp_fastclose key",
        "ckey=0x0000000000000002",
        "ckey=0x0000000000000005",
    ),
    ("R 1:1(0) <mp_reset 1>", "R 1:1(0) <mp_reset 2>", "mp_reset reason", "2", "1"),
    ("R 1:1(0) <mp_reset 1>", "R 1:1(0) <mp_reset 1 flags[flag_t]>", "mp_reset flags", "0x1", "0x0"),
]


@pytest.mark.parametrize(
    ("sent", "expected", "field", "wanted", "got"), DEVIATIONS, ids=[d[1] for d in DEVIATIONS]
)
def test_one_deviation_is_named(sent: str, expected: str, field: str, wanted: str, got: str) -> None:
    conversation = established()
    mismatches = conversation.expect(f"> {expected}", f"< {sent}")
    assert mismatches == [Mismatch(field, wanted, got)]
    assert str(mismatches[0]) == f"{field}: expected {wanted}, got {got}"


@pytest.mark.parametrize("sent", sorted({deviation[0] for deviation in DEVIATIONS}))
def test_the_same_text_agrees(sent: str) -> None:
    conversation = established()
    assert conversation.expect(f"> {sent}", f"< {sent}") == []


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("P. 1:11(10) ack 1 win 7", "P. 1:11(10)"),
        ("[ce, tos 0x20, ttl 3] . 1:1(0)", ". 1:1(0)"),
        ("[ect1] . 1:1(0)", "[ect01] . 1:1(0)"),
        (". 1:1(0) <mss 5, sackOK>", ". 1:1(0) <...>"),
        (". 1:1(0) <TS val 5 ecr 0>", ". 1:1(0) <TS>"),
        (". 1:1(0) <FO 0a0b>", ". 1:1(0) <FO ...>"),
        (". 1:1(0) <mpcapable v1 flags[flag_a] key[skey]>", ". 1:1(0) <mpcapable>"),
        (". 1:6(5) <dss dack8=9 dsn8=1 ssn=1 dll=5 nocs>", ". 1:6(5) <dss dack8 dsn8>"),
        (". 1:6(5) <dss dack8=9 dsn8=1 ssn=1 dll=5 nocs>", ". 1:6(5) <dss>"),
        (". 1:6(5) <dss dack8=9 dsn8=1 ssn=1 dll=5 nocs>", ". 1:6(5) <dss dack8=9>"),
        (". 1:6(5) <dss dack8=9 dsn8=1 ssn=1 dll=5 nocs>", ". 1:6(5) <dss dsn8=1>"),
        (". 1:6(5) <dss dack8=9 dsn4=1 ssn=1 dll=5 nocs>", ". 1:6(5) <dss ssn=1 dll=5>"),
        (". 1:6(5) <dss dack8=9 dsn4=1 ssn=1 dll=5 nocs>", ". 1:6(5) <dss dack=9 dsn=1>"),
        (". 1:6(5) <dss dack4=9 dsn8=1 ssn=1 dll=5 nocs>", ". 1:6(5) <dss dack=9 dsn=1>"),
        (". 1:1(0) <dss dack4=9 nocs>", ". 1:1(0) <dss dack=9 nodsn>"),
        (". 1:1(0) <mp_prio backup=1 address_id=4>", ". 1:1(0) <mp_prio backup=1>"),
        (". 1:1(0) <add_address addr[saddr1] port=1>", ". 1:1(0) <add_address addr[saddr1]>"),
        (". 1:6(5) <mpcapable key[skey, ckey] mpcdatalen 5>", ". 1:6(5) <mpcapable key[skey, ckey]>"),
        (". 1:1(0) <mss 5, sackOK, nop, nop>", ". 1:1(0) <mss 5, ...>"),
        (". 1:1(0) <mss 5>", ". 1:1(0) <mss 5, ...>"),
        (". 1:1(0) <mss 5, sackOK, nop, wscale 3>", ". 1:1(0) <..., wscale 3>"),
        (". 1:1(0) <mss 5, sackOK, nop, nop>", ". 1:1(0) <..., sackOK>"),
        (". 1:1(0) <nop, nop, sackOK>", ". 1:1(0) <..., sackOK>"),
        (". 1:1(0) <mss 5, sackOK, nop, wscale 3, nop>", ". 1:1(0) <..., sackOK, ...>"),
        (". 1:1(0) <mss 5, sackOK, nop, wscale 3, nop>", ". 1:1(0) <mss 5, ..., wscale 3, ..., nop>"),
        (". 1:6(5) <dss dack8=1 dsn8=1 cksum=auto>", ". 1:6(5) <dss dack8=1 dsn8=1 cksum=auto>"),
        (". 1:1(0) <mp_join_syn token=5 backup=1 rand=3>", ". 1:1(0) <mp_join_syn>"),
        (". 1:1(0) <mp_join_syn token=auto>", ". 1:1(0) <mp_join_syn token=sha256_32(ckey)>"),
        (". 1:1(0) <add_address address_id=5 addr[saddr1] hmac=1>", ". 1:1(0) <add_address addr[any]>"),
        (". 1:1(0) <mp_fail dsn8=7>", ". 1:1(0) <mp_fail>"),
        (". 1:1(0) <mp_fail dsn8=7>", ". 1:1(0) <mp_fail dsn8=trunc_r64_hmac(ckey)+7>"),
        ("R 1:1(0) <mp_fastclose>", "R 1:1(0) <mp_fastclose ckey>"),
        ("R 1:1(0) <mp_reset 3 flags[flag_t]>", "R 1:1(0) <mp_reset>"),
        # Padding at the end need not be written, but may be.
        (". 1:1(0) <sackOK, nop, nop>", ". 1:1(0) <sackOK>"),
        (". 1:1(0) <sackOK, nop, nop>", ". 1:1(0) <sackOK, nop, nop>"),
        (". 1:1(0) <mp_prio backup=1>", ". 1:1(0) <mp_prio backup=1>"),
    ],
)
def test_what_is_left_out_is_not_compared(sent: str, expected: str) -> None:
    conversation = established()
    assert conversation.expect(f"> {expected}", f"< {sent}") == []


def test_too_much_padding_is_not_overlooked() -> None:
    conversation = established()
    (mismatch,) = conversation.expect("> . 1:1(0) <mss 5>", "< . 1:1(0) <mss 5, nop, nop, nop, nop>")
    assert mismatch.field == "options"


@pytest.mark.parametrize(
    ("expected", "field"),
    [
        ("mss 6, ...", "mss"),
        ("..., wscale 4", "wscale"),
        ("..., sackOK, nop, wscale 4, ...", "wscale"),
        ("wscale 3, ...", "options"),
        ("..., mss 5", "options"),
        ("..., sackOK", "options"),
        ("..., wscale 3, mss 5, ...", "options"),
        ("mss 5, ..., mss 5", "options"),
        ("..., md5, ...", "options"),
        ("..., nop, nop, nop", "options"),
    ],
)
def test_what_stands_beside_an_ellipsis_is_compared(expected: str, field: str) -> None:
    conversation = established()
    sent = "< . 1:1(0) <mss 5, sackOK, nop, wscale 3, nop>"
    (mismatch,) = conversation.expect(f"> . 1:1(0) <{expected}>", sent)
    assert mismatch.field == field


def test_all_deviations_are_found() -> None:
    conversation = established()
    mismatches = conversation.expect(
        "> [ce, ttl 9] P. 5:7(2) ack 9 win 1 <mss 5, dss dack8=9 nocs>",
        "< FR 1:2(1) ack 1 win 2 <mss 6, dss dack8=8 nocs>",
    )
    assert [mismatch.field for mismatch in mismatches] == [
        "ecn",
        "ttl",
        "flags",
        "sequence",
        "length",
        "ack",
        "win",
        "mss",
        "dss dack",
    ]


def test_timestamps_count_from_the_first_that_is_written() -> None:
    conversation = established()
    assert conversation.expect("> . 1:1(0) <TS val 100 ecr 0>", "< . 1:1(0) <TS val 4294967290 ecr 0>") == []
    assert conversation.expect("> . 1:1(0) <TS val 110 ecr 0>", "< . 1:1(0) <TS val 4 ecr 0>") == []
    assert conversation.expect("> . 1:1(0) <TS val 110 ecr 0>", "< . 1:1(0) <TS val 5 ecr 0>") == [
        Mismatch("TS val", "110", "111")
    ]
    conversation.script.timestamp_tolerance = 1
    assert conversation.expect("> . 1:1(0) <TS val 110 ecr 0>", "< . 1:1(0) <TS val 5 ecr 0>") == []
    assert conversation.expect("> . 1:1(0) <TS val 112 ecr 0>", "< . 1:1(0) <TS val 5 ecr 0>") == []


def test_flow_label() -> None:
    conversation = established(is_ipv6=True)
    sent = "< [flowlabel 0x5] . 1:1(0)"
    assert conversation.expect("> [flowlabel 0x5] . 1:1(0)", sent) == []
    assert conversation.expect("> [flowlabel 0x6] . 1:1(0)", sent) == [Mismatch("flowlabel", "0x6", "0x5")]


def test_a_wrong_checksum() -> None:
    conversation = established()
    packet = bytearray(conversation.send("< P. 1:11(10) ack 1"))
    packet[-1] ^= 1
    expected = parse_packet("> P. 1:11(10) ack 1")
    assert match(expected, bytes(packet), conversation.script) == []
    (mismatch,) = match(expected, bytes(packet), conversation.script, verify_checksum=True)
    assert mismatch == Mismatch("checksum", "a right one", "a wrong one")


@pytest.mark.parametrize("data", [b"", b"\x45", bytes(60), b"\x60" + bytes(60)])
def test_what_is_no_packet(data: bytes) -> None:
    (mismatch,) = match(parse_packet("> S 0:0(0)"), data, bindings())
    assert mismatch.field == "packet"


# --- subflows ---


def test_a_packet_of_another_subflow() -> None:
    conversation = established()
    conversation.send(f"< {JOIN} S 0:0(0) <mp_join_syn token=auto>")
    (mismatch,) = conversation.expect("> S 0:0(0) <...>", f"< {JOIN} S 0:0(0) <mp_join_syn token=auto>")
    assert mismatch.field == "subflow"
    assert "192.0.2.1 port 40000" in mismatch.expected
    assert "192.0.2.2" in mismatch.got


def test_addresses_are_bound_at_first_use_and_compared_after() -> None:
    conversation = established()
    sent = f"< {JOIN} S 0:0(0) <mp_join_syn token=auto>"
    assert conversation.expect("> addr[ours] > addr[theirs] S 0:0(0) <mp_join_syn token=auto>", sent) == []
    assert conversation.script.addresses["ours"] == STACK_V4[0]
    assert conversation.script.addresses["theirs"] == SCRIPT_V4[1]
    (mismatch,) = conversation.expect("> addr[theirs] > addr[theirs] S 0:0(0) <...>", sent)
    assert mismatch == Mismatch("source address", "192.0.2.2", "192.168.0.1")
    (mismatch,) = conversation.expect('> addr[ours] > addr[theirs="1.2.3.4"] S 0:0(0) <...>', sent)
    assert mismatch == Mismatch("destination address", "1.2.3.4", "192.0.2.2")
    (mismatch,) = conversation.expect("> addr[ours]:1 > addr[t] S 0:0(0) <...>", sent)
    assert mismatch.field == "source port"


def test_sequence_numbers_of_each_subflow() -> None:
    conversation = established()
    conversation.inject("< P. 1:101(100) ack 1 <dss dack8=1 dsn8=1 ssn=1 dll=100 nocs, nop, nop>")
    head = "addr[saddr0] > addr[caddr2]"
    sent = f"{head} S 0:0(0) <mp_join_syn token=auto>"
    assert conversation.expect(f"> {sent}", f"< {sent}") == []
    conversation.inject("< addr[caddr2] > addr[saddr0] S. 0:0(0) ack 1 <mp_join_syn_ack>")
    sent = f"{head} . 1:1(0) ack 1 <mp_join_ack sender_hmac=auto>"
    assert conversation.expect(f"> {sent}", f"< {sent}") == []
    assert (
        conversation.expect("> . 1:1(0) ack 101 <dss dack8=101 nocs>", "< . 1:1(0) ack 101 <dss dack8 nocs>")
        == []
    )
    sent = f"{head} . 1:1(0) ack 1 <dss dack8=101 nocs>"
    assert conversation.expect(f"> {sent}", f"< {sent}") == []


def test_a_new_connection_after_the_end_of_the_first() -> None:
    """The stack calls twice; its second SYN begins a connection with keys of its own."""
    conversation = Conversation()
    for name in ("one", "two"):
        sent = "S 0:0(0) <mpcapable v1 nokey>"
        assert conversation.expect(f"> {sent}", f"< {sent}") == []
        conversation.inject(f"< S. 0:0(0) ack 1 <mpcapable v1 key[{name}]>")
        assert conversation.expect("> R. 1:1(0) ack 1", "< R. 1:1(0) ack 1") == []
    assert len(conversation.script.subflows) == 2
    first, second = conversation.script.subflows
    assert first.connection.remote.key != second.connection.remote.key
    assert conversation.script.default_subflow is second


def test_a_copy_can_be_tried_out() -> None:
    conversation = established()
    trial = conversation.script.copy()
    packet = conversation.send(f"< {JOIN} S 0:0(0) <mp_join_syn token=auto>")
    assert match(parse_packet("> addr[p] > addr[q] S 5:5(0) <...>"), packet, trial) == []
    assert len(trial.subflows) == 2
    assert len(conversation.script.subflows) == 1
    assert "p" not in conversation.script.addresses


def test_unknown_keys() -> None:
    conversation = established()
    for option in ("mp_join_syn token=sha256_32(nobody)", "dss dack8=trunc_r64_hmac(nobody) nocs"):
        with pytest.raises(PacketError, match="'nobody' has no value yet"):
            conversation.expect(
                f"> . 1:1(0) <{option}>",
                "< . 1:1(0) <mp_join_syn token=1>" if "join" in option else "< . 1:1(0) <dss dack8=1 nocs>",
            )


# --- ICMP ---


def test_icmp_from_the_stack() -> None:
    conversation = established()
    sent = "< [5:15(10)] icmp unreachable port_unreachable"
    assert conversation.expect("> [5:15(10)] icmp unreachable port_unreachable", sent) == []
    assert conversation.expect("> icmp unreachable port_unreachable", sent) == []
    assert conversation.expect("> [6:15(9)] icmp unreachable port_unreachable", sent) == [
        Mismatch("icmp quoted sequence", "6", "5")
    ]
    assert conversation.expect("> icmp unreachable host_unreachable", sent) == [
        Mismatch("icmp code", "1", "3")
    ]
    assert conversation.expect("> icmp time_exceeded", sent)[0] == Mismatch("icmp type", "11", "3")
    assert conversation.expect("> icmp unreachable port_unreachable mtu 5", sent) == [
        Mismatch("icmp mtu", "5", "0")
    ]
    assert conversation.expect("> S 0:0(0)", sent) == [Mismatch("protocol", "TCP", "ICMP")]
    assert conversation.expect("> icmp unreachable", "< S 0:0(0)") == [Mismatch("protocol", "ICMP", "TCP")]


def test_icmp_before_any_packet() -> None:
    some = established()
    packet = some.send("< icmp unreachable")
    fresh = Bindings(STACK_V4, SCRIPT_V4)
    with pytest.raises(PacketError, match="before the first TCP packet"):
        match(parse_packet("> icmp unreachable"), packet, fresh)
