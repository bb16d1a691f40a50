"""Every field that a script writes is compared: altered, it fails with a message that names it."""

from __future__ import annotations

import pytest

from tests.packetdrill.engine.mutation import Mutation, complaint_about, from_suite
from tests.packetdrill.engine.scripts import MPTCP_ACCEPTED, TCP_ACCEPTED

TCP_DATA = (
    TCP_ACCEPTED
    + """\
+0   write(4, "hello", 5) = 5
+0   > P. 1:6(5) ack 1 win 501
+0.1 < P. 1:11(10) ack 6 win 256
+0~+.05 > . 6:6(0) ack 11
+0   ioctl(4, SIOCINQ, [10]) = 0
+0   read(4, ..., 1000) = 10
+0   fcntl(4, F_SETFL, O_RDWR|O_NONBLOCK) = 0
+0   read(4, ..., 1000) = -1 EAGAIN (again)
+0   getsockopt(4, SOL_SOCKET, SO_ERROR, [0], [4]) = 0
+0   poll([{fd=4, events=POLLIN|POLLOUT, revents=POLLOUT}], 1, 0) = 1
"""
)
TCP_TIMES = (
    TCP_ACCEPTED
    + """\
+0...0.2 read(4, ..., 1000) = 10
+0.2 < P. 1:11(10) ack 1 win 256
+0   > . 1:1(0) ack 11
+0   write(4, ..., 100) = 100
+0   > P. 1:101(100) ack 11
+.3 > P. 1:101(100) ack 11
"""
)
SYN_OPTIONS = """\
0    socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0   bind(3, ..., ...) = 0
+0   listen(3, 1) = 0
+0   < S 0:0(0) win 65535 <mss 1460, sackOK, TS val 700 ecr 0, nop, wscale 8>
+0   > [noecn, ttl 64] S. 0:0(0) ack 1 <mss 1460, sackOK, TS val 100 ecr 700, nop, wscale 7>
"""
SACKED = """\
0    socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0   bind(3, ..., ...) = 0
+0   listen(3, 1) = 0
+0   < S 0:0(0) win 65535 <mss 1460, sackOK, nop, nop>
+0   > S. 0:0(0) ack 1 <mss 1460, nop, nop, sackOK>
+0.1 < . 1:1(0) ack 1 win 65535
+0   < . 101:201(100) ack 1 win 65535
+0   > . 1:1(0) ack 1 <nop, nop, sack 101:201>
"""
MPTCP_DATA = (
    MPTCP_ACCEPTED
    + """\
+0   < P. 1:1001(1000) ack 1 win 256 <dss dack8=1 dsn8=1 ssn=1 dll=1000 nocs, nop, nop>
+0~+.05 > . 1:1(0) ack 1001 <dss dack8=1001 nocs>
+0   write(4, ..., 100) = 100
+0   > P. 1:101(100) ack 1001 <dss dack8=1001 dsn8=1 ssn=1 dll=100 nocs, nop, nop>
+0.1 < . 1001:1001(0) ack 101 win 256 <dss dack8=101 nocs>
+0   read(4, ..., 1000) = 1000
+0   close(4) = 0
+0   > . 101:101(0) ack 1001 <dss dack8=1001 dsn8=101 ssn=0 dll=1 nocs fin, nop, nop>
"""
)
JOINED = (
    "`ip mptcp limits set subflows 2`\n"
    + MPTCP_ACCEPTED
    + """\
+0   < P. 1:101(100) ack 1 win 256 <dss dack8=1 dsn8=1 ssn=1 dll=100 nocs, nop, nop>
+0~+.05 > . 1:1(0) ack 101 <dss dack8=101 nocs>
+0.1 < addr[c1] > addr[s0] S 0:0(0) win 65535 <mss 1460, mp_join_syn address_id=1 token=sha256_32(skey)>
+0   > addr[s0] > addr[c1] S. 0:0(0) ack 1 <mss 1460, mp_join_syn_ack backup=0 address_id=0 sender_hmac=auto>
"""
)
ANNOUNCED = (
    "`ip mptcp endpoint add 192.168.1.1 id 2 signal`\n"
    + MPTCP_ACCEPTED
    + """\
+0   > . 1:1(0) ack 1 <add_address address_id=2 addr[s1=inet_addr("192.168.1.1")] hmac=auto>
"""
)
ABORTED = (
    MPTCP_ACCEPTED
    + """\
+0   setsockopt(4, SOL_SOCKET, SO_LINGER, {onoff=1, linger=0}, 8) = 0
+0   close(4) = 0
+0   > R. 1:1(0) ack 1 <mp_fastclose ckey, mp_reset 0>
"""
)
CONNECTED_JOIN = from_suite("mptcp/subflows/join-sent-after-first-data-ack")
PORT_ANNOUNCED = from_suite("mptcp/subflows/port-endpoint-is-joined")
ECHOED = from_suite("mptcp/add-address-echo")
WITHDRAWN = from_suite("mptcp/subflows/endpoint-removed-withdraws-announcement")
PRIORITY = from_suite("mptcp/subflows/priority-sent-on-endpoint-change")
FAILED = from_suite("mptcp/fallback/checksum-wrong-is-told-and-data-taken")
REPEATED = (
    "--initial_sequence=9\n"
    + TCP_ACCEPTED
    + ("+0 write(4, ..., 100) = 100\n+0 > P. 1:101(100) ack 1\n+.2~+.4 > P. 1:101(100) ack 1\n")
)
ABSOLUTE = (
    TCP_ACCEPTED + "0.2 write(4, ..., 100) = 100\n0.2 > P. 1:101(100) ack 1\n0.4~.6 > P. 1:101(100) ack 1\n"
)
FLAG_H = "mpcapable v1 flags[flag_h] key[skey]"

