"""A run is judged only over links that did what was asked of them; else it says so, and is no failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from mptcp_stack.device.link_model import LinkModel
from testbed.selftests import executor
from testbed.selftests.axes import Axes
from testbed.selftests.case import SIMULATED, Case, all_cases
from testbed.selftests.executor import BuiltLab, execute
from testbed.selftests.lab_view import CaseLab
from testbed.selftests.link_checks import strained, wrong_shares
from testbed.selftests.matrix import expand
from testbed.selftests.results import Outcome, Run, RunResult
from testbed.selftests.simulated_labs import open_simulated_lab
from testbed.topology import load_topology
from testbed.topology.impairments import combine, parse_word, split_words
from testbed.topology.model import Impairment, Topology

BUSY = {"offered": 1000, "delivered": 1000}


def with_impairment(text: str) -> Topology:
    topology = load_topology("one-path")
    words = {word: parse_word(word, value) for word, value in split_words(text).items()} if text else {}
    link = replace(topology.links[0], forward=combine(words, Impairment()))
    return replace(topology, links=(link, *topology.links[1:]))


def shares(text: str, **counters: int) -> list[str]:
    topology = with_impairment(text)
    return wrong_shares(topology, {topology.links[0].first: BUSY | counters})


@pytest.mark.parametrize(
    ("asked", "counted"),
    [
        ("loss 2%", {"lost": 20}),
        ("loss 2%", {"lost": 40}),
        ("delay 1ms duplicate 10%", {"duplicated": 100}),
        ("corrupt 1%", {"corrupted": 10}),
        ("delay 5ms reorder 25%", {"reordered": 240}),
        # these come in bursts, or resemble each other: a share says little
        ("loss gemodel 1% 20%", {"lost": 0}),
        ("loss 2% 50%", {"lost": 200}),
        ("delay 5ms reorder 100% gap 5", {"reordered": 200}),
        # dropped at a full queue, which is no loss
        ("rate 10mbit", {"overflowed": 300}),
        ("", {"filtered": 30}),
    ],
)
def test_what_was_asked_is_met(asked: str, counted: dict[str, int]) -> None:
    assert shares(asked, **counted) == []


@pytest.mark.parametrize(
    ("asked", "counted", "problem"),
    [
        ("loss 5%", {"lost": 0}, "loss of 5.00% was asked, it met 0 of 1000 packets"),
        ("loss 5%", {"lost": 120}, "loss of 5.00% was asked, it met 120 of 1000 packets"),
        ("delay 1ms", {"lost": 1}, "loss of 0.00% was asked, it met 1 of 1000 packets"),
        ("duplicate 10%", {"duplicated": 10}, "duplication of 10.00%"),
        ("corrupt 5%", {"corrupted": 1}, "corruption of 5.00%"),
        ("delay 5ms reorder 25%", {"reordered": 20}, "reordering of 25.00%"),
    ],
)
def test_deviations_are_named(asked: str, counted: dict[str, int], problem: str) -> None:
    (found,) = shares(asked, **counted)
    assert problem in found


def test_links_that_nothing_counts_are_left_out() -> None:
    topology = with_impairment("loss 5%")
    assert wrong_shares(topology, {}) == strained(topology, {}) == []


def test_a_strained_emulator_is_told() -> None:
    topology = with_impairment("delay 100ms")
    sender = topology.links[0].first

    def told(**counters: int) -> list[str]:
        return strained(topology, {sender: BUSY | counters})

    assert told(timed=10, late_us=90_000) == told(overrun=0) == []
    assert "11000 us too late" in told(timed=10, late_us=110_000)[0]
    assert "3 packets came too fast" in told(overrun=3)[0]


def one_run_of(case: str) -> Run:
    return next(run for run in expand(all_cases(), Axes(backends=(SIMULATED,)), seed=4) if run.case == case)


LOSSY = one_run_of("loss/loss-5-percent")


def test_records_hold_what_the_links_did() -> None:
    result = execute(LOSSY, open_simulated_lab, 60.0)
    assert result.outcome is Outcome.PASS, result.reason
    assert result.topology is not None
    impaired = [link for link in result.topology.links if link.forward]
    assert len(impaired) == 2
    for link in impaired:
        for achieved in (link.achieved_forward, link.achieved_backward):
            assert 0 < achieved["lost"] < achieved["offered"]
            assert 0 not in achieved.values()
    assert not any(link.achieved_forward for link in result.topology.links if not link.forward)


def test_a_link_that_does_nothing_makes_an_error_of_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LinkModel, "_is_duplicated", lambda _model: False)
    result = execute(one_run_of("duplicate/everything-twice"), open_simulated_lab, 60.0)
    assert result.outcome is Outcome.ERROR
    assert result.reason.startswith(
        "link not as asked: r1:eth1: duplication of 100.00% was asked, it met 0 of "
    )


def play_failing(monkeypatch: pytest.MonkeyPatch, counters: dict[str, int], *, is_changed: bool) -> RunResult:
    """A case that fails over a link which did this."""

    def body(lab: CaseLab) -> None:
        if is_changed:
            lab.impair("client", "eth0", "none")
        lab.verdict.must_be_equal("one", 1, 2)

    case = Case("body", ("made-up",), "one-path", body, "made up", {"emulated": "true"})
    monkeypatch.setattr(executor, "find_case", lambda _name: case)

    @contextmanager
    def opener(_case: Case, run: Run) -> Iterator[BuiltLab]:
        with open_simulated_lab(case, run) as built:
            sender = built.topology.links[0].first
            yield replace(built, achieved=lambda: {sender: BUSY | counters})

    return execute(LOSSY, opener, 60.0)


def test_a_failure_over_a_sound_link_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    result = play_failing(monkeypatch, {}, is_changed=False)
    assert (result.outcome, result.reason) == (Outcome.FAIL, "")


@pytest.mark.parametrize("counters", [{"lost": 5}, {"overrun": 1}])
def test_a_failure_over_a_bad_link_is_none(monkeypatch: pytest.MonkeyPatch, counters: dict[str, int]) -> None:
    result = play_failing(monkeypatch, counters, is_changed=False)
    assert result.outcome is Outcome.ERROR
    assert result.reason.startswith("link not as asked: client:eth0: ")
    # what the case saw is there all the same
    assert [check.subject for check in result.failed_checks()] == ["one"]


def test_what_a_case_has_changed_is_not_what_the_topology_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    result = play_failing(monkeypatch, {"lost": 5}, is_changed=True)
    assert (result.outcome, result.reason) == (Outcome.FAIL, "")
