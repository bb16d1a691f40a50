"""What goes into the stack, judged by the codecs of the stack and by RFC 8684's formulas."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from mptcp_stack.wire.icmp import (
    IcmpDestinationUnreachable,
    IcmpPacketTooBig,
    icmpv4_checksum_is_good,
    icmpv6_checksum_is_good,
    parse_icmpv4,
    parse_icmpv6,
)
from mptcp_stack.wire.ip_packet import parse_ipv4, parse_ipv6, parse_quoted_packet
from mptcp_stack.wire.mptcp_options import (
    AddAddr,
    Dss,
    MpCapable,
    MpFail,
    MpFastclose,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
    MpPrio,
    MptcpOption,
    MpTcpRst,
    RemoveAddr,
)
from mptcp_stack.wire.tcp_segment import TcpSegment, parse_tcp
from testbed.packetdrill.errors import PacketError, PacketScriptError
from testbed.packetdrill.packets import Bindings, build, unaligned_bytes
from testbed.packetdrill.parser import parse_packet
from testbed.packetdrill.wire_packet import WireTcp, read_wire_packet

from .conversation import SCRIPT_ISN, SCRIPT_V4, STACK_ISN, STACK_V4, Conversation, bindings, established

CKEY = (2).to_bytes(8, "big")


def segment(packet: bytes) -> TcpSegment:
    return parse_tcp(parse_ipv4(memoryview(packet)).payload)


def only_mptcp(packet: bytes) -> MptcpOption:
    (option,) = segment(packet).options.mptcp
    return option


def option_bytes(text: str, to: Bindings | None = None) -> bytes:
    content = read_wire_packet(build(parse_packet(f"< . 1:1(0) ack 1 <{text}>"), to or bindings())).content
    assert isinstance(content, WireTcp)
    return content.option_bytes


def skey_of(conversation: Conversation) -> bytes:
    return conversation.script.keys["skey"]


def initial_data_sequence(key: bytes) -> int:
    return int.from_bytes(hashlib.sha256(key).digest()[-8:], "big")


def test_header_and_addresses() -> None:
    conversation = established()
    packet = conversation.inject("< [ect1, tos 0x20, ttl 9] FP.U 1:11(10) ack 5 win 77 urg 3")
    ip = parse_ipv4(memoryview(packet))
    tcp = parse_tcp(ip.payload)
    assert (ip.source, ip.destination) == (SCRIPT_V4[0], STACK_V4[0])
    assert (ip.hop_limit, ip.traffic_class) == (9, 0x21)
    assert (tcp.source_port, tcp.destination_port) == (40000, 8080)
    assert tcp.sequence == (SCRIPT_ISN + 1) % (1 << 32)
    assert tcp.acknowledgement == (STACK_ISN + 5) % (1 << 32)
    assert (tcp.flags, tcp.window, tcp.urgent_pointer) == (0x39, 77, 3)
    assert bytes(tcp.payload) == bytes(10)
    content = read_wire_packet(packet).content
    assert isinstance(content, WireTcp)
    assert content.checksum_is_good


def test_ipv6() -> None:
    conversation = established(is_ipv6=True)
    packet = conversation.inject("< [flowlabel 0xabcde, ce] P. 1:6(5) ack 1")
    ip = parse_ipv6(memoryview(packet))
    assert packet[:4] == b"\x60\x3a\xbc\xde"
    assert len(ip.payload) == 25
    content = read_wire_packet(packet).content
    assert isinstance(content, WireTcp)
    assert content.checksum_is_good


def test_window_stays_until_another_is_written() -> None:
    conversation = established()
    assert segment(conversation.inject("< . 1:1(0) ack 1")).window == 256
    assert segment(conversation.inject("< . 1:1(0) ack 1 win 9")).window == 9
    assert segment(conversation.inject("< . 1:1(0) ack 1")).window == 9


def test_data_that_is_handed_in() -> None:
    packet = build(parse_packet("< P. 1:4(3) ack 1"), bindings(), b"abc")
    assert bytes(segment(packet).payload) == b"abc"
    with pytest.raises(PacketError, match="2 bytes of data for a packet of 3"):
        build(parse_packet("< P. 1:4(3) ack 1"), bindings(), b"ab")


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("mss 1460", "020405b4"),
        ("nop, nop, sackOK", "01010402"),
        ("nop, wscale 7", "01030307"),
        ("mss 1460, sackOK, nop, nop, nop, wscale 8", "020405b40402010101030308"),
        ("FO", "2202" + "0101"),
        ("FO 0a0b0c0d, nop, nop", "22060a0b0c0d0101"),
        ("FOEXP", "fe04f989"),
        ("FOEXP 0a0b0c0d", "fe08f9890a0b0c0d"),
        ("md5, nop, nop", "1312" + "00" * 16 + "0101"),
        ("nop, nop, md5 " + "5a" * 16, "01011312" + "5a" * 16),
        ("eol", "00000000"),
        ("raw fd04abcd", "fd04abcd"),
        ("raw 02", "02010101"),
        ("mp_prio backup=1, nop", "1e035101"),
        ("mp_prio address_id=9", "1e045009"),
        ("remove_address address_id=[1,2], nop, nop, nop", "1e05400102010101"),
        ("mp_reset 3 flags[flag_t]", "1e048103"),
        ("mp_reset 1 flags[flag_u, flag_v, flag_w]", "1e048e01"),
        ("mpcapable v0 flags 0x81 nokey", "1e040081"),
        ("mpcapable", "1e040101"),
        ("mpcapable key[x=0x0102030405060708]", "1e0c01010102030405060708"),
        ("mpcapable key[x=1, y=2] mpcdatalen 5, nop, nop", "1e160101" + f"{1:016x}{2:016x}00050101"),
        ("mpcapable key[x=1, y=2] mpcdatalen 5 cksum=7", "1e180101" + f"{1:016x}{2:016x}00050007"),
        ("mp_join_syn backup=1 address_id=5 token=0x01020304 rand=9", "1e0c1105" + "0102030400000009"),
        ("mp_join_syn_ack sender_hmac=1 rand=2 address_id=3", "1e101003" + f"{1:016x}{2:08x}"),
        ("mp_join_ack sender_hmac=1", "1e181000" + f"{1:040x}"),
        (
            'add_address address_id=4 addr[q="10.0.0.1"] port=80 hmac=3, nop, nop',
            "1e1230040a000001" + f"0050{3:016x}0101",
        ),
        ('add_address address_id=4 addr[q="10.0.0.1"] addr_echo', "1e0831040a000001"),
        ("mp_fastclose k=5", "1e0c7000" + f"{5:016x}"),
        ("mp_fail dsn8=5", "1e0c6000" + f"{5:016x}"),
        ("dss dack4=5 nocs", "1e082001" + f"{5:08x}"),
        ("dss dack8=5 nocs", "1e0c2003" + f"{5:016x}"),
        ("dss dsn4=1 ssn=2 dll=3 nocs, nop, nop", "1e0e2004" + f"{1:08x}{2:08x}00030101"),
        ("dss dsn8=1 ssn=2 dll=3 cksum=4 fin", "1e14201c" + f"{1:016x}{2:08x}00030004"),
        ("dss", "1e042000"),
    ],
)
def test_bytes_of_options(text: str, encoded: str) -> None:
    """Without a key the initial data sequence number counts as 0: relative numbers are those on the wire."""
    assert option_bytes(text).hex() == encoded


def test_options_that_do_not_fit() -> None:
    with pytest.raises(PacketError, match="44 bytes of TCP options, more than 40"):
        option_bytes(", ".join(["mss 1"] * 11))


def test_a_cookie_is_needed() -> None:
    with pytest.raises(PacketScriptError, match=r"needs the cookie itself instead of '\.\.\.'"):
        option_bytes("FO ...")


@pytest.mark.parametrize(
    ("text", "missing"),
    [("mss 5", 0), ("sackOK", 2), ("mss 5, nop", 3), ("mp_prio", 1), ("wscale 3, nop", 0)],
)
def test_unaligned_options_are_told(text: str, missing: int) -> None:
    some = bindings()
    assert unaligned_bytes(parse_packet(f"< . 1:1(0) ack 1 <{text}>"), some) == missing
    assert some.subflows == []
    assert unaligned_bytes(parse_packet("< . 1:1(0) ack 1"), some) == 0
    assert unaligned_bytes(parse_packet("< icmp unreachable"), some) == 0


# --- what is worked out ---


def test_sack_and_timestamps_are_relative() -> None:
    conversation = established()
    conversation.send("< . 1:1(0) ack 1 <nop, nop, TS val 5000 ecr 0>")
    assert (
        conversation.expect(
            "> . 1:1(0) ack 1 <nop, nop, TS val 100 ecr 0>", "< . 1:1(0) ack 1 <nop, nop, TS val 5000 ecr 0>"
        )
        == []
    )
    options = segment(
        build(parse_packet("< . 1:1(0) ack 1 <nop, nop, TS val 7 ecr 130>"), conversation.script)
    ).options
    assert (options.timestamp_value, options.timestamp_echo) == (7, 5030)
    options = segment(build(parse_packet("< . 1:1(0) ack 1 <nop, nop, TS>"), conversation.script)).options
    assert (options.timestamp_value, options.timestamp_echo) == (7, 5000)
    options = segment(
        build(parse_packet("< . 1:1(0) ack 1 <TS ecr 0, sack 1:301>"), conversation.script)
    ).options
    assert options.timestamp_echo == 0
    assert options.sack_blocks == ((STACK_ISN + 1, (STACK_ISN + 301) % (1 << 32)),)


def test_keys() -> None:
    conversation = established()
    assert conversation.script.keys["ckey"] == CKEY
    assert conversation.script.keys["skey"] == conversation.mirror.keys["skey"]
    capable = only_mptcp(conversation.inject("< . 1:1(0) ack 1 <mpcapable key[ckey, skey]>"))
    assert capable == MpCapable(1, 1, CKEY, skey_of(conversation))


def test_an_unset_key_is_made_from_the_seed() -> None:
    keys = []
    for seed in (1, 1, 2):
        some = bindings(seed=seed)
        build(parse_packet("< S 0:0(0) <mpcapable v0 key[x]>"), some)
        keys.append(some.keys["x"])
    assert keys[0] == keys[1] != keys[2]
    assert len(keys[0]) == 8


def test_a_wrong_key_of_the_stack_changes_nothing_for_later_packets() -> None:
    conversation = established()
    conversation.inject("< . 1:1(0) ack 1 <mpcapable key[ckey, wrong=99]>")
    dss = only_mptcp(conversation.inject("< . 1:1(0) ack 1 <dss dack8=1 nocs>"))
    assert dss == Dss((initial_data_sequence(skey_of(conversation)) + 1) % (1 << 64), True)


def test_data_sequence_numbers() -> None:
    conversation = established()
    ours, theirs = initial_data_sequence(CKEY), initial_data_sequence(skey_of(conversation))
    dss = only_mptcp(
        conversation.inject("< P. 1:101(100) ack 1 <dss dack8=11 dsn8=1 ssn=1 dll=100 nocs, nop, nop>")
    )
    assert dss == Dss((theirs + 11) % (1 << 64), True, (ours + 1) % (1 << 64), True, 1, 100)
    dss = only_mptcp(conversation.inject("< P. 101:111(10) ack 1 <dss dack4 dsn4 nocs, nop, nop>"))
    assert dss == Dss((theirs + 1) & 0xFFFFFFFF, False, (ours + 101) & 0xFFFFFFFF, False, 101, 10)
    dss = only_mptcp(conversation.inject("< . 111:111(0) ack 1 <dss dack8 dsn8 nocs fin, nop, nop>"))
    assert dss == Dss((theirs + 1) % (1 << 64), True, (ours + 111) % (1 << 64), True, 0, 1, None, True)
    dss = only_mptcp(conversation.inject("< . 111:111(0) ack 1 <dss dack8=trunc_r64_hmac(ckey)+7 nocs>"))
    assert dss == Dss((ours + 7) % (1 << 64), True)


def test_what_the_stack_mapped_is_acknowledged() -> None:
    conversation = established()
    sent = "< P. 1:51(50) ack 1 <dss dack8=1 dsn8=1 ssn=1 dll=50 nocs, nop, nop>"
    assert (
        conversation.expect("> P. 1:51(50) ack 1 <dss dack8=1 dsn8=1 ssn=1 dll=50 nocs, nop, nop>", sent)
        == []
    )
    dss = only_mptcp(conversation.inject("< . 1:1(0) ack 51 <dss dack8 nocs>"))
    assert dss == Dss((initial_data_sequence(skey_of(conversation)) + 51) % (1 << 64), True)
    assert only_mptcp(conversation.inject("< . 1:1(0) ack 51 <mp_fail>")) == MpFail(
        (initial_data_sequence(skey_of(conversation)) + 1) % (1 << 64)
    )


def checksum(data_sequence: int, subflow_sequence: int, length: int, data: bytes) -> int:
    """RFC 8684 §3.3.1 word by word."""
    covered = data_sequence.to_bytes(8, "big") + subflow_sequence.to_bytes(4, "big")
    covered += length.to_bytes(2, "big") + b"\0\0" + data + b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(covered[at : at + 2], "big") for at in range(0, len(covered), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def test_checksums_are_there_if_they_were_negotiated() -> None:
    conversation = established(checksums=True)
    ours = initial_data_sequence(CKEY)
    text = "< P. 1:4(3) ack 1 <dss dack8=1 dsn8=1 ssn=1 dll=3>"
    dss = only_mptcp(build(parse_packet(text), conversation.script, b"abc"))
    assert isinstance(dss, Dss)
    assert dss.checksum == checksum((ours + 1) % (1 << 64), 1, 3, b"abc")
    dss = only_mptcp(conversation.inject("< P. 1:4(3) ack 1 <dss dack8=1 dsn8=1 ssn=1 dll=3 nocs>"))
    assert isinstance(dss, Dss)
    assert dss.checksum is None
    plain = established()
    dss = only_mptcp(plain.inject("< P. 1:4(3) ack 1 <dss dack8=1 dsn4=1 ssn=1 dll=3 cksum=auto>"))
    assert isinstance(dss, Dss)
    assert dss.checksum == checksum((ours + 1) % (1 << 64), 1, 3, bytes(3))


def test_join_from_the_script() -> None:
    conversation = established()
    skey = skey_of(conversation)
    packet = conversation.inject("< addr[caddr1] > addr[saddr0] S 0:0(0) <mp_join_syn token=sha256_32(skey)>")
    syn = only_mptcp(packet)
    assert isinstance(syn, MpJoinSyn)
    assert syn.token == int.from_bytes(hashlib.sha256(skey).digest()[:4], "big")
    assert (syn.address_id, syn.backup) == (1, False)
    assert parse_ipv4(memoryview(packet)).source == SCRIPT_V4[1]
    answer = "addr[a0] > addr[a1] S. 0:0(0) ack 1 <mp_join_syn_ack address_id=0 sender_hmac={} rand=77>"
    sent = conversation.send("< " + answer.format("auto").replace("a0", "saddr0").replace("a1", "caddr1"))
    synack = only_mptcp(sent)
    assert isinstance(synack, MpJoinSynAck)
    nonces = (77).to_bytes(4, "big"), syn.nonce.to_bytes(4, "big")
    assert synack.truncated_hmac == hmac.digest(skey + CKEY, b"".join(nonces), "sha256")[:8]


def test_third_packet_of_a_join() -> None:
    conversation = established()
    conversation.inject("< addr[caddr1] > addr[saddr0] S 0:0(0) <mp_join_syn token=auto rand=5>")
    for sent, expected in (("auto", "auto"), ("auto", "trunc_l64_hmac(skey ckey)")):
        head = "addr[saddr0] > addr[caddr1] S. 0:0(0) ack 1"
        assert (
            conversation.expect(
                f"> {head} <mp_join_syn_ack address_id=0 sender_hmac={expected}>",
                f"< {head} <mp_join_syn_ack address_id=0 sender_hmac={sent} rand=9>",
            )
            == []
        )
    wanted = hmac.digest(CKEY + skey_of(conversation), b"\0\0\0\5\0\0\0\x09", "sha256")[:20]
    for written in ("", "sender_hmac=auto", "sender_hmac=full_160_hmac(ckey skey)"):
        text = f"< addr[caddr1] > addr[saddr0] . 1:1(0) ack 1 <mp_join_ack {written}>"
        assert only_mptcp(conversation.inject(text)) == MpJoinAck(wanted)


def test_announcements() -> None:
    conversation = established()
    text = "< . 1:1(0) ack 1 <add_address address_id=2 addr[caddr2] port=81 hmac=auto, nop, nop>"
    message = bytes((2,)) + SCRIPT_V4[2] + (81).to_bytes(2, "big")
    wanted = hmac.digest(CKEY + skey_of(conversation), message, "sha256")[-8:]
    assert only_mptcp(conversation.inject(text)) == AddAddr(False, 2, SCRIPT_V4[2], 81, wanted)
    # An echo of what the stack announced has its ID.
    announced = ". 1:1(0) ack 1 <add_address address_id=7 addr[saddr1] hmac=auto>"
    assert conversation.expect(f"> {announced}", f"< {announced}") == []
    echo = only_mptcp(conversation.inject("< . 1:1(0) ack 1 <add_address addr[saddr1] addr_echo>"))
    assert echo == AddAddr(True, 7, STACK_V4[1])


def test_the_rest() -> None:
    conversation = established()
    text = "< R. 1:1(0) ack 1 <mp_fastclose, mp_reset, remove_address address_id=[1], mp_prio>"
    assert segment(conversation.inject(text)).options.mptcp == (
        MpFastclose(skey_of(conversation)),
        MpTcpRst(0),
        RemoveAddr((1,)),
        MpPrio(False),
    )


@pytest.mark.parametrize(
    "text",
    [
        "mp_join_syn token=auto",
        "mp_join_syn token=sha256_32(nobody)",
        "mp_join_ack",
        'add_address addr[x="1.2.3.4"] hmac=auto',
        "dss dack8=trunc_r64_hmac(nobody) nocs",
        "mp_fastclose",
    ],
)
def test_what_needs_an_unknown_key_cannot_be_built(text: str) -> None:
    with pytest.raises(PacketError, match="key"):
        option_bytes(text)


def test_an_address_that_nobody_has() -> None:
    with pytest.raises(PacketError, match=r"addr\[caddr9\]: the script has 3 addresses"):
        build(parse_packet("< addr[caddr9] > addr[saddr0] S 0:0(0)"), bindings())


def test_addresses_without_a_number_take_the_next_that_is_free() -> None:
    some = bindings()
    build(parse_packet("< addr[caddr0] > addr[saddr0] S 0:0(0)"), some)
    build(parse_packet("< addr[phone] > addr[ours] S 0:0(0)"), some)
    assert some.addresses["phone"] == SCRIPT_V4[1]
    assert some.addresses["ours"] == STACK_V4[1]
    build(parse_packet("< addr[tablet] > addr[ours] S 0:0(0)"), some)
    with pytest.raises(PacketError, match=r"addr\[watch\]: the script has 3 addresses, none for this name"):
        build(parse_packet("< addr[watch] > addr[ours] S 0:0(0)"), some)


def test_a_join_by_the_number_of_its_token() -> None:
    conversation = established()
    token = int.from_bytes(hashlib.sha256(skey_of(conversation)).digest()[:4], "big")
    conversation.inject(f"< addr[caddr1] > addr[saddr0] S 0:0(0) <mp_join_syn token={token:#x}>")
    first, joined = conversation.script.subflows
    assert joined.connection is first.connection
    assert joined.is_join


# --- subflows ---


def test_ports_of_subflows() -> None:
    some = bindings()
    first = segment(build(parse_packet("< S 0:0(0)"), some))
    again = segment(build(parse_packet("< S 0:0(0)"), some))
    assert (first.source_port, again.source_port) == (40000, 40000)
    build(parse_packet("< R 1:1(0)"), some)
    anew = segment(build(parse_packet("< S 0:0(0)"), some))
    assert anew.source_port == 40001
    other = segment(build(parse_packet("< addr[caddr1]:5000 > addr[saddr0]:81 S 0:0(0)"), some))
    assert (other.source_port, other.destination_port) == (5000, 81)
    same = segment(build(parse_packet("< addr[caddr1] > addr[saddr0] . 1:1(0)"), some))
    assert (same.source_port, same.destination_port) == (5000, 81)


def test_a_join_on_the_addresses_of_the_first_subflow() -> None:
    conversation = established()
    build(parse_packet("< addr[caddr0] > addr[saddr0] . 1:1(0) ack 1"), conversation.script)
    assert len(conversation.script.subflows) == 1
    join = "< addr[caddr0] > addr[saddr0] S 0:0(0) <mp_join_syn token=auto>"
    first = segment(build(parse_packet(join), conversation.script))
    again = segment(build(parse_packet(join), conversation.script))
    assert first.source_port == again.source_port == 40001
    assert len(conversation.script.subflows) == 2


# --- ICMP ---


def test_fragmentation_needed() -> None:
    conversation = established()
    packet = build(
        parse_packet("< [1:1461(1460)] icmp unreachable frag_needed mtu 1400"), conversation.script
    )
    ip = parse_ipv4(memoryview(packet))
    assert icmpv4_checksum_is_good(ip.payload)
    message = parse_icmpv4(ip.payload)
    assert isinstance(message, IcmpDestinationUnreachable)
    assert (message.code, message.mtu) == (4, 1400)
    quoted = parse_quoted_packet(memoryview(message.quoted))
    assert (quoted.source, quoted.destination) == (STACK_V4[0], SCRIPT_V4[0])
    assert bytes(quoted.payload[:4]) == (8080).to_bytes(2, "big") + (40000).to_bytes(2, "big")
    assert int.from_bytes(quoted.payload[4:8], "big") == STACK_ISN + 1


@pytest.mark.parametrize("text", ["icmp unreachable frag_needed mtu 1300", "icmpv6 packet_too_big mtu 1300"])
def test_packet_too_big(text: str) -> None:
    """The name of IPv4 serves for IPv6 as well."""
    conversation = established(is_ipv6=True)
    ip = parse_ipv6(memoryview(build(parse_packet(f"< [1:1461(1460)] {text}"), conversation.script)))
    assert icmpv6_checksum_is_good(ip.payload, ip.source, ip.destination)
    message = parse_icmpv6(ip.payload)
    assert isinstance(message, IcmpPacketTooBig)
    assert message.mtu == 1300


def test_icmp_that_this_version_of_ip_lacks() -> None:
    with pytest.raises(PacketError, match="ICMP has no message 'packet_too_big'"):
        build(parse_packet("< icmpv6 packet_too_big mtu 1300"), bindings())
