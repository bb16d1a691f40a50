"""The whole way on real namespaces: the command, its workers, labs, reports and clean-up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.utils import rdpcap

from testbed.backend.privileges import has_privileges
from testbed.backend.runtime import RUNTIME_VARIABLE
from testbed.selftests import executor
from testbed.selftests.case import Case
from testbed.selftests.environment import kernel_mptcp_missing
from testbed.selftests.lab_view import CaseLab
from testbed.selftests.labs import NamespaceLabs
from testbed.selftests.results import Outcome
from tests.selftests.fakes import make_run

pytestmark = [
    pytest.mark.root,
    pytest.mark.kernel,
    pytest.mark.skipif(
        not has_privileges(), reason="making namespaces needs CAP_SYS_ADMIN and CAP_NET_ADMIN"
    ),
    pytest.mark.skipif(kernel_mptcp_missing() is not None, reason=f"{kernel_mptcp_missing()}"),
]

COMMAND = (sys.executable, "-m", "testbed", "selftest", "--stacks", "kernel-kernel", "--seed", "1")


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A runtime directory of the test's own, empty in the end and short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="mt-") as parent:
        directory = Path(parent) / "runtime"
        yield directory
        assert list(directory.iterdir()) == []


def environment(runtime: Path) -> dict[str, str]:
    return os.environ | {RUNTIME_VARIABLE: str(runtime)}


def selftest(runtime: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(runtime),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def namespaces_of(process: subprocess.Popen[str]) -> list[str]:
    """The labs of a session carry its process number."""
    directory = Path("/run/netns")
    names = [path.name for path in directory.iterdir()] if directory.exists() else []
    return [name for name in names if f"selftest-{process.pid}-" in name]


def test_a_case_passes_and_leaves_its_counters_and_captures(runtime: Path, tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    done = selftest(
        runtime, "signal-address", "--tap", "--json", str(report), "--pcap", str(tmp_path / "captures")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# Totals: pass:2 fail:0 xfail:0 xpass:0 skip:0 error:0" in done.stdout
    runs: list[dict[str, Any]] = json.loads(report.read_text())["runs"]
    assert [run["id"] for run in runs] == [
        f"join/signal-address[{family},kernel-kernel]" for family in (4, 6)
    ]
    for run in runs:
        assert run["hosts"]["client"]["counters"]["delta"]["MPTcpExtMPJoinSynAckRx"] == 1
        assert run["hosts"]["server"]["counters"]["delta"]["MPTcpExtMPJoinAckRx"] == 1
        assert len(run["captures"]) == 5
        assert Path(run["captures"][4]).read_text().count("MPTCP") == 1
    # the second link carried the join: its SYN has the join option (kind 30, 12 bytes, subtype 1)
    packets = rdpcap(runs[0]["captures"][1])
    assert any(bytes((30, 12, 0x10)) in bytes(packet) for packet in packets)


def wrong(lab: CaseLab) -> None:
    with lab.measure() as run:
        transfer = lab.transfer(1000, 1000)
    transfer.must_be_intact()
    run.must_join(1)


def test_a_case_whose_expectation_is_wrong_fails(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side of the coin: a real transfer, judged against numbers that are not so."""
    monkeypatch.setenv(RUNTIME_VARIABLE, str(runtime))
    case = Case("wrong", ("made-up",), "one-path", wrong, "expects a join")
    monkeypatch.setattr(executor, "find_case", lambda _name: case)
    with NamespaceLabs() as labs:
        opener = labs.opener(f"selftest-wrong-{os.getpid()}", None)
        result = executor.execute(make_run("made-up/wrong"), opener, timeout_s=30)
    assert result.outcome is Outcome.FAIL, result.reason
    assert [check.subject for check in result.failed_checks()] == [
        "client MPJoinSynTx",
        "client MPJoinSynAckRx",
        "server MPJoinSynRx",
        "server MPJoinAckRx",
    ]
    assert all(host.sockets and host.moved_counters() for host in result.hosts)


def test_a_case_that_hangs_is_ended_and_the_others_go_on(runtime: Path, tmp_path: Path) -> None:
    """One that takes 30 s is given 8: its state is shown, its lab is gone, and what comes after it passes."""
    report, bundles = tmp_path / "out.json", tmp_path / "bundles"
    words = (
        "break-before-make-after-30-seconds",
        "no-join",
        "--family",
        "4",
        "--timeout",
        "8",
        "--jobs",
        "1",
    )
    done = selftest(runtime, *words, "--json", str(report), "--bundles", str(bundles))
    assert done.returncode == 1, done.stdout + done.stderr
    runs = {run["id"].partition("[")[0]: run for run in json.loads(report.read_text())["runs"]}
    hanging = runs["mobility/break-before-make-after-30-seconds"]
    assert (hanging["outcome"], hanging["reason"]) == ("fail", "did not end within 8 s")
    for side in ("client", "server"):
        # of the connection that has no subflow at that moment
        assert hanging["hosts"][side]["sockets"]
    assert "did not end within 8 s" in done.stdout
    (bundle,) = bundles.iterdir()
    assert "after-30-seconds" in bundle.name
    assert runs["join/no-join"]["outcome"] == "pass"


def start_long_session(runtime: Path, report: Path) -> subprocess.Popen[str]:
    """A session that is in the middle of its first runs when this returns."""
    process = subprocess.Popen(
        [*COMMAND, "--repeat", "20", "--jobs", "2", "--json", str(report)],
        env=environment(runtime),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not (runtime.is_dir() and any("selftest" in path.name for path in runtime.iterdir())):
        assert time.monotonic() < deadline
        with contextlib.suppress(subprocess.TimeoutExpired):
            pytest.fail(f"it ended with {process.wait(0.01)}")
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_session_leaves_nothing_but_its_report(
    runtime: Path, tmp_path: Path, number: signal.Signals
) -> None:
    report = tmp_path / "out.json"
    process = start_long_session(runtime, report)
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130, output + errors
    assert "Traceback" not in output + errors
    assert "interrupted after" in output
    assert json.loads(report.read_text())["session"]["interrupted"] is True
    assert namespaces_of(process) == []


def test_a_killed_session_is_undone_by_its_workers(runtime: Path, tmp_path: Path) -> None:
    process = start_long_session(runtime, tmp_path / "out.json")
    process.kill()
    process.communicate(timeout=30)
    # a worker that was told to end while it was still starting leaves a fragment, which 'clean' removes
    clean = [sys.executable, "-m", "testbed", "clean"]
    deadline = time.monotonic() + 30
    while list(runtime.iterdir()) or namespaces_of(process):
        assert time.monotonic() < deadline
        subprocess.run(clean, env=environment(runtime), capture_output=True, timeout=30, check=True)


def test_an_unwritable_report_is_one_message(runtime: Path, tmp_path: Path) -> None:
    runtime.mkdir(mode=0o700)
    done = selftest(runtime, "no-join", "--json", str(tmp_path / "missing" / "out.json"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "cannot write the report" in done.stderr


def test_nonsense_is_named_at_once_with_exit_code_2(runtime: Path) -> None:
    runtime.mkdir(mode=0o700)
    done = selftest(runtime, "single-sublow", "--family", "5", "--stacks", "kernel-kernal")
    assert done.returncode == 2
    assert "did you mean 'single-subflow'" in done.stderr
    assert "--family '5'" in done.stderr
    assert "did you mean 'kernel-kernel'" in done.stderr
