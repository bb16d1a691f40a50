"""TAP as the kernel's CI reads it."""

from __future__ import annotations

import io
import re

from testbed.report.tap import TapWriter
from testbed.selftests.results import Check, HostRecord, Outcome, Run, RunResult
from tests.selftests.fakes import make_result, make_run

CI_EXPRESSION = re.compile(r"(not )?ok (\d+)( -)? ([^#]*[^ ])( +# +)?([^ ].*)?$")
"""What MPTCP's own CI matches result lines with."""

RUNS = tuple(make_run(f"join/case-{number}") for number in range(1, 5))


def written(*results: RunResult, runs: tuple[Run, ...] = RUNS, interrupted: bool = False) -> list[str]:
    stream = io.StringIO()
    writer = TapWriter(stream, runs, session_seed=99)
    writer.start()
    for result in results:
        writer.add(result)
    writer.finish(interrupted=interrupted)
    return stream.getvalue().splitlines()


def test_the_form_of_the_kernels_selftests() -> None:
    lines = written(*(make_result(run=run) for run in RUNS))
    assert lines == [
        "KTAP version 1",
        "1..4",
        "# seed 99",
        "ok 1 - selftest: join/case-1[4,kernel-kernel] # time=12ms",
        "ok 2 - selftest: join/case-2[4,kernel-kernel] # time=12ms",
        "ok 3 - selftest: join/case-3[4,kernel-kernel] # time=12ms",
        "ok 4 - selftest: join/case-4[4,kernel-kernel] # time=12ms",
        "# Totals: pass:4 fail:0 xfail:0 xpass:0 skip:0 error:0",
    ]


def test_result_lines_are_read_by_the_ci() -> None:
    results = [
        make_result(Outcome.PASS, run=RUNS[0]),
        make_result(Outcome.SKIP, run=RUNS[1], reason="no kernel\nMPTCP # here"),
        make_result(Outcome.FAIL, run=RUNS[2]),
        make_result(Outcome.ERROR, run=RUNS[3], reason="no lab"),
    ]
    matches = [CI_EXPRESSION.fullmatch(line) for line in written(*results) if "ok " in line[:7]]
    found = [match.groups() for match in matches if match is not None]
    assert [(bool(group[0]), group[1], group[3], group[5]) for group in found] == [
        (False, "1", "selftest: join/case-1[4,kernel-kernel]", "time=12ms"),
        (False, "2", "selftest: join/case-2[4,kernel-kernel]", "SKIP no kernel MPTCP # here"),
        (True, "3", "selftest: join/case-3[4,kernel-kernel]", "time=12ms"),
        (True, "4", "selftest: join/case-4[4,kernel-kernel]", "ERROR could not be judged, time=12ms"),
    ]


def test_numbers_follow_the_plan_whatever_order_results_come_in() -> None:
    stream = io.StringIO()
    writer = TapWriter(stream, RUNS, session_seed=1)
    writer.start()
    seen = []
    for position in (1, 0, 3, 2):
        writer.add(make_result(run=RUNS[position]))
        seen.append(len([line for line in stream.getvalue().splitlines() if line.startswith("ok")]))
    assert seen == [0, 2, 2, 4]
    numbers = re.findall(r"^ok (\d) - selftest: join/case-(\d)", stream.getvalue(), re.MULTILINE)
    assert numbers == [(str(number), str(number)) for number in range(1, 5)]


def test_a_failure_shows_checks_counters_sockets_and_how_to_repeat_it() -> None:
    before = {"MPTcpExtMPJoinSynTx": 1, "TcpInSegs": 5}
    after = {"MPTcpExtMPJoinSynTx": 3, "TcpInSegs": 5}
    client = HostRecord("client", "userspace", before, after, ("ESTAB 10.0.0.1:80",))
    server = HostRecord("server", "kernel", {}, {}, ())
    result = RunResult(
        RUNS[0],
        Outcome.FAIL,
        reason="stopped here",
        checks=(
            Check("client MPJoinSynTx", "1", "2", Outcome.FAIL),
            Check("client AddAddr", "0", "0", Outcome.PASS),
            Check("server DssReset", "", "", Outcome.SKIP, "no such counter"),
        ),
        hosts=(client, server),
        notes=("eth0 carried 5 bytes",),
        captures=("/tmp/a.pcap",),
    )
    assert written(result, runs=RUNS[:1])[3:-1] == [
        "not ok 1 - selftest: join/case-1[4,kernel-kernel] # time=0ms",
        "# stopped here",
        "# client MPJoinSynTx: expected 1, observed 2",
        "# not checked, no such counter: server DssReset",
        "# eth0 carried 5 bytes",
        "# client (userspace) counters:",
        "#   MPTcpExtMPJoinSynTx +2",
        "# client (userspace) sockets:",
        "#   ESTAB 10.0.0.1:80",
        "# server (kernel) counters:",
        "#   none moved",
        "# capture: /tmp/a.pcap",
        "# repeat with: testbed selftest 'join/case-1[4,kernel-kernel]' --seed 99",
    ]


def test_what_passing_runs_could_not_check_is_said_once() -> None:
    skipped = Check("server DssReset", "", "", Outcome.SKIP, "no such counter")
    results = [RunResult(run, Outcome.PASS, checks=(skipped,)) for run in RUNS[:3]]
    lines = written(*results, runs=RUNS[:3])
    assert lines[-2] == "# not checked, no such counter: server DssReset (in 3 runs)"
    assert len(lines) == 8


def test_a_skip_without_a_reason_of_its_own_names_what_was_not_checked() -> None:
    skipped = Check("server DssReset", "", "", Outcome.SKIP, "no such counter")
    (line,) = [
        line
        for line in written(RunResult(RUNS[0], Outcome.SKIP, checks=(skipped,)), runs=RUNS[:1])
        if line.startswith("ok")
    ]
    assert line.endswith("# SKIP not checked, no such counter: server DssReset")


def test_after_an_interrupt_the_missing_are_counted_and_numbers_stay() -> None:
    lines = written(make_result(run=RUNS[0]), make_result(run=RUNS[3]), interrupted=True)
    assert [line.split()[1] for line in lines if line.startswith("ok")] == ["1", "4"]
    assert lines[-2:] == [
        "# interrupted: 2 of 4 runs have no result",
        "# Totals: pass:2 fail:0 xfail:0 xpass:0 skip:0 error:0",
    ]


def test_control_characters_cannot_break_out_of_a_diagnostic() -> None:
    result = make_result(Outcome.FAIL, run=RUNS[0], reason="one\rok 7 - forged\x1b[2J\nok 8 - forged")
    lines = written(result, runs=RUNS[:1])
    assert not [line for line in lines if line.startswith("ok")]
    assert "\x1b" not in "".join(lines)
