"""What is printed reads back as the same tree."""

from __future__ import annotations

import pytest
from hypothesis import given

from testbed.packetdrill.parser import parse_packet, parse_script
from testbed.packetdrill.printer import print_event, print_packet, print_script
from testbed.packetdrill.syntax import Packet

from .strategies import packets

WHOLE_SCRIPT = """\
// what it is about
--ip_version=ipv6
--send_omit_free
--define=BACKLOG=-3
`ip mptcp limits set subflows 2`
0    socket(..., SOCK_STREAM, IPPROTO_MPTCP) = 3
+0   setsockopt(3, SOL_SOCKET, SO_LINGER, {onoff=1, linger=0x10}, 8) = 0
+0   bind(3, {sa_family=AF_INET, sin_port=htons(8080), sin_addr=inet_addr("10.0.0.1")}, ...) = 0
+0   listen(3, BACKLOG) = 0
+0...0.25  poll([{fd=3, events=POLLIN|POLLOUT, revents=POLLIN}], 1, -1) = 1
+0   sendmsg(4, {msg_name(...)=..., msg_iov(2)=[{..., 10}, {..., 20}], msg_flags=0}, 0) = 30
+0   fcntl(4, F_GETFL) = 0x802 (flags O_RDWR|O_NONBLOCK)
+0   write(4, "a\\"\\\\\\n\\t\\r\\0011", 4) = -1 EPIPE (Broken pipe)
+0   close(4)
.5~1.25  > [ect0, tos 0x10] S. 0:0(0) ack 1 <...>
+.1~+0.2 < . 1:1(0) ack 1 win 256 urg 7
*    > R 1:1(0)
2    `nstat -n`
+0   %{
  if tcpi_snd_cwnd:
      assert tcpi_snd_cwnd == 10
}%
+0   %{ assert True }%
"""


def test_whole_script_reads_back() -> None:
    script = parse_script(WHOLE_SCRIPT)
    printed = print_script(script)
    again = parse_script(printed)
    assert again == script
    assert print_script(again) == printed
    assert script.header == "what it is about"


@given(packets())
def test_every_packet_reads_back(packet: Packet) -> None:
    assert parse_packet(print_packet(packet)) == packet


@pytest.mark.parametrize(
    "text",
    [
        "> S. 0:0(0) ack 1 win 65535 <mss 1460, nop, nop, sackOK, nop, wscale 8>",
        "< P. 1:1001(1000) ack 1 win 256 <dss dack8=1 dsn8=1 ssn=1 dll=1000 nocs, nop, nop>",
        "> . 1:1(0) ack 1 <add_address address_id=1 addr[saddr1] port=8081 hmac=auto>",
        "< addr[caddr1] > addr[saddr0]:8080 S 0:0(0) <mp_join_syn backup=1 token=sha256_32(skey) rand=7>",
        "< [1:1461(1460)] icmp unreachable frag_needed mtu 1400",
        "> - 0:0(0)",
        "> SFRPUEW. 0:0(0)",
        "< [ce, tos 0x20, ttl 7, flowlabel 0xabcde] . 1:1(0) ack 1",
        "> . 1:1(0) <dss dack8=trunc_r64_hmac(skey)+5 nocs>",
    ],
)
def test_canonical_text_is_kept(text: str) -> None:
    assert print_packet(parse_packet(text)) == text


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("0.5000 close(3)", "0.5 close(3)"),
        ("+.000001 close(3)", "+0.000001 close(3)"),
        ("0 close(3)", "0 close(3)"),
        ("100 close(3)", "100 close(3)"),
        ("+1.50...2 close(3)", "+1.5...2 close(3)"),
    ],
)
def test_times(text: str, printed: str) -> None:
    assert print_event(parse_script(text).events[0]) == printed
