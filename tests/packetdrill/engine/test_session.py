"""``testbed packetdrill``: which scripts are played where, the reports, the exit codes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from testbed.cli import parse
from testbed.errors import ExitCode, UsageError
from testbed.packetdrill import runner, userspace_stack
from testbed.packetdrill.errors import PacketScriptError
from testbed.packetdrill.failure_report import ScriptFailureError
from testbed.packetdrill.needs import missing_need
from testbed.packetdrill.parser import parse_script
from testbed.packetdrill.playing import PlayOptions, PlayResult
from testbed.packetdrill.runner import WorkerCounts, play_all
from testbed.packetdrill.session import SessionOptions, given_options, run_session
from testbed.packetdrill.stack_under_test import IpVersion
from testbed.packetdrill.suite import Cell, find_scripts, plan, read_header
from testbed.selftests.results import Outcome
from tests.packetdrill.engine.scripts import TCP_ACCEPTED, play

FAILING = TCP_ACCEPTED + "+0 read(4, ..., 10) = 10\n"


def session(options: SessionOptions) -> tuple[ExitCode, str]:
    stdout = io.StringIO()
    code = run_session(replace(options, ip="4"), stdout, io.StringIO())
    return code, stdout.getvalue()


@pytest.fixture
def passing(tmp_path: Path) -> Path:
    path = tmp_path / "passing.pkt"
    path.write_text("// RFC 9293: a handshake\n" + TCP_ACCEPTED)
    return path


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    path = tmp_path / "failing.pkt"
    path.write_text(FAILING)
    return path


def test_counts_and_exit_codes(passing: Path, failing: Path) -> None:
    code, text = session(SessionOptions((passing,)))
    assert code is ExitCode.PASS
    assert text.splitlines()[-1] == "userspace: 1 passed, 0 failed, 0 skipped"
    code, text = session(SessionOptions((passing.parent,)))
    assert code is ExitCode.FAIL
    assert f"{failing}:9: read(): expected to return at once" in text
    assert text.splitlines()[-1] == "userspace: 1 passed, 1 failed, 0 skipped"


@pytest.mark.parametrize("verbosity", [-1, 0, 1])
def test_the_last_lines_are_the_counts_of_each_stack(
    passing: Path, verbosity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = iter([(0, PlayResult(Outcome.ERROR, "broke off")), (1, PlayResult(Outcome.SKIP, "no root"))])
    monkeypatch.setattr("testbed.packetdrill.session.play_all", lambda *_: broken)
    _, text = session(SessionOptions((passing,), stack="both", verbosity=verbosity))
    assert text.splitlines()[-2:] == [
        "userspace: 0 passed, 1 failed, 0 skipped",
        "kernel: 0 passed, 0 failed, 1 skipped",
    ]


def test_tap_and_junit(passing: Path, failing: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    _, text = session(SessionOptions((passing, failing), tap=True, junit=report))
    assert f"ok 1 - packetdrill: {passing}[ipv4,userspace]" in text
    assert f"not ok 2 - packetdrill: {failing}[ipv4,userspace]" in text
    assert "# repeat with: testbed packetdrill --stack userspace --ip 4" in text
    root = ElementTree.parse(report).getroot()
    assert (root.get("tests"), root.get("failures")) == ("2", "1")


def test_tap_has_the_trace_of_a_run_that_passes(passing: Path) -> None:
    _, text = session(SessionOptions((passing,), tap=True, trace=True))
    lines = text.splitlines()
    verdict = next(number for number, line in enumerate(lines) if line.startswith("ok 1 - "))
    assert lines[verdict + 1] == "# +0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3"
    assert "# +0.1 < . 1:1(0) ack 1 win 256" in lines
    assert all(line.startswith("#") for line in lines[verdict + 1 :])


def test_the_capture_has_the_packets(passing: Path, tmp_path: Path) -> None:
    capture = tmp_path / "packets.pcapng"
    session(SessionOptions((passing,), pcap=capture))
    assert capture.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"
    with pytest.raises(UsageError, match="--pcap is for one run"):
        session(SessionOptions((passing, copy_of(passing)), pcap=capture))


def copy_of(passing: Path) -> Path:
    copy = passing.with_name("copy.pkt")
    copy.write_text(passing.read_text())
    return copy


def test_headers_say_where_a_script_is_played() -> None:
    header = read_header(parse_script("// RFC 1\n// only: userspace — it is so\n0 close(3) = -1 EBADF\n"))
    assert header.reason_to_skip("userspace", IpVersion.IPV4) is None
    assert header.reason_to_skip("kernel", IpVersion.IPV4) == "only for userspace: it is so"
    header = read_header(parse_script("// ip: 4\n// kernel: deviates, sends two\n0 close(3) = -1 EBADF\n"))
    assert header.reason_to_skip("kernel", IpVersion.IPV4) == "deviates, sends two"
    assert header.reason_to_skip("userspace", IpVersion.IPV6) == "not for ipv6"
    with pytest.raises(PacketScriptError, match="only: 'nobody'"):
        read_header(parse_script("// only: nobody\n0 close(3) = -1 EBADF\n"))


def test_options_of_the_command_line_hold_for_all_scripts(tmp_path: Path) -> None:
    path = tmp_path / "defined.pkt"
    path.write_text("--define=PORTS=1 --define=KEPT=7 --bind_port=1\n0 listen(PORTS, KEPT) = -1 EBADF\n")
    given = (("define", "PORTS=5"), ("bind_port", "9000"), ("tolerance_usecs", "20000"))
    options = SessionOptions((path,), script_options=given)
    [cell] = plan([path], ["userspace"], [IpVersion.IPV4], given_options(options))
    assert cell.script is not None
    assert cell.script.options == {"bind_port": "9000", "tolerance_usecs": "20000"}
    assert cell.script.defines == {"PORTS": 5, "KEPT": 7}
    path.write_text("0 listen(PORTS, 1) = 0\n")
    code, text = session(replace(options, tap=True))
    assert code is ExitCode.FAIL
    assert "--define=PORTS=5 --bind_port=9000 --tolerance_usecs=20000 " in text


def test_the_command_line_takes_options_of_scripts_in_both_forms(passing: Path) -> None:
    words = ["packetdrill", "--needs=mptcp", "--tolerance_usecs", "9", "--strict_segments", str(passing)]
    _, arguments = parse(words)
    assert arguments.script_options == [
        ("needs", "mptcp"),
        ("tolerance_usecs", "9"),
        ("strict_segments", None),
    ]


def test_wrong_options_of_the_command_line_are_told_at_once(passing: Path) -> None:
    wrong = (("mtu", "5y"), ("tolerance_usecs", None), ("needs", "luck"))
    with pytest.raises(UsageError) as caught:
        session(SessionOptions((passing,), script_options=wrong))
    assert str(caught.value).splitlines() == [
        "--mtu: expected a number, got '5y'",
        "--tolerance_usecs: lacks its value",
        "--needs: 'luck' is none of mptcp, ipv6, linux-VERSION, sysctl:NAME, program:NAME",
    ]


@pytest.mark.parametrize(
    ("needs", "stack", "reason"),
    [
        ("mptcp,linux-2.6,program:sh", "userspace", None),
        ("linux-999.1", "userspace", None),
        ("sysctl:net.ipv4.tcp_retries2", "userspace", None),
        ("mptcp,sysctl:net.ipv4.tcp_nothing", "userspace", "the bundled stack has no net.ipv4.tcp_nothing"),
        ("sysctl:kernel.hostname,linux-2.6.1,program:sh", "kernel", None),
        ("sysctl:net.ipv4.tcp_nothing", "kernel", "this kernel has no net.ipv4.tcp_nothing"),
        ("linux-999.1", "kernel", "is older than 999.1"),
        ("program:no-such-program", "kernel", "this machine lacks the program no-such-program"),
    ],
)
def test_what_a_script_needs(needs: str, stack: str, reason: str | None) -> None:
    missing = missing_need(needs, stack)
    assert missing is None if reason is None else reason in str(missing)


def test_a_script_whose_needs_are_not_met_is_skipped(passing: Path) -> None:
    passing.write_text("--needs=mptcp\n" + TCP_ACCEPTED)
    code, text = session(
        SessionOptions((passing,), script_options=(("needs", "sysctl:net.no"),), verbosity=1)
    )
    assert code is ExitCode.SKIP
    assert "the bundled stack has no net.no" in text


def test_a_skipped_script_is_a_skip_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "skipped.pkt"
    path.write_text("// userspace: lacks it\n" + FAILING)
    code, text = session(SessionOptions((path,), verbosity=1))
    assert code is ExitCode.SKIP
    assert "lacks it" in text


def test_a_script_that_tests_nothing_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "empty.pkt"
    path.write_text("// nothing but this\n`true`\n")
    with pytest.raises(PacketScriptError, match="there is no event in it, nothing would be tested"):
        plan([path], ["userspace"], [IpVersion.IPV4])


def test_a_folder_that_nobody_may_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(UsageError, match=f"^{tmp_path}/a.pkt: Permission denied$"):
        find_scripts([tmp_path / "a.pkt"])


def test_bad_input_is_one_message_before_anything_is_played(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_scripts([tmp_path / "nothing", tmp_path])
    assert len(str(caught.value).splitlines()) == 2
    (tmp_path / "one.pkt").write_text("0 sokcet(1, 2, 3) = 3\n")
    (tmp_path / "two.pkt").write_text("+0 > Q 0:0(0)\n")
    with pytest.raises(PacketScriptError) as errors:
        plan(find_scripts([tmp_path]), ["userspace"], [IpVersion.IPV4])
    assert "one.pkt:1" in str(errors.value)
    assert "two.pkt:1" in str(errors.value)
    with pytest.raises(UsageError) as usage:
        session(SessionOptions((tmp_path,), stack="other", jobs=0))
    assert len(str(usage.value).splitlines()) == 2


def test_a_script_that_hangs_is_ended_and_the_others_go_on(passing: Path, tmp_path: Path) -> None:
    hanging = tmp_path / "hanging.pkt"
    hanging.write_text("0 `true`\n+0 %{\nwhile True:\n  pass\n}%\n")
    cells = [Cell(str(path), "userspace", IpVersion.IPV4) for path in (hanging, passing, passing)]
    jobs = [(cell, PlayOptions(timeout_s=0.2)) for cell in cells]
    results = dict(play_all(jobs, WorkerCounts(1, 1)))
    assert [results[number].outcome for number in range(3)] == [Outcome.FAIL, Outcome.PASS, Outcome.PASS]
    assert f"{hanging}:2: the script did not end within 0.2 s\n" in results[0].message


def test_a_worker_that_does_not_heed_the_time_is_ended(
    passing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def play_or_hang(cell: Cell, *_arguments: object) -> PlayResult:
        while cell.path == "hanging.pkt":
            pass
        return PlayResult(Outcome.PASS, duration_us=1)

    monkeypatch.setattr(runner, "play_cell", play_or_hang)
    cells = [Cell(path, "userspace", IpVersion.IPV4) for path in ("hanging.pkt", str(passing))]
    results = dict(play_all([(cell, PlayOptions()) for cell in cells], WorkerCounts(1, 1), timeout_s=0.3))
    assert [results[number].outcome for number in range(2)] == [Outcome.ERROR, Outcome.PASS]
    assert results[0].message == "hanging.pkt: the script did not end in time"


def test_a_stack_that_floods_fails_with_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userspace_stack, "MAXIMUM_PACKETS_PER_INSTANT", 3)
    with pytest.raises(ScriptFailureError, match=r"test\.pkt:9: the stack floods: more than 3 packets"):
        play(TCP_ACCEPTED + "+0 write(4, ..., 10000) = 10000\n")
