"""Every mistake ends in a message with its place, what was expected and a hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.errors import ExitCode
from testbed.packetdrill.errors import PacketScriptError
from testbed.packetdrill.parser import MAXIMUM_SCRIPT_CHARACTERS, load_script, parse_packet, parse_script

# Of each: the script, where, what the message says, what the hint says.
MISTAKES = [
    # names
    ("0 sockt(1) = 3", "1:3", "unknown system call 'sockt'", "did you mean 'socket'?"),
    (
        "0 socket(..., SOCK_STREM, 0) = 3",
        "1:15",
        "unknown constant 'SOCK_STREM'",
        "did you mean 'SOCK_STREAM'?",
    ),
    ("0 close(3) = -1 EINVALL", "1:17", "unknown errno 'EINVALL'", "did you mean 'EINVAL'?"),
    ("0 close(3) = 0 EINVAL", "1:16", "EINVAL goes with the result -1 only", ""),
    ("0 bind(3, {sin_port=hton(1)}, ...) = 0", "1:21", "unknown function 'hton'", "did you mean 'htons'?"),
    ("0 < X 0:0(0)", "1:5", "unknown TCP flag 'X'", "known: S F R P . U E C W -"),
    ("0 < s 0:0(0)", "1:5", "unknown TCP flag 's'", "did you mean 'S'?"),
    ("0 < S 0:0(0) wni 5", "1:14", "unknown TCP field 'wni'", "did you mean 'win'?"),
    ("0 < S 0:0(0) <mms 5>", "1:15", "unknown TCP option 'mms'", "did you mean 'mss'?"),
    ("0 < S 0:0(0) <nop, sackok>", "1:20", "unknown TCP option 'sackok'", "did you mean 'sackOK'?"),
    ("0 < S 0:0(0) <dss dak8=1>", "1:19", "dss has no field 'dak8'", "did you mean 'dack8'?"),
    ("0 < S 0:0(0) <mpcapable flags[flag_z]>", "1:31", "unknown flag 'flag_z'", "did you mean"),
    ("0 < [etc0] S 0:0(0)", "1:6", "unknown IP field 'etc0'", "did you mean 'ect0'?"),
    ("0 < icmp unreachabel", "1:10", "unknown type of icmp: 'unreachabel'", "did you mean 'unreachable'?"),
    ("0 < icmp unreachable frag_neded", "1:22", "unknown code of unreachable", "did you mean 'frag_needed'?"),
    ("--mtv=3", "1:1", "unknown option '--mtv'", "did you mean 'mtu'?"),
    # numbers
    ("0 listen(3, 12ab) = 0", "1:13", "'12ab' is not a number", ""),
    ("0 listen(3, 99999999999999999999999) = 0", "1:13", "has more than 64 bits", ""),
    ("0 listen(3, -99999999999999999999999) = 0", "1:14", "is not within 0 to", ""),
    ("0 < S 0:0(0) <mss 65536>", "1:19", "mss: '65536' is not within 0 to 65535", ""),
    ("0 < S 0:0(0) <wscale x>", "1:22", "wscale: expected a number, got 'x'", ""),
    ("0 < S 0:0(0) win 65536", "1:18", "win: '65536' is not within 0 to 65535", ""),
    ("0 < S 1:10(8)", "1:12", "the range 1:10 does not have 8 bytes", "write (9)"),
    ("0 < . 1:70001(70000)", "1:7", "no packet holds more than", ""),
    ("0 < S 0:0(0) <mp_reset 256>", "1:24", "mp_reset: '256' is not within 0 to 255", ""),
    ("0 < S 0:0(0) <mp_prio backup=2>", "1:30", "mp_prio backup: '2' is not within 0 to 1", ""),
    ("0 < addr[a]:0 > addr[b] S 0:0(0)", "1:13", "port: '0' is not within 1 to 65535", ""),
    # forms
    ("0 close(3, 4) = 0", "1:3", "close takes 1 argument(s), got 2", ""),
    ("0 ioctl(3) = 0", "1:3", "ioctl takes 2 to 3 argument(s), got 1", ""),
    ("0 < S. 0:0(0) <sack>", "1:16", "sack takes 1 to 4 blocks, got 0", ""),
    ("0 < S. 0:0(0) <mss>", "1:16", "mss takes one number", ""),
    ("0 < S. 0:0(0) <TS val>", "1:19", "TS: val lacks its value", ""),
    ("0 < S. 0:0(0) <FO 0a1>", "1:19", "cookie: expected up to 36 bytes", ""),
    ("0 < S. 0:0(0) <md5 0a>", "1:20", "md5 takes 32 hexadecimal digits", ""),
    ("0 < S. 0:0(0) <raw xy>", "1:20", "raw: 'xy' is not hexadecimal", ""),
    ("0 < S 0:0(0) <dss nocs=1>", "1:19", "dss: nocs is not written like this", "write nocs alone"),
    ("0 < S 0:0(0) <dss dll>", "1:19", "dss: dll lacks its value", ""),
    ("0 < S 0:0(0) <dss dack4 dack8>", "1:15", "dss: one of dack, dack4, dack8 and nodack", ""),
    ("0 > . 0:0(0) <dss nodsn dsn8>", "1:15", "dss: one of dsn, dsn4, dsn8 and nodsn", ""),
    ("0 > . 0:0(0) <dss nodsn dll=1>", "1:15", "dss: dll does not go with nodsn", ""),
    ("0 < . 0:0(0) <dss dack8=1 cksum=auto>", "1:15", "dss: cksum goes with dsn4 or dsn8", ""),
    ("0 < S 0:0(0) <mss 5, ...>", "1:22", "'...' is for packets that the stack sends", ""),
    ("0 < S 0:0(0) <...>", "1:15", "'...' is for packets that the stack sends", ""),
    ("0 < S 0:0(0) <FO ...>", "1:15", "an incoming packet needs the cookie itself", ""),
    ("0 < S 0:0(0) <dss dack8=1 ssn=1>", "1:15", "dss: ssn goes with dsn4 or dsn8", ""),
    ("0 < S 0:0(0) <dss dsn8 dll=1 dll=1>", "1:30", "dss: 'dll' is given twice", ""),
    ("0 < S 0:0(0) <dss dsn8=sha256_32(k)>", "1:24", "dss dsn8 cannot be 'sha256_32'", "trunc_r64_hmac"),
    ("0 < S 0:0(0) <mpcapable nokey key[a]>", "1:25", "mpcapable: either nokey or key[…]", ""),
    ("0 < S 0:0(0) <mpcapable key[a,b,c]>", "1:25", "mpcapable: one key or two, got 3", ""),
    ("0 < S 0:0(0) <mpcapable key[a] mpcdatalen 5>", "1:15", "mpcdatalen goes with two keys", ""),
    ("0 < S 0:0(0) <mpcapable v0 v1>", "1:28", "mpcapable: one version only", ""),
    ("0 < S 0:0(0) <mpcapable key[5]>", "1:29", "'5' is not the name of a variable", ""),
    ("0 < S 0:0(0) <mp_join_ack sender_hmac=full_160_hmac(a)>", "1:39", "takes 2 key(s), got 1", ""),
    ("0 < S 0:0(0) <add_address address_id=1>", "1:15", "add_address takes one address: addr[…]", ""),
    ('0 < S 0:0(0) <add_address addr[a="1.2.3"]>', "1:34", "'1.2.3' is neither an IPv4", ""),
    ("0 < S 0:0(0) <add_address addr[a] hmac=1 addr_echo>", "1:42", "an echo has no HMAC", ""),
    ("0 < S 0:0(0) <remove_address>", "1:15", "remove_address takes address_id=[…]", ""),
    ("0 < S 0:0(0) ack 1 ack 2", "1:20", "ack is given twice", ""),
    ("0 < SS 0:0(0)", "1:5", "TCP flag 'S' is given twice", ""),
    ("0 < [0:0(0)] S 0:0(0)", "1:14", "a range in brackets is what an ICMP message quotes", ""),
    ("0 < [tos] S 0:0(0)", "1:6", "tos lacks its value", ""),
    ("0 < icmp unreachable frag_needed mtu", "1:34", "expected 'mtu N' or the end of the packet", ""),
    ("0 bind(3, {5=1}, 8) = 0", "1:12", "expected the name of a field before '='", ""),
    ("0 bind(3, {htons(1, 2)=1}, 8) = 0", "1:12", "expected the name of a field before '='", ""),
    ("0 bind(3, {p=htons(1, 2)}, 8) = 0", "1:14", "htons takes 1 argument(s), got 2", ""),
    ("0 < S 0:0(0) <mss ...>", "1:19", "mss: '...' has no meaning here", ""),
    ("0 < S 0:0(0) <dss ...>", "1:19", "dss: unexpected field", ""),
    ("0 < S 0:0(0) <FO 0a 0b>", "1:21", "FO takes one cookie", ""),
    ("0 < S 0:0(0) <raw>", "1:15", "raw takes the bytes of one option", ""),
    ("0 < S 0:0(0) <raw 0x>", "1:19", "raw takes at least one byte", ""),
    ("0 < S 0:0(0) <mp_reset 1 2>", "1:26", "mp_reset takes one reason", ""),
    ("0 < S 0:0(0) <mp_reset 1 flags 16>", "1:15", "mp_reset has four flags", ""),
    ("0 < S 0:0(0) <mp_fastclose a b>", "1:28", "mp_fastclose takes one key", ""),
    ("0 < S 0:0(0) <mp_fastclose key[a, b]>", "1:28", "mp_fastclose takes one key", ""),
    ("0 < S 0:0(0) <add_address addr[a, b]>", "1:15", "add_address takes one address", ""),
    ("0 < S 0:0(0) <add_address addr[5]>", "1:32", "'5' is not the name of a variable", ""),
    ("0 < S 0:0(0) <add_address addr[a=b]>", "1:34", "expected an address", ""),
    ('0 < S 0:0(0) <add_address addr[a=inet("::")]>', "1:34", "'inet' does not give", "inet_addr"),
    ("0 < S 0:0(0) <mpcapable key[a,b] cksum=1>", "1:15", "cksum goes with mpcdatalen", ""),
    ("0 < S 0:0(0) <dss dsn8 nocs cksum=1>", "1:24", "dss: either nocs or cksum", ""),
    ("0 < S 0:0(0) <dss dsn8 dll=auto+1>", "1:28", "dss dll: expected a number", ""),
    ("0 < [ce 5] S 0:0(0)", "1:9", "ce takes no value", ""),
    ("0 < [1:2(1)] icmp unreachable [1:2(1)]", "1:32", "the quoted range is given twice", ""),
    (f"0 < S 0:0(0) <{'nop,' * 40}nop>", "1:14", "41 options, more than 40", ""),
    # times
    ("0~+1 close(3) = 0", "1:3", "a range is relative on both sides or on none", ""),
    ("0...+1 close(3) = 0", "1:5", "no '+' here", ""),
    ("1~0.5 close(3) = 0", "1:3", "'0.5' is before '1'", ""),
    ("0...1 < S 0:0(0)", "1:1", "only a system call takes time", ""),
    ("0.0000001 close(3) = 0", "1:1", "times are whole microseconds", ""),
    ("99999999 close(3) = 0", "1:1", "a time of more than", ""),
    # structure of the file
    ("close(3) = 0", "1:1", "unexpected 'c", "a time"),
    ("0 < S 0:0(0) <mss 5", "1:20", "unexpected end of the event", "'>'"),
    ("0 close(3 = 0", "1:11", "unexpected '='", "expected ')'"),
    ("0 close(3) = 0 %", "1:16", "unexpected '%'", ""),
    ('0 write(3, "a, 1) = 1', "1:12", "unexpected '\"'", ""),
    ("0 `ls", "1:3", "a command without its closing '`'", ""),
    ("0 %{ x", "1:3", "code without its closing '}%'", ""),
    ("0 %{ assert = }%", "1:3", "no valid Python: invalid syntax (line 1 of the code)", ""),
    (
        "0 close(3) = 0\n+1 %{\n  x = 1\n  if x\n}%",
        "2:4",
        "no valid Python: expected ':' (line 2 of the code)",
        "",
    ),
    ("/* x", "1:1", "a comment without its closing '*/'", ""),
    ("0 close(3) = 0\n`ls`", "2:1", "a command needs a time", ""),
    ("`ls`\n`ls`", "2:1", "a command needs a time", ""),
    ("0 close(3) = 0\n--mtu=5", "2:1", "options stand before the first command", ""),
    ("--mtu=500 --mtu=6", "1:11", "--mtu is given twice", ""),
    ("--mtu=big", "1:1", "--mtu: expected a number, got 'big'", ""),
    ("--ip_version=ipv5", "1:1", "--ip_version: expected one of ipv4, ipv6", ""),
    ("--send_omit_free=1", "1:1", "--send_omit_free: takes no value", ""),
    ("--mtu=67", "1:1", "--mtu: '67' is not within 68 to 65515", ""),
    ("--bind_port=0", "1:1", "--bind_port: '0' is not within 1 to 65535", ""),
    ("--connect_port=65536", "1:1", "--connect_port: '65536' is not within 1 to 65535", ""),
    ("--initial_sequence=4294967296", "1:1", "'4294967296' is not within 0 to 4294967295", ""),
    ("--mtu", "1:1", "--mtu: lacks its value", ""),
    ("--needs=mptcp,linux", "1:1", "--needs: 'linux' is none of mptcp, ipv6, linux-VERSION", ""),
    ("--define=5=X", "1:1", "--define: expected NAME=NUMBER", ""),
    ("--mtu=500 x", "1:11", "expected an option", ""),
    (f"0 listen(3, {'[' * 40}1{']' * 40}) = 0", "1:44", "more than 32 brackets within each other", ""),
]


@pytest.mark.parametrize(("script", "place", "message", "hint"), MISTAKES, ids=[m[0][:40] for m in MISTAKES])
def test_place_message_and_hint(script: str, place: str, message: str, hint: str) -> None:
    with pytest.raises(PacketScriptError) as raised:
        parse_script(script, "some.pkt")
    first = str(raised.value).splitlines()[0]
    assert first.startswith(f"some.pkt:{place}: ")
    assert message in first
    assert hint in first.partition(" — ")[2]
    assert len(raised.value.problems) == 1


def test_the_line_is_shown_with_a_caret() -> None:
    with pytest.raises(PacketScriptError) as raised:
        parse_script("// one\n\t0 clos(3) = 0\n", "a.pkt")
    assert str(raised.value).splitlines()[1:] == ["    \t0 clos(3) = 0", "    \t  ^"]


def test_a_long_line_is_shown_around_the_place() -> None:
    with pytest.raises(PacketScriptError) as raised:
        parse_script(f"0 {' ' * 1000}clos(3) = 0{' ' * 1000}// end", "a.pkt")
    _, line, caret = str(raised.value).splitlines()
    assert len(line) < 200
    assert line[caret.index("^") :].startswith("clos(3)")


def test_all_mistakes_are_found_at_once() -> None:
    script = "\n".join(
        [
            "--mtv=3",
            "0 sockt(1) = 3",
            "+0 bind(3, ... = 0",
            "+0 < X. 0:0(5) akc 1 <mms 4, nop, dss dak8=4>",
            "+0 accept(BACK, LOGG, ...) = -1 EINVALL",
            "+0 close(4) = 0",
            "+0 > S 0:0(0) <mss 1460",
            "+0 clos(4) = 0",
        ]
    )
    with pytest.raises(PacketScriptError) as raised:
        parse_script(script, "a.pkt")
    places = [(problem.location.line, problem.location.column) for problem in raised.value.problems]
    assert places == [
        (1, 1),
        (2, 3),
        (3, 16),
        (4, 6),
        (4, 13),
        (4, 16),
        (4, 23),
        (4, 39),
        (5, 11),
        (5, 17),
        (5, 33),
        (7, 24),
        (8, 4),
    ]


def test_very_many_mistakes_are_counted_not_shown() -> None:
    with pytest.raises(PacketScriptError) as raised:
        parse_script("0 clos(3) = 0\n" * 300, "a.pkt")
    assert str(raised.value).endswith("and 250 more problems")
    assert len(raised.value.problems) == 300


def test_it_is_wrong_use_for_the_exit_code() -> None:
    with pytest.raises(PacketScriptError) as raised:
        parse_script("x")
    assert raised.value.exit_code is ExitCode.USAGE


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PacketScriptError, match="No such file"):
        load_script(tmp_path / "none.pkt")
    (tmp_path / "binary.pkt").write_bytes(b"0 close(3)\xff")
    with pytest.raises(PacketScriptError, match="byte 10 is not UTF-8"):
        load_script(tmp_path / "binary.pkt")
    with pytest.raises(PacketScriptError, match="Is a directory"):
        load_script(tmp_path)
    (tmp_path / "long.pkt").write_text(" " * (MAXIMUM_SCRIPT_CHARACTERS + 1))
    with pytest.raises(PacketScriptError, match="more than 1000000 characters"):
        load_script(tmp_path / "long.pkt")


def test_a_good_file(tmp_path: Path) -> None:
    (tmp_path / "good.pkt").write_text("// ü\r\n0 close(3) = 0\r\n")
    script = load_script(tmp_path / "good.pkt")
    assert script.path == str(tmp_path / "good.pkt")
    assert len(script.events) == 1


def test_a_single_packet() -> None:
    with pytest.raises(PacketScriptError, match="unknown TCP flag"):
        parse_packet("< X 0:0(0)")
    with pytest.raises(PacketScriptError, match="unexpected"):
        parse_packet("S 0:0(0)")
