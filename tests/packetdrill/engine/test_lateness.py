"""Real time: what is due when this program or the machine was late, and what is played again because of that.

The stack here is the bundled one on a clock of its own, which passes by more than it is asked to.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from testbed.errors import ExitCode
from testbed.packetdrill import runner
from testbed.packetdrill.bindings import Bindings
from testbed.packetdrill.engine import Engine
from testbed.packetdrill.failure_report import ScriptFailureError
from testbed.packetdrill.lateness_probe import LatenessProbe, LatenessRecord
from testbed.packetdrill.parser import parse_script
from testbed.packetdrill.playing import PlayOptions, PlayResult
from testbed.packetdrill.runner import MAXIMUM_ATTEMPTS, WorkerCounts, play_all
from testbed.packetdrill.script_addresses import addresses_of
from testbed.packetdrill.session import SessionOptions
from testbed.packetdrill.stack_under_test import IpVersion
from testbed.packetdrill.suite import Cell
from testbed.packetdrill.trace import Trace
from testbed.packetdrill.userspace_stack import UserspaceStack
from testbed.selftests.results import Outcome
from tests.packetdrill.engine.scripts import TCP_ACCEPTED
from tests.packetdrill.engine.test_session import session

TOLERANCE = "--tolerance_usecs=1000\n"
SENT = TOLERANCE + TCP_ACCEPTED + "+0 write(4, ..., 100) = 100\n+0 > P. 1:101(100) ack 1\n"
"""At 0.1 s. It is sent again 0.3 s later, by a timer that does not know how late the script is by then."""
AGAIN = "> P. 1:101(100) ack 1\n"


class LateStack(UserspaceStack):
    """From ``first_us`` on, each wait ends ``late_us`` after its time."""

    def __init__(self, first_us: int, late_us: int) -> None:
        super().__init__(addresses_of(IpVersion.IPV4), IpVersion.IPV4)
        self.time_is_virtual = False
        self._first_us = first_us
        self._late_us = late_us

    def pass_time(self, until_us: int) -> None:
        super().pass_time(until_us + (self._late_us if until_us >= self._first_us else 0))


def play_late(text: str, first_us: int, late_us: int) -> None:
    """Raises ScriptFailureError."""
    addresses = addresses_of(IpVersion.IPV4)
    bindings = Bindings(addresses.local, addresses.remote, local_port=8080, remote_initial_sequence=0, seed=0)
    Engine(parse_script(text, "late.pkt"), LateStack(first_us, late_us), bindings, Trace()).play()


def test_what_an_event_causes_counts_from_when_the_event_did_happen() -> None:
    text = TOLERANCE + TCP_ACCEPTED + "+.05 write(4, ..., 100) = 100\n+0 > P. 1:101(100) ack 1\n"
    play_late(text + f"+.3 {AGAIN}", 110_000, 5_000)


def test_a_timer_that_was_set_before_does_not_wait_for_a_late_event() -> None:
    play_late(SENT + f"+.1 ioctl(4, SIOCINQ, [0]) = 0\n+.2 {AGAIN}", 110_000, 5_000)


def test_absolute_times_move_with_the_script() -> None:
    text = TOLERANCE + TCP_ACCEPTED + "+.05 write(4, ..., 100) = 100\n"
    play_late(text + "0.15 > P. 1:101(100) ack 1\n", 110_000, 5_000)


@pytest.mark.parametrize("due", ["+.305", "+.295"])
def test_the_time_of_a_packet_is_still_judged(due: str) -> None:
    with pytest.raises(ScriptFailureError, match="time: expected") as caught:
        play_late(SENT + f"{due} {AGAIN}", 1_000_000, 0)
    assert caught.value.own_lateness_us < caught.value.telling_lateness_us


def test_a_failure_says_how_late_its_own_events_were() -> None:
    with pytest.raises(ScriptFailureError, match="ack: expected 7") as caught:
        play_late(SENT + "+.1 ioctl(4, SIOCINQ, [0]) = 0\n+.2 > P. 1:101(100) ack 7\n", 110_000, 5_000)
    assert caught.value.own_lateness_us == 5_000
    assert caught.value.telling_lateness_us == 1_001


def test_the_worst_lateness_is_that_within_the_time() -> None:
    record = LatenessRecord(2)
    record.note(0, 1_000_000, 20_000)
    record.note(1, 2_000_000, 7_000)
    record.note(1, 3_000_000, 50_000)
    assert record.worst_us(1_000_001, 2_500_000) == 7_000
    assert record.worst_us(990_000, 995_000) == 20_000
    assert record.worst_us(2_900_000, 2_951_000) == 50_000
    assert record.worst_us(3_000_001, 4_000_000) == 0


def let_pass(seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        os.sched_yield()


@pytest.mark.parametrize("number", [0, 1], ids=["ordinary", "before-others"])
def test_the_probe_notices_that_it_was_not_let_run(number: int) -> None:
    probe = LatenessProbe()
    process = probe.processes[number]
    began_us = time.monotonic_ns() // 1000
    deadline_s = time.monotonic() + 20
    try:
        assert process.pid is not None
        # The first time may be before it has begun.
        while probe.record.worst_us(began_us, began_us + 60_000_000) < 50_000:
            assert time.monotonic() < deadline_s, "nothing noticed"
            os.kill(process.pid, signal.SIGSTOP)
            let_pass(0.1)
            os.kill(process.pid, signal.SIGCONT)
            let_pass(0.05)
    finally:
        probe.close()
    assert not any(process.is_alive() for process in probe.processes)


def play_replaced(results: list[PlayResult], monkeypatch: pytest.MonkeyPatch, folder: Path) -> PlayResult:
    """One job on the kernel, whose attempts end one after the other as the results say."""
    count = folder / "attempts"

    def play_cell(*_arguments: object) -> PlayResult:
        with count.open("a") as file:
            file.write("x")
        return results[min(count.stat().st_size, len(results)) - 1]

    monkeypatch.setattr(runner, "play_cell", play_cell)
    jobs = [(Cell("some.pkt", "kernel", IpVersion.IPV4), PlayOptions())]
    [(_, result)] = play_all(jobs, WorkerCounts(1, 1))
    assert count.stat().st_size == result.attempts
    return result


LATE = PlayResult(Outcome.FAIL, "some.pkt:1: time", 1000, late_us=20_000)
FAILED = PlayResult(Outcome.FAIL, "some.pkt:1: flags", 1000)
PASSED = PlayResult(Outcome.PASS, "", 1000)


def test_what_failed_while_the_machine_was_late_is_played_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = play_replaced([LATE, LATE, PASSED], monkeypatch, tmp_path)
    assert (result.outcome, result.attempts) == (Outcome.PASS, 3)


def test_a_failure_on_a_punctual_machine_is_final(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = play_replaced([FAILED, PASSED], monkeypatch, tmp_path)
    assert (result.outcome, result.attempts) == (Outcome.FAIL, 1)
    assert result.message == FAILED.message


def test_a_machine_that_is_always_late_proves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = play_replaced([LATE], monkeypatch, tmp_path)
    assert (result.outcome, result.attempts) == (Outcome.FAIL, MAXIMUM_ATTEMPTS)
    assert "the machine was late in each of 5 attempts, in this by 20.0 ms" in result.message


def test_repetitions_are_counted_and_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "late.pkt"
    path.write_text(TCP_ACCEPTED)
    results = iter([(0, PlayResult(Outcome.PASS, "", 1000, attempts=3))])
    monkeypatch.setattr("testbed.packetdrill.session.play_all", lambda *_: results)
    code, text = session(SessionOptions((path,), stack="kernel"))
    assert code is ExitCode.PASS
    assert "kernel: 1 passed, 0 failed, 0 skipped\n" in text
    assert "2 runs on the kernel played again: the machine was late in them" in text
