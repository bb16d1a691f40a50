"""A stack that hands over super-segments: a script may say them whole, or as the segments cut from them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.packetdrill.bindings import Bindings
from testbed.packetdrill.engine import Engine
from testbed.packetdrill.failure_report import ScriptFailureError
from testbed.packetdrill.packets import merge
from testbed.packetdrill.parser import parse_script
from testbed.packetdrill.script_addresses import addresses_of
from testbed.packetdrill.stack_under_test import IpVersion, SentPacket
from testbed.packetdrill.trace import Trace
from testbed.packetdrill.userspace_stack import UserspaceStack
from tests.packetdrill.engine.scripts import MPTCP_ACCEPTED, TCP_ACCEPTED

MSS = 1460
TCP_WRITE = TCP_ACCEPTED + "+0 write(4, ..., 4000) = 4000\n"
MPTCP_WRITE = (
    MPTCP_ACCEPTED + "+0 < P. 1:11(10) ack 1 win 256 <dss dack8=1 dsn8=1 ssn=1 dll=10 nocs, nop, nop>\n"
)


class OffloadingStack(UserspaceStack):
    """Segments that follow each other at one moment leave as one packet, with the size to cut it to."""

    def next_packet(self, until_us: int) -> SentPacket | None:
        sent = super().next_packet(until_us)
        while sent is not None and self._sent and self._sent[0].at_us == sent.at_us:
            joined = merge(sent.packet, self._sent[0].packet)
            if joined is None:
                break
            self._sent.popleft()
            sent = replace(sent, packet=joined, gso_size=MSS)
        return sent


def play(text: str, version: IpVersion = IpVersion.IPV4) -> list[str]:
    """The trace. Raises ScriptFailureError."""
    addresses = addresses_of(version)
    lines: list[str] = []
    stack = OffloadingStack(addresses, version, mtu=1520 if version is IpVersion.IPV6 else 1500)
    bindings = Bindings(addresses.local, addresses.remote)
    Engine(parse_script(text, "offload.pkt"), stack, bindings, Trace(lines.append)).play()
    return lines


@pytest.mark.parametrize("version", list(IpVersion))
@pytest.mark.parametrize(
    "expected",
    [
        "+0 > P. 1:4001(4000) ack 1\n",
        "+0 > . 1:1461(1460) ack 1\n+0 > . 1461:2921(1460) ack 1\n+0 > P. 2921:4001(1080) ack 1\n",
        "+0 > . 1:2921(2920) ack 1\n+0 > P. 2921:4001(1080) ack 1\n",
        # Where the cuts are does not matter, only the range.
        "+0 > . 1:101(100) ack 1\n+0 > P. 101:4001(3900) ack 1\n",
    ],
)
def test_data_is_compared_as_a_range(expected: str, version: IpVersion) -> None:
    play(TCP_WRITE + expected, version)


def test_without_the_cuts_it_is_one_packet() -> None:
    assert any("> P. 1:4001(4000)" in line for line in play(TCP_WRITE + "+0 > P. 1:4001(4000) ack 1\n"))
    cut = "+0 > . 1:1461(1460) ack 1\n+0 > . 1461:2921(1460) ack 1\n+0 > P. 2921:4001(1080) ack 1\n"
    with pytest.raises(ScriptFailureError, match="length: expected 1460, got 4000"):
        play("--strict_segments\n" + TCP_WRITE + cut)


def test_a_mapping_is_cut_with_its_data() -> None:
    mapped = "+0 > . 1:1421(1420) ack 11 <dss dack8=11 dsn8=1 ssn=1 dll=1420 nocs, nop, nop>\n"
    rest = "+0 > P. 1421:2001(580) ack 11 <dss dack8=11 dsn8=1421 ssn=1421 dll=580 nocs, nop, nop>\n"
    write = "+0 write(4, ..., 2000) = 2000\n"
    play(MPTCP_WRITE + "+0~+.05 > . 1:1(0) ack 11 <...>\n" + write + mapped + rest)


def test_a_wrong_range_is_named() -> None:
    with pytest.raises(ScriptFailureError, match="length: expected 4001, got 4000"):
        play(TCP_WRITE + "+0 > P. 1:4002(4001) ack 1\n")
    with pytest.raises(ScriptFailureError, match="length: expected 1460, got 4000"):
        play(TCP_WRITE + "+0 > . 1:1461(1460) ack 1\n+0 > P. 1462:4001(2539) ack 1\n")