MUTATIONS = [
    Mutation(TCP_DATA, "> P. 1:6(5)", "> P. 2:7(5)", "sequence"),
    Mutation(TCP_DATA, "> P. 1:6(5)", "> P. 1:5(4)", "length"),
    Mutation(TCP_DATA, "1:6(5) ack 1", "1:6(5) ack 2", "ack"),
    Mutation(TCP_DATA, "ack 1 win 501", "ack 1 win 502", "win"),
    Mutation(TCP_DATA, "> P. 1:6(5)", "> . 1:6(5)", "flags"),
    Mutation(TCP_DATA, "ack 1 win 501", "ack 1 win 501 urg 1", "urg"),
    Mutation(TCP_DATA, "+0~+.05 >", "+.02~+.05 >", "time"),
    Mutation(TCP_DATA, "[10]) = 0", "[11]) = 0", "argument 3"),
    Mutation(TCP_DATA, "1000) = 10\n", "1000) = 11\n", "return value"),
    Mutation(TCP_DATA, "EAGAIN", "EINVAL", "errno"),
    Mutation(TCP_DATA, "[0], [4]", "[1], [4]", "argument 4"),
    Mutation(TCP_DATA, "[0], [4]", "[0], [8]", "argument 5"),
    Mutation(TCP_DATA, "revents=POLLOUT", "revents=POLLIN", "revents"),
    Mutation(TCP_DATA, '"hello", 5) = 5', '"hello", 5) = 6', "return value"),
    Mutation(TCP_TIMES, "+0...0.2", "+0...0.21", "time of return"),
    Mutation(TCP_TIMES, "+.3 >", "+.301 >", "time"),
    Mutation(TCP_TIMES, "+.3 >", "+.299 >", "time"),
    Mutation(SYN_OPTIONS, "<mss 1460, sackOK, TS val 100", "<mss 1461, sackOK, TS val 100", "mss"),
    Mutation(SYN_OPTIONS, "nop, wscale 7", "nop, wscale 8", "wscale"),
    Mutation(SYN_OPTIONS, "ecr 700", "ecr 701", "ecr"),
    Mutation(SYN_OPTIONS, "ttl 64", "ttl 63", "ttl"),
    Mutation(SYN_OPTIONS, "noecn", "ect0", "ecn"),
    Mutation(SYN_OPTIONS, "sackOK, TS val 100", "nop, nop, TS val 100", "options"),
    Mutation(SACKED, "sack 101:201", "sack 101:200", "sack"),
    Mutation(MPTCP_ACCEPTED, FLAG_H, FLAG_H.replace("flag_h", "flag_a, flag_h"), "flags"),
    Mutation(MPTCP_ACCEPTED, FLAG_H, FLAG_H.replace("v1", "v0"), "version"),
    Mutation(MPTCP_ACCEPTED, FLAG_H, FLAG_H.replace("skey", "skey=5"), "key"),
    Mutation(MPTCP_DATA, "<dss dack8=1001 nocs>", "<dss dack8=1000 nocs>", "dss dack"),
    Mutation(MPTCP_DATA, "<dss dack8=1001 nocs>", "<dss dack4=1001 nocs>", "dss dack"),
    Mutation(MPTCP_DATA, "dsn8=1 ssn=1 dll=100 nocs", "dsn8=2 ssn=1 dll=100 nocs", "dss dsn"),
    Mutation(MPTCP_DATA, "ssn=1 dll=100 nocs", "ssn=2 dll=100 nocs", "ssn"),
    Mutation(MPTCP_DATA, "ssn=1 dll=100 nocs", "ssn=1 dll=101 nocs", "dll"),
    Mutation(MPTCP_DATA, "dll=100 nocs", "dll=100 cksum=7", "cksum"),
    Mutation(MPTCP_DATA, "nocs fin", "nocs", "fin"),
    Mutation(JOINED, "backup=0", "backup=1", "backup"),
    Mutation(JOINED, "address_id=0", "address_id=1", "address_id"),
    Mutation(JOINED, "sender_hmac=auto", "sender_hmac=7", "sender_hmac"),
    Mutation(ANNOUNCED, "address_id=2 addr", "address_id=3 addr", "address_id"),
    Mutation(ANNOUNCED, '"192.168.1.1")] hmac', '"192.168.1.2")] hmac', "addr"),
    Mutation(ANNOUNCED, "hmac=auto", "hmac=7", "hmac"),
    Mutation(ABORTED, "mp_fastclose ckey", "mp_fastclose other=7", "mp_fastclose"),
    Mutation(ABORTED, "mp_reset 0", "mp_reset 1", "mp_reset reason"),
    Mutation(ABORTED, "mp_reset 0", "mp_reset 0 flags[flag_t]", "mp_reset flags"),
    # windows in which a packet may come: too early, too late
    Mutation(REPEATED, "+.2~+.4", "+.31~+.4", "time"),
    Mutation(REPEATED, "+.2~+.4", "+.2~+.29", "time"),
    Mutation(ABSOLUTE, "0.4~.6", "0.51~.6", "time"),
    Mutation(ABSOLUTE, "0.4~.6", "0.4~.49", "time"),
    Mutation(ABSOLUTE, "0.2 >", "0.201 >", "time"),
    Mutation(ABSOLUTE, "0.2 >", "0.1~0.19 >", "time"),
    Mutation(TCP_TIMES, "+0...0.2", "+0...0.19", "time of return"),
    # the rest of what MPTCP has
    Mutation(
        CONNECTED_JOIN, "key[ckey, skey] mpcdatalen", "key[skey, skey] mpcdatalen", "mpcapable sender key"
    ),
    Mutation(
        CONNECTED_JOIN, "key[ckey, skey] mpcdatalen", "key[ckey, ckey] mpcdatalen", "mpcapable receiver key"
    ),
    Mutation(CONNECTED_JOIN, "mpcdatalen 100", "mpcdatalen 101", "mpcapable mpcdatalen"),
    Mutation(CONNECTED_JOIN, "mpcdatalen 100", "mpcdatalen 100 cksum=1", "mpcapable checksum"),
    Mutation(CONNECTED_JOIN, "mp_join_syn backup=0", "mp_join_syn backup=1", "mp_join_syn backup"),
    Mutation(CONNECTED_JOIN, "address_id=1 token", "address_id=2 token", "mp_join_syn address_id"),
    Mutation(CONNECTED_JOIN, "token=sha256_32(skey)", "token=sha256_32(ckey)", "mp_join_syn token"),
    Mutation(CONNECTED_JOIN, "(skey)>", "(skey) rand=1>", "mp_join_syn rand"),
    Mutation(
        CONNECTED_JOIN, "mp_join_ack sender_hmac=auto", "mp_join_ack sender_hmac=1", "mp_join_ack sender_hmac"
    ),
    Mutation(
        CONNECTED_JOIN, "> addr[saddr1] > addr[caddr0] .", "> addr[saddr2] > addr[caddr0] .", "source address"
    ),
    Mutation(JOINED, "address_id=0 sender", "address_id=0 rand=1 sender", "mp_join_syn_ack rand"),
    Mutation(MPTCP_DATA, "dsn8=1 ssn=1 dll=100 nocs", "dsn4=1 ssn=1 dll=100 nocs", "dss dsn width"),
    Mutation(MPTCP_DATA, "<dss dack8=1001 nocs>", "<dss dack8=1001 dsn nocs>", "dss dsn"),
    Mutation(MPTCP_DATA, "<dss dack8=1001 nocs>", "<dss nodack nocs>", "dss dack"),
    Mutation(PORT_ANNOUNCED, "port=10100 hmac", "port=10101 hmac", "add_address port"),
    Mutation(
        PORT_ANNOUNCED,
        "addr[saddr1]:10100 > addr[caddr1]:7001 S.",
        "addr[saddr1]:10101 > addr[caddr1]:7001 S.",
        "source port",
    ),
    Mutation(ECHOED, "addr_echo", "hmac=auto", "add_address addr_echo"),
    Mutation(WITHDRAWN, "address_id=[2]", "address_id=[3]", "remove_address address_id"),
    Mutation(PRIORITY, "mp_prio backup=1", "mp_prio backup=0", "mp_prio backup"),
    Mutation(PRIORITY, "mp_prio backup=1", "mp_prio backup=1 address_id=1", "mp_prio address_id"),
    Mutation(FAILED, "mp_fail dsn8=101", "mp_fail dsn8=102", "mp_fail dsn8"),
    Mutation(FAILED, "dll=100 cksum=auto>", "dll=100 cksum=1>", "dss checksum"),
]


@pytest.mark.parametrize(
    "mutation", MUTATIONS, ids=[f"{number}-{each.named}" for number, each in enumerate(MUTATIONS)]
)
def test_an_altered_field_is_noticed_and_named(mutation: Mutation) -> None:
    first, *others = complaint_about(mutation).splitlines()
    complaints = [first, *(line for line in others if ": expected " in line)]
    assert any(mutation.named in line.partition(": expected")[0] for line in complaints), complaints
