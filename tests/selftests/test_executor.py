"""What becomes of a run: pass, fail, skip or error, and nothing that goes wrong in it escapes."""

from __future__ import annotations

import asyncio
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import pytest

from testbed.errors import CapabilityError, HostError, LabError
from testbed.selftests import environment, executor
from testbed.selftests.case import STACK_PAIRS, Case
from testbed.selftests.environment import (
    ipv6_missing,
    kernel_fast_open_missing,
    kernel_mptcp_missing,
    skip_reason,
)
from testbed.selftests.executor import BuiltLab, LabOpener, RunTimeout, execute, watchdog
from testbed.selftests.host_view import CaseAbortedError
from testbed.selftests.lab_view import CaseLab
from testbed.selftests.results import Outcome, Run, RunResult
from tests.selftests.fakes import FakeNetwork, connected_agents, make_run, make_topology

Body = Callable[[CaseLab], None]


@contextmanager
def fake_lab(_case: Case, _run: Run) -> Iterator[BuiltLab]:
    client, server = connected_agents()
    yield BuiltLab(make_topology(), {"client": client, "server": server}, FakeNetwork(), ("capture.pcap",))


def refusing(error: Exception) -> LabOpener:
    """An opener whose labs cannot be built."""

    def open_lab(_case: Case, _run: Run) -> AbstractContextManager[BuiltLab]:
        raise error

    return open_lab


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunResult]:
    """Plays a body as a case in a made-up lab."""

    def play(body: Body, *, opener: LabOpener = fake_lab, timeout_s: float = 10.0) -> RunResult:
        case = Case("body", ("made-up",), "one-path", body, "made up", {}, STACK_PAIRS)
        monkeypatch.setattr(executor, "find_case", lambda _name: case)
        monkeypatch.setattr(executor, "skip_reason", lambda _run: None)
        return execute(make_run("made-up/body"), opener, timeout_s)

    return play


Player = Callable[..., RunResult]


def good(lab: CaseLab) -> None:
    lab.verdict.must_be_equal("one", 1, 1)
    lab.note("worth knowing")


def bad(lab: CaseLab) -> None:
    lab.verdict.must_be_equal("one", 1, 2)


def test_pass(play: Player) -> None:
    result = play(good)
    assert result.outcome is Outcome.PASS
    boxes = "middlebox on client:eth0: strip ->: 9 packets, 2 stripped"
    assert result.notes == ("worth knowing", boxes)
    assert result.captures == ("capture.pcap",)
    assert [host.host for host in result.hosts] == ["client", "server"]
    assert result.hosts[0].sockets == ()


def test_fail_shows_the_sockets_of_both_ends(play: Player) -> None:
    result = play(bad)
    assert result.outcome is Outcome.FAIL
    assert [host.sockets for host in result.hosts] == [("ESTAB 1", "TIME-WAIT 2")] * 2


def test_a_case_that_judges_nothing_is_an_error(play: Player) -> None:
    result = play(lambda _lab: None)
    assert (result.outcome, result.reason) == (Outcome.ERROR, "the case judges nothing")


def test_a_case_in_which_nothing_could_be_checked_is_a_skip(play: Player) -> None:
    result = play(lambda lab: lab.verdict.skip("counter", "absent"))
    assert result.outcome is Outcome.SKIP


@pytest.mark.parametrize("error", [CaseAbortedError("no join"), HostError("client: gone")])
def test_a_case_that_cannot_go_on_fails_with_what_it_checked_before(play: Player, error: Exception) -> None:
    def body(lab: CaseLab) -> None:
        good(lab)
        raise error

    result = play(body)
    assert (result.outcome, result.reason) == (Outcome.FAIL, str(error))
    assert len(result.checks) == 1


@pytest.mark.parametrize(("before", "outcome"), [(good, Outcome.SKIP), (bad, Outcome.FAIL)])
def test_a_case_that_turns_out_to_be_impossible_is_a_skip_unless_something_was_wrong(
    play: Player, before: Callable[[CaseLab], None], outcome: Outcome
) -> None:
    def body(lab: CaseLab) -> None:
        before(lab)
        raise CapabilityError("no such counter")

    result = play(body)
    assert (result.outcome, result.reason) == (outcome, "no such counter")


def test_a_mistake_in_a_case_is_an_error_with_its_traceback(play: Player) -> None:
    def body(_lab: CaseLab) -> None:
        raise ZeroDivisionError("oh")

    result = play(body)
    assert result.outcome is Outcome.ERROR
    assert "ZeroDivisionError: oh" in result.reason


def test_the_watchdog_ends_a_case_that_hangs(play: Player) -> None:
    result = play(lambda _lab: threading.Event().wait() and None, timeout_s=0.1)
    assert (result.outcome, result.reason) == (Outcome.FAIL, "did not end within 0.1 s")
    assert re.fullmatch(
        r"the time was over in line \d+ of test_executor.py: result = play\(lambda .*", result.notes[0]
    )
    assert result.duration_ms < 5000
    assert result.hosts[0].sockets


def test_the_watchdog_bites_again_where_a_bite_was_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "_BITE_INTERVAL_S", 0.01)
    swallowed: list[str] = []

    def body() -> None:
        while True:
            try:
                threading.Event().wait(30)
            except RunTimeout:
                if swallowed:
                    raise
                swallowed.append("the first")

    with pytest.raises(RunTimeout), watchdog(0.01):
        body()
    assert swallowed == ["the first"]


