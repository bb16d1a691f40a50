"""Carry out one run: build its lab, play the case under a watchdog, judge, and undo the lab."""

from __future__ import annotations

import asyncio
import inspect
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from testbed.errors import CapabilityError, HostError, TestbedError
from testbed.selftests.case import Case, find_case
from testbed.selftests.clock import Clock, RealClock
from testbed.selftests.environment import skip_reason
from testbed.selftests.host_view import CaseAbortedError, HostAgent, NetworkControl
from testbed.selftests.known_flaky import excused
from testbed.selftests.lab_view import CaseLab
from testbed.selftests.link_checks import strained, wrong_shares
from testbed.selftests.observations import Achieved, Realised, topology_record
from testbed.selftests.results import HostRecord, Outcome, Run, RunResult
from testbed.topology.model import Topology


@dataclass(frozen=True, slots=True)
class BuiltLab:
    """A lab that is up."""

    topology: Topology
    agents: Mapping[str, HostAgent]
    """Host name → its agent."""
    network: NetworkControl
    captures: tuple[str, ...] = ()
    clock: Clock = field(default_factory=RealClock)
    realised: Realised = field(default_factory=dict)
    achieved: Callable[[], Achieved] = dict
    """What became of the packets on the links so far. Raises TestbedError."""
    logs: Callable[[], tuple[str, ...]] = tuple
    """What the hosts' agents have written so far."""
    event_loop: asyncio.AbstractEventLoop | None = None
    """Where the lab lives, if not in processes of its own."""


_SILENCE = "the host did not answer"

LabOpener = Callable[[Case, Run], AbstractContextManager[BuiltLab]]


_BITE_INTERVAL_S = 1.0
_GENTLE_BITES = 3


class RunTimeout(KeyboardInterrupt):
    """The watchdog's: not an Exception, so that nothing in between takes it for a failure of its own.

    Of this kind because an asyncio event loop, which a lab in virtual time is, lets nothing else through.
    """


@contextmanager
def watchdog(seconds: float, event_loop: asyncio.AbstractEventLoop | None = None) -> Iterator[None]:
    """Raises RunTimeout in the body, which must run in the main thread, when it takes too long.

    Again and again until the body ends: what is raised in a finalizer is lost.

    Where the body runs an event loop, the loop is asked to raise it. Raised anywhere, it could hit a task,
    which would keep it and raise it once more in whoever asks how the task ended; or the loop as it begins to
    wait for a task, whose end would then stop the loop for whoever uses it next. A body that never returns to
    its loop gets it all the same, after some bites.
    """

    is_over = False
    bites = 0

    def timeout() -> None:
        if not is_over:
            raise RunTimeout

    def bite(_number: int, _frame: FrameType | None) -> None:
        nonlocal bites
        bites += 1
        if event_loop is not None and bites <= _GENTLE_BITES:
            event_loop.call_soon(timeout)
        else:
            timeout()

    previous = signal.signal(signal.SIGALRM, bite)
    previous_timer = signal.setitimer(signal.ITIMER_REAL, seconds, _BITE_INTERVAL_S)
    try:
        try:
            yield
        finally:
            is_over = True
    finally:
        # Once more: a bite may have come before the first.
        is_over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        # A watchdog around this one goes on.
        signal.setitimer(signal.ITIMER_REAL, *previous_timer)


def execute(run: Run, open_lab: LabOpener, timeout_s: float) -> RunResult:
    """Never raises for what goes wrong within the run; that is what the result says."""
    if reason := skip_reason(run):
        return RunResult(run, Outcome.SKIP, reason)
    return excused(_execute(run, open_lab, timeout_s))


def _execute(run: Run, open_lab: LabOpener, timeout_s: float) -> RunResult:
    setup_clock = RealClock()
    started_us = setup_clock.now_us()
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    result: RunResult | None = None
    try:
        with open_lab(find_case(run.case), run) as built:
            setup_ms = _elapsed_ms(setup_clock, started_us)
            result = _play(find_case(run.case), run, built, timeout_s)
            result = replace(result, captures=built.captures)
            if isinstance(built.clock, RealClock):
                result = replace(result, setup_ms=setup_ms, started_at=started_at)
    except CapabilityError as error:
        return RunResult(run, Outcome.SKIP, str(error))
    except Exception as error:
        return _broken_lab(run, error, result)
    return result


