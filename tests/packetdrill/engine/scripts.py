"""Inline scripts for tests, played on the bundled stack."""

from __future__ import annotations

from testbed.packetdrill.parser import parse_script
from testbed.packetdrill.playing import play_script
from testbed.packetdrill.stack_under_test import IpVersion
from testbed.packetdrill.trace import Trace

TCP_ACCEPTED = """\
0    socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0   setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0
+0   bind(3, ..., ...) = 0
+0   listen(3, 1) = 0
+0   < S 0:0(0) win 65535 <mss 1460, nop, wscale 8>
+0   > S. 0:0(0) ack 1 win 64240 <mss 1460, nop, wscale 7>
+0.1 < . 1:1(0) ack 1 win 256
+0   accept(3, ..., ...) = 4
"""

MPTCP_ACCEPTED = """\
0    socket(..., SOCK_STREAM, IPPROTO_MPTCP) = 3
+0   bind(3, ..., ...) = 0
+0   listen(3, 1) = 0
+0   < S 0:0(0) win 65535 <mss 1460, sackOK, nop, nop, nop, wscale 8, mpcapable v1 flags[flag_h] nokey>
+0   > S. 0:0(0) ack 1 <mss 1460, nop, nop, sackOK, nop, wscale 7, mpcapable v1 flags[flag_h] key[skey]>
+0.1 < . 1:1(0) ack 1 win 256 <mpcapable v1 flags[flag_h] key[ckey=2, skey]>
+0   accept(3, ..., ...) = 4
"""


def play(text: str, version: IpVersion = IpVersion.IPV4) -> list[str]:
    """Plays a script and returns its trace. Raises ScriptFailureError."""
    lines: list[str] = []
    play_script(parse_script(text, "test.pkt"), "userspace", version, Trace(lines.append))
    return lines
