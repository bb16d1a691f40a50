"""Scripts on the kernel that wait for ever, use dead descriptors, cannot be carried out: one message each."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.packetdrill import kernel_stack
from testbed.packetdrill.playing import PlayOptions, PlayResult, play_cell
from testbed.packetdrill.stack_under_test import IpVersion
from testbed.packetdrill.suite import Cell
from testbed.selftests.results import Outcome
from tests.packetdrill.kernel.conftest import resources

pytestmark = [pytest.mark.root, pytest.mark.kernel]

LISTENING = """\
0    socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0   bind(3, ..., ...) = 0
+0   listen(3, 1) = 0
"""
ACCEPTED = (
    LISTENING
    + """\
+0   < S 0:0(0) win 65535 <mss 1460>
*    > S. 0:0(0) ack 1 <mss 1460>
+0   < . 1:1(0) ack 1 win 65535
+0   accept(3, ..., ...) = 4
"""
)


def play(folder: Path, text: str, timeout_s: float = 20.0) -> PlayResult:
    """On the kernel; nothing is left open afterwards."""
    path = folder / "bad.pkt"
    path.write_text(text)
    before = resources()
    result = play_cell(Cell(str(path), "kernel", IpVersion.IPV4), PlayOptions(timeout_s=timeout_s))
    if result.outcome is Outcome.SKIP:
        pytest.skip(result.message)
    assert resources() == before
    return result


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            LISTENING + "+0 accept(3, ..., ...) = 4\n",
            "bad.pkt:4: accept(): expected to return at once, got it blocks",
        ),
        (LISTENING + "+0...0.1 accept(3, ..., ...) = 4\n", "bad.pkt:4: time of return: expected at 0.1"),
        (LISTENING + "+0~+.1 > S. 0:0(0) ack 1\n", "bad.pkt:4: packet: expected one, got none"),
        ("0 read(9, ..., 10) = 10\n", "bad.pkt:1: return value: expected 10, got -1 EBADF"),
        (
            ACCEPTED + "+0 close(4) = 0\n+0 write(4, ..., 10) = 10\n",
            "bad.pkt:9: return value: expected 10, got -1 EBADF",
        ),
        ("0 `exit 3`\n", "bad.pkt:1: exit code: expected 0, got 3: no message"),
        ("0 `no-such-program`\n", "bad.pkt:1: exit code: expected 0, got 127: "),
        ("0 %{ 1 // 0 }%\n", "bad.pkt:1: ZeroDivisionError"),
        ('0 read("x", ..., 1) = 0\n', "bad.pkt:1: descriptor: expected a number"),
    ],
)
def test_one_message_with_the_line(tmp_path: Path, script: str, message: str) -> None:
    result = play(tmp_path, script)
    assert result.outcome is Outcome.FAIL
    assert message in result.message.splitlines()[0]


@pytest.mark.parametrize(
    "waiting",
    ["+0...1000 accept(3, ..., ...) = 4\n+1000 `true`\n", "+100 `true`\n", "+0 %{\nwhile 1: pass\n}%\n"],
)
def test_a_script_that_waits_for_ever_ends_with_its_time(tmp_path: Path, waiting: str) -> None:
    result = play(tmp_path, LISTENING + waiting, timeout_s=0.5)
    number = 5 if "accept" in waiting else 4
    assert result.outcome is Outcome.FAIL
    assert f"bad.pkt:{number}: the script did not end within 0.5 s" in result.message
    assert not result.is_inconclusive


def test_a_flood_is_told_with_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_stack, "MAXIMUM_WAITING_PACKETS", 3)
    result = play(tmp_path, ACCEPTED + "+0 write(4, ..., 14600) = 14600\n+.1 close(4) = 0\n")
    assert "bad.pkt:9: the stack floods: 4 packets that the script does not expect" in result.message