def _broken_lab(run: Run, error: Exception, result: RunResult | None) -> RunResult:
    """The lab could not be built, or not undone after the case was judged."""
    text = str(error) if isinstance(error, TestbedError) else _traceback(error)
    if result is None:
        return RunResult(run, Outcome.ERROR, f"the lab could not be built: {text}")
    reason = f"after the case: {text}"
    if result.reason:
        reason = f"{result.reason}\n{reason}"
    return replace(result, outcome=Outcome.ERROR, reason=reason)


def _play(case: Case, run: Run, built: BuiltLab, timeout_s: float) -> RunResult:
    clock = built.clock
    lab = CaseLab(
        built.topology,
        built.agents,
        built.network,
        run.family,
        run.seed,
        addressing=run.addressing,
        clock=clock,
    )
    started_us = clock.now_us()
    outcome: Outcome | None = None
    reason = ""
    try:
        with watchdog(timeout_s, built.event_loop):
            lab.play_events()
            case.function(lab)
            lab.raise_failed()
    except RunTimeout as late:
        outcome, reason = Outcome.FAIL, f"did not end within {timeout_s:g} s"
        lab.notes += _where_it_was(case, late)
    except CapabilityError as error:
        # What was found before counts.
        has_failed = lab.verdict.outcome is Outcome.FAIL
        outcome, reason = Outcome.FAIL if has_failed else Outcome.SKIP, str(error)
    except (CaseAbortedError, HostError) as error:
        outcome, reason = Outcome.FAIL, str(error)
    except Exception as error:
        outcome, reason = Outcome.ERROR, _traceback(error)
    duration_ms = _elapsed_ms(clock, started_us)
    # An emulator that does not answer is another's failure.
    with suppress(TestbedError):
        lab.note_boxes()
    checks = lab.verdict.checks
    if outcome is None and not checks:
        outcome, reason = Outcome.ERROR, "the case judges nothing"
    outcome = outcome or lab.verdict.outcome
    achieved, deviations = _look_at_links(lab, built, outcome)
    if deviations:
        outcome = Outcome.ERROR
        reason = "\n".join(filter(None, (f"link not as asked: {'; '.join(deviations)}", reason)))
    is_good = outcome is Outcome.PASS
    hosts = _host_records(lab, with_sockets=not is_good)
    if not is_good and not any(_SILENCE in line for host in hosts for line in host.sockets):
        lab.abandon_transfers()
    return RunResult(
        run=run,
        outcome=outcome,
        reason=reason,
        duration_ms=duration_ms,
        checks=checks,
        hosts=hosts,
        notes=tuple(lab.notes),
        transfers=lab.transfer_records(),
        events=tuple(lab.events),
        topology=topology_record(built.topology, built.realised, achieved),
        logs=() if is_good else built.logs(),
    )


def _where_it_was(case: Case, late: RunTimeout) -> Iterator[str]:
    """The line of the case that was being played when the time was over; nothing where it cannot be told."""
    source = inspect.getsourcefile(case.function)
    lines = [frame for frame in traceback.extract_tb(late.__traceback__) if frame.filename == source]
    if lines and source is not None:
        yield f"the time was over in line {lines[-1].lineno} of {Path(source).name}: {lines[-1].line}"


def _look_at_links(lab: CaseLab, built: BuiltLab, outcome: Outcome) -> tuple[Achieved, list[str]]:
    """What the links did, and in what they did not do what the case relies on."""
    try:
        achieved = built.achieved()
    except TestbedError as error:
        return {}, [str(error)]
    deviations = [] if lab.is_changed else wrong_shares(built.topology, achieved)
    if outcome is Outcome.FAIL:
        deviations += strained(built.topology, achieved)
    return achieved, deviations


def _host_records(lab: CaseLab, *, with_sockets: bool) -> tuple[HostRecord, ...]:
    """Counters and, for a failure, the sockets as they still are; a host that no longer answers says so."""
    records = lab.host_records()
    if not with_sockets:
        return records
    described = []
    for record, host in zip(records, (lab.client, lab.server), strict=True):
        try:
            sockets = tuple(host.sockets())
        except (TestbedError, OSError) as error:
            sockets = (f"{_SILENCE}: {error}",)
        described.append(replace(record, sockets=sockets))
    return tuple(described)


def _elapsed_ms(clock: Clock, started_us: int) -> int:
    return round((clock.now_us() - started_us) / 1000)


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(error)).rstrip()
