"""Each judging helper is shown to pass on what it describes and to fail on every deviation from it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mptcp_stack.counters import ALL_NAMES
from testbed.selftests.host_view import CaseHost
from testbed.selftests.judgement import (
    FALLBACK_NAMES,
    NEWER_KERNEL_NAMES,
    Expectation,
    Verdict,
    at_least,
    at_most,
    between,
    exactly,
    full_counter_name,
    judge_counters,
)
from testbed.selftests.measurement import Measurement
from testbed.selftests.results import Outcome
from tests.selftests.fakes import FakeAgent, make_topology


@pytest.mark.parametrize(
    ("expectation", "holds", "does_not_hold"),
    [
        (exactly(2), [2], [1, 3]),
        (at_least(2), [2, 3, 100], [1, 0, -1]),
        (at_most(2), [2, 1, 0, -1], [3]),
        (between(2, 4), [2, 3, 4], [1, 5]),
    ],
    ids=str,
)
def test_expectations(expectation: Expectation, holds: list[int], does_not_hold: list[int]) -> None:
    assert [expectation.holds_for(value) for value in holds] == [True] * len(holds)
    assert [expectation.holds_for(value) for value in does_not_hold] == [False] * len(does_not_hold)


def test_an_empty_range_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="empty range"):
        between(3, 2)


def test_expectations_read_as_sentences() -> None:
    texts = [str(expected) for expected in (exactly(1), at_least(2), at_most(3), between(4, 5))]
    assert texts == ["1", "at least 2", "at most 3", "between 4 and 5"]


def test_counter_names_may_be_short_or_long() -> None:
    assert full_counter_name("MPJoinSynTx") == "MPTcpExtMPJoinSynTx"
    assert full_counter_name("TcpRetransSegs") == "TcpRetransSegs"
    assert full_counter_name("DssReset") == "MPTcpExtDssReset"


def test_a_misspelt_counter_is_an_error_and_no_skipped_check() -> None:
    verdict = Verdict()
    with pytest.raises(ValueError, match="MPJoinSynTX"):
        judge_counters(verdict, "client", {}, {"MPJoinSynTX": 1})
    assert verdict.checks == ()


def test_a_counter_that_the_kernel_lacks_is_skipped_and_said_to_be() -> None:
    verdict = Verdict()
    judge_counters(verdict, "client", {"MPTcpExtAddAddr": 0}, {"DssReset": 0})
    (check,) = verdict.checks
    assert check.outcome is Outcome.SKIP
    assert "client DssReset" in str(check)
    assert "no such counter" in str(check)


def test_verdict_fails_when_one_check_fails() -> None:
    verdict = Verdict()
    outcomes = []
    for observed in (1, 2, 1):
        verdict.must_be_equal("number", 1, observed)
        outcomes.append(verdict.outcome)
    assert outcomes == [Outcome.PASS, Outcome.FAIL, Outcome.FAIL]
    assert [check.outcome for check in verdict.checks] == [Outcome.PASS, Outcome.FAIL, Outcome.PASS]


def test_verdict_without_a_check_that_could_be_made_is_a_skip() -> None:
    verdict = Verdict()
    outcomes = [verdict.outcome]
    verdict.skip("a", "absent")
    outcomes.append(verdict.outcome)
    verdict.must_be_equal("b", 1, 1)
    outcomes.append(verdict.outcome)
    assert outcomes == [Outcome.SKIP, Outcome.SKIP, Outcome.PASS]


def test_verdict_range_and_explicit_failure() -> None:
    verdict = Verdict()
    verdict.must_be_within("bytes", at_least(10), 9)
    verdict.fail("thing", "to be", "not to be")
    assert [str(check) for check in verdict.checks] == [
        "bytes: expected at least 10, observed 9",
        "thing: expected to be, observed not to be",
    ]
    assert {check.outcome for check in verdict.checks} == {Outcome.FAIL}


class Bench:
    """A measurement over made-up counters."""

    def __init__(self, client: dict[str, int], server: dict[str, int]) -> None:
        topology = make_topology()
        self.verdict = Verdict()
        self.agents = {"client": FakeAgent(), "server": FakeAgent()}
        hosts = {name: CaseHost(name, topology.node(name), self.agents[name], 4) for name in self.agents}
        self.run = Measurement(self.verdict, hosts["client"], hosts["server"])
        self.run.start()
        for name, moved in (("client", client), ("server", server)):
            for counter, amount in moved.items():
                self.agents[name].values["MPTcpExt" + counter] += amount
        self.run.stop()


Judge = Callable[[Measurement], None]

HELPERS: dict[str, tuple[Judge, dict[str, int], dict[str, int]]] = {
    "one connection": (
        Measurement.must_be_one_mptcp_connection,
        {"MPCapableSYNTX": 1, "MPCapableSYNACKRX": 1},
        {"MPCapableSYNRX": 1, "MPCapableACKRX": 1},
    ),
    "no fallback": (Measurement.must_not_fall_back, {}, {}),
    "no join": (lambda run: run.must_join(0), {}, {}),
    "two joins": (
        lambda run: run.must_join(2),
        {"MPJoinSynTx": 2, "MPJoinSynAckRx": 2},
        {"MPJoinSynRx": 2, "MPJoinAckRx": 2},
    ),
    "one join of two rejected": (
        lambda run: run.must_join(1, rejected=1),
        {"MPJoinSynTx": 2, "MPJoinSynAckRx": 2},
        {"MPJoinSynRx": 2, "MPJoinAckRx": 1, "MPJoinRejected": 1},
    ),
    "one join of three attempts": (
        lambda run: run.must_join(1, attempted=3),
        {"MPJoinSynTx": 3, "MPJoinSynAckRx": 1},
        {"MPJoinSynRx": 1, "MPJoinAckRx": 1},
    ),
    "no announcement": (lambda run: run.must_announce(0), {}, {}),
    "client removes": (
        lambda run: run.must_remove(by=run.client.host, addresses=2, subflows=1),
        {"RmAddrTx": 2, "RmSubflow": 1},
        {"RmAddr": 2},
    ),
    "server removes": (
        lambda run: run.must_remove(by=run.server.host, addresses=1, subflows=1),
        {"RmAddr": 1},
        {"RmAddrTx": 1, "RmSubflow": 1},
    ),
    "no reset": (Measurement.must_not_reset, {}, {}),
}


@pytest.mark.parametrize("name", HELPERS)
def test_helper_passes_on_what_it_describes(name: str) -> None:
    judge, client, server = HELPERS[name]
    bench = Bench(client, server)
    judge(bench.run)
    assert bench.verdict.outcome is Outcome.PASS, [str(check) for check in bench.verdict.checks]


@pytest.mark.parametrize("name", HELPERS)
def test_helper_fails_on_every_deviation_of_every_counter_that_it_checks(name: str) -> None:
    judge, client, server = HELPERS[name]
    bench = Bench(client, server)
    judge(bench.run)
    subjects = [check.subject for check in bench.verdict.checks if check.outcome is Outcome.PASS]
    assert subjects
    for subject in subjects:
        host, counter = subject.split()
        for deviation in (-1, 1):
            moved = {"client": dict(client), "server": dict(server)}
            moved[host][counter] = moved[host].get(counter, 0) + deviation
            deviating = Bench(moved["client"], moved["server"])
            judge(deviating.run)
            failed = {check.subject for check in deviating.verdict.checks if check.outcome is Outcome.FAIL}
            assert failed == {subject}, (subject, deviation)


@pytest.mark.parametrize("name", HELPERS)
def test_helper_checks_every_counter_that_its_description_moves(name: str) -> None:
    judge, client, server = HELPERS[name]
    bench = Bench(client, server)
    judge(bench.run)
    checked = {check.subject for check in bench.verdict.checks}
    assert {f"client {counter}" for counter in client} <= checked
    assert {f"server {counter}" for counter in server} <= checked


def test_joins_are_checked_for_every_way_to_go_wrong() -> None:
    bench = Bench({}, {})
    bench.run.must_join(0)
    checked = {check.subject for check in bench.verdict.checks}
    assert checked == {
        *(f"client MPJoin{name}" for name in ("SynTx", "SynAckRx", "SynAckHMacFailure", "SynAckNoMPJoin")),
        *(f"client MPJoinSynTx{name}Err" for name in ("CreatSk", "Bind", "Connect")),
        *(
            f"server MPJoin{name}"
            for name in ("SynRx", "AckRx", "AckHMacFailure", "Rejected", "NoTokenFound")
        ),
        *(f"server MPJoin{name}" for name in ("AckNoMPJoin", "NotEstablished")),
        *(f"{side} {name}" for side in ("client", "server") for name in FALLBACK_NAMES),
    }


def test_announcements_may_be_repeated_but_echoes_count_once() -> None:
    once = {"AddAddr": 1, "EchoAddTx": 1}, {"AddAddrTx": 1, "EchoAdd": 1}
    repeated = {"AddAddr": 2, "EchoAddTx": 2}, {"AddAddrTx": 3, "EchoAdd": 1}
    never_echoed = {"AddAddr": 1, "EchoAddTx": 0}, {"AddAddrTx": 1, "EchoAdd": 0}
    lost = {"AddAddr": 0, "EchoAddTx": 0}, {"AddAddrTx": 4, "EchoAdd": 0}
    twice_echoed = {"AddAddr": 1, "EchoAddTx": 1}, {"AddAddrTx": 1, "EchoAdd": 2}
    for (client, server), outcome in (
        (once, Outcome.PASS),
        (repeated, Outcome.PASS),
        (never_echoed, Outcome.FAIL),
        (lost, Outcome.FAIL),
        (twice_echoed, Outcome.FAIL),
    ):
        bench = Bench(client, server)
        bench.run.must_announce(1)
        assert bench.verdict.outcome is outcome, (client, server)


@pytest.mark.parametrize("closer", ["client", "server"])
def test_fastclose_must_be_sent_by_one_side_and_understood_by_the_other(closer: str) -> None:
    sent = {"MPFastcloseTx": 1, "MPRstTx": 1}
    heard = {"MPFastcloseRx": 1, "MPRstRx": 1}

    def outcome(closer_moved: dict[str, int], peer_moved: dict[str, int]) -> Outcome:
        sides = (closer_moved, peer_moved) if closer == "client" else (peer_moved, closer_moved)
        bench = Bench(*sides)
        side = bench.run.client if closer == "client" else bench.run.server
        bench.run.must_fastclose(by=side.host)
        return bench.verdict.outcome

    assert outcome(sent, heard) is Outcome.PASS
    assert outcome(heard, sent) is Outcome.FAIL
    for name in sent:
        assert outcome({**sent, name: 0}, heard) is Outcome.FAIL
    for name in heard:
        assert outcome(sent, {**heard, name: 0}) is Outcome.FAIL
    assert outcome({**sent, "MPFastcloseTx": 2}, heard) is Outcome.FAIL


@pytest.mark.parametrize("name", FALLBACK_NAMES)
@pytest.mark.parametrize("side", ["client", "server"])
def test_every_kind_of_fallback_on_either_side_is_noticed(name: str, side: str) -> None:
    bench = Bench({name: 1} if side == "client" else {}, {name: 1} if side == "server" else {})
    bench.run.must_not_fall_back()
    failed = [check.subject for check in bench.verdict.checks if check.outcome is Outcome.FAIL]
    assert failed == [f"{side} {name}"]


def test_the_newer_counters_are_none_of_the_known() -> None:
    assert not NEWER_KERNEL_NAMES & set(ALL_NAMES)