def test_a_bite_is_not_kept_by_a_task_of_an_event_loop() -> None:
    async def spin() -> None:
        while True:
            sum(range(100_000))
            await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    try:
        spinning = loop.create_task(spin())
        with pytest.raises(RunTimeout), watchdog(0.02, loop):
            loop.run_forever()
        assert not spinning.done()
        spinning.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(spinning)
    finally:
        loop.close()


def test_a_task_that_never_returns_to_its_loop_is_bitten(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang() -> None:
        while True:
            pass

    monkeypatch.setattr(executor, "_BITE_INTERVAL_S", 0.02)
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(RunTimeout), watchdog(0.02, loop):
            loop.run_until_complete(hang())
    finally:
        loop.close()


def test_a_bite_beside_an_event_loop_waits_for_it() -> None:
    loop = asyncio.new_event_loop()

    def body() -> None:
        signal.raise_signal(signal.SIGALRM)
        reached.set()
        loop.run_until_complete(asyncio.sleep(0))

    reached = threading.Event()
    try:
        with pytest.raises(RunTimeout), watchdog(30, loop):
            body()
        assert reached.is_set()
        assert loop.run_until_complete(asyncio.sleep(0, "well")) == "well"
    finally:
        loop.close()


def test_a_watchdog_around_another_goes_on() -> None:
    def body() -> None:
        with watchdog(30):
            pass
        threading.Event().wait(30)

    with pytest.raises(RunTimeout), watchdog(0.2):
        body()


def test_the_watchdog_is_quiet_afterwards() -> None:
    with watchdog(0.02):
        pass
    assert not threading.Event().wait(0.05)
    with pytest.raises(RunTimeout), watchdog(0.01):
        threading.Event().wait(5)


def test_a_lab_that_cannot_be_built_is_an_error(play: Player) -> None:
    result = play(good, opener=refusing(LabError("no veth today")))
    assert (result.outcome, result.reason) == (Outcome.ERROR, "the lab could not be built: no veth today")


def test_a_machine_that_lacks_something_is_a_skip_with_the_reason(play: Player) -> None:
    result = play(good, opener=refusing(CapabilityError("this kernel has no tbf")))
    assert (result.outcome, result.reason) == (Outcome.SKIP, "this kernel has no tbf")


def test_a_case_that_finds_something_lacking_is_a_skip_with_the_reason(play: Player) -> None:
    def body(lab: CaseLab) -> None:
        good(lab)
        raise CapabilityError("no packet filter")

    result = play(body)
    assert (result.outcome, result.reason) == (Outcome.SKIP, "no packet filter")


@pytest.mark.parametrize("body", [good, bad])
def test_a_lab_that_cannot_be_undone_is_an_error_whatever_the_case_said(play: Player, body: Body) -> None:
    @contextmanager
    def sticky(case: Case, run: Run) -> Iterator[BuiltLab]:
        with fake_lab(case, run) as built:
            yield built
        raise LabError("busy")

    result = play(body, opener=sticky)
    assert result.outcome is Outcome.ERROR
    assert "after the case: busy" in result.reason
    assert len(result.checks) == 1


def test_an_interrupt_goes_through(play: Player) -> None:
    def body(_lab: CaseLab) -> None:
        raise SystemExit(130)

    with pytest.raises(SystemExit):
        play(body)


def test_a_congestion_control_that_labs_may_not_have_is_a_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {
        "net/ipv4/tcp_available_congestion_control": ("reno", "bbr", "cubic"),
        "net/ipv4/tcp_allowed_congestion_control": ("reno", "bbr"),
    }
    monkeypatch.setattr(environment, "_listed", lambda path: listed.get(path, ()))
    monkeypatch.setattr(environment, "kernel_mptcp_missing", lambda: None)

    def reason(name: str, stacks: str = "userspace-kernel") -> str | None:
        return skip_reason(replace(make_run(stacks=stacks), congestion_control=name))

    assert "this kernel keeps congestion control 'cubic'" in (reason("cubic") or "")
    assert "no congestion control 'lia'" in (reason("lia") or "")
    assert reason("reno") is reason("default") is reason("cubic", "userspace-userspace") is None


def test_skip_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testbed.selftests.environment.kernel_mptcp_missing", lambda: "no MPTCP")
    monkeypatch.setattr("testbed.selftests.environment.ipv6_missing", lambda: None)
    assert skip_reason(make_run(stacks="userspace-kernel")) == "no MPTCP"
    assert skip_reason(make_run(stacks="kernel-userspace")) == "no MPTCP"
    assert skip_reason(make_run(stacks="userspace-userspace", family=6)) is None
    monkeypatch.setattr("testbed.selftests.environment.ipv6_missing", lambda: "no IPv6")
    assert skip_reason(make_run(stacks="userspace-userspace", family=6)) == "no IPv6"
    assert skip_reason(make_run(stacks="userspace-userspace", family=4)) is None


@pytest.mark.parametrize(
    ("number", "missing"), [(92, False), (93, True), (22, True)], ids=["switched off", "unknown", "invalid"]
)
def test_kernel_mptcp_that_is_only_switched_off_is_there(
    monkeypatch: pytest.MonkeyPatch, number: int, missing: bool
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(number, "reason")

    probes = (kernel_mptcp_missing, ipv6_missing, kernel_fast_open_missing)
    for probe in probes:
        probe.cache_clear()
    monkeypatch.setattr("testbed.selftests.environment.socket.socket", refuse)
    try:
        assert (kernel_mptcp_missing() is not None) is missing
        assert ipv6_missing() is not None
        assert kernel_fast_open_missing() == "the kernel's MPTCP has no Fast Open (reason)"
    finally:
        for probe in probes:
            probe.cache_clear()
