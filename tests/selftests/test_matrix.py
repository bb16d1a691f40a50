"""Which runs a command line chooses, and what it is told when it makes no sense."""

from __future__ import annotations

import dataclasses
import operator
import re

import pytest

from testbed.errors import UsageError
from testbed.selftests import case as case_module
from testbed.selftests.axes import Axes, split_list
from testbed.selftests.case import STACK_PAIRS, Case, all_cases, case, find_case
from testbed.selftests.lab_view import CaseLab
from testbed.selftests.matrix import derived_seed, expand


def nothing(_lab: CaseLab) -> None:
    """A case that does nothing."""


def make_case(name: str, *groups: str, stacks: tuple[str, ...] = STACK_PAIRS) -> Case:
    return Case(name, groups, "one-path", nothing, "says nothing", {}, stacks)


CASES = (
    make_case("alpha", "join", "signal"),
    make_case("beta", "join"),
    make_case("gamma", "close", stacks=("kernel-kernel",)),
)


def chosen(
    *select: str, families: tuple[str, ...] = ("4",), stacks: tuple[str, ...] = ("kernel-kernel",)
) -> list[str]:
    return [run.identifier for run in expand(CASES, Axes(select, families, stacks), seed=1)]


def test_everything_is_cases_times_families_times_stacks() -> None:
    runs = expand(CASES, Axes(), seed=1)
    assert len(runs) == 2 * 2 * 4 + 2
    assert len({run.identifier for run in runs}) == len(runs)


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ("join", ["join/alpha", "join/beta"]),
        ("signal", ["join/alpha"]),
        ("alpha", ["join/alpha"]),
        ("join/beta", ["join/beta"]),
        ("*a", ["join/alpha", "join/beta", "close/gamma"]),
        ("?eta", ["join/beta"]),
        ("close/gamma[4,kernel-kernel]", ["close/gamma"]),
        ("*[4,kernel-kernel]", ["join/alpha", "join/beta", "close/gamma"]),
    ],
)
def test_select_by_group_case_run_and_wildcard(select: str, expected: list[str]) -> None:
    assert chosen(select) == [f"{name}[4,kernel-kernel]" for name in expected]


def test_brackets_mean_themselves() -> None:
    assert len(chosen("join/beta[6,kernel-kernel]", families=("4", "6"))) == 1


def test_a_case_runs_on_its_own_stacks_only() -> None:
    assert chosen("gamma", stacks=STACK_PAIRS) == ["close/gamma[4,kernel-kernel]"]


def test_repetitions_have_names_and_seeds_of_their_own() -> None:
    runs = expand(CASES, Axes(("beta",), ("4",), ("kernel-kernel",), repeat=3), seed=1)
    assert [run.identifier for run in runs] == [
        "join/beta[4,kernel-kernel]",
        "join/beta[4,kernel-kernel,repetition-2]",
        "join/beta[4,kernel-kernel,repetition-3]",
    ]
    assert len({run.seed for run in runs}) == 3
    again = expand(CASES, Axes(("join/beta[4,kernel-kernel,repetition-3]",), repeat=3), seed=1)
    assert again == (runs[2],)
    # without a repetition, a run's name means all of its repetitions
    named = expand(CASES, Axes(("join/beta[4,kernel-kernel]",), repeat=3), seed=1)
    assert named == runs


def test_values_given_twice_run_once() -> None:
    assert chosen("beta", families=("4", "4"), stacks=("kernel-kernel", "kernel-kernel")) == [
        "join/beta[4,kernel-kernel]"
    ]


def test_all_problems_come_at_once_with_hints() -> None:
    axes = Axes(("alhpa", "join", "xyzzy"), ("5", "6"), ("kernel-kernal",), repeat=0)
    with pytest.raises(UsageError) as caught:
        expand(CASES, axes, seed=1)
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert "--family '5'" in lines[0]
    assert "did you mean 'kernel-kernel'" in lines[1]
    assert "--repeat 0" in lines[2]
    assert "did you mean 'alpha'" in lines[3]
    assert "'xyzzy'" in lines[4]
    assert "there are join, signal" in lines[4]


def test_empty_lists_are_problems() -> None:
    with pytest.raises(UsageError, match="--family: at least one") as caught:
        expand(CASES, Axes(families=(), stacks=()), seed=1)
    assert "--stacks: at least one" in str(caught.value)


def test_a_selection_that_no_axis_allows() -> None:
    with pytest.raises(UsageError, match="close/gamma has --family 4,6,4-mapped and --stacks kernel-kernel"):
        chosen("gamma", stacks=("userspace-kernel",))
    with pytest.raises(UsageError, match="no case runs with these axes"):
        chosen("join", families=("mixed",))


def test_seeds_depend_on_the_session_and_the_identifier_only() -> None:
    alone = expand(CASES, Axes(("beta",), ("6",), ("kernel-kernel",)), seed=42)[0]
    together = {run.identifier: run for run in expand(CASES, Axes(), seed=42)}
    assert together[alone.identifier].seed == alone.seed == derived_seed(42, alone.identifier)
    assert derived_seed(43, alone.identifier) != alone.seed


def test_split_list() -> None:
    assert split_list(" 4, 6,,") == ("4", "6")


def test_the_shipped_cases_are_well_formed() -> None:
    cases = all_cases()
    assert {"connect", "fallback", "join", "remove", "paths", "fastclose"} <= {
        group for case in cases for group in case.groups
    }
    for found in cases:
        assert re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+", found.full_name)
        assert found.stacks
        assert set(found.stacks) <= set(STACK_PAIRS)
        assert find_case(found.full_name) is found
    runs = expand(cases, Axes(), seed=0)
    families = [len({"4", "6"} & set(case.families)) or len(case.families) for case in cases]
    stacks = [len(case.stacks) for case in cases]
    assert len(runs) == sum(map(operator.mul, families, stacks))
    assert not any("#" in run.identifier for run in runs)


def identifiers(axes: Axes) -> list[str]:
    return [run.identifier for run in expand(CASES, axes, seed=1)]


def test_every_axis_multiplies_and_is_named() -> None:
    runs = expand(
        CASES[:1],
        Axes(
            stacks=("userspace-userspace",),
            families=("4", "4-mapped"),
            backends=("namespaces", "simulated"),
            schedulers=("default", "redundant"),
            congestion_controls=("default", "lia"),
            checksums=("off", "on"),
            impairments=("none", "lossy"),
        ),
        seed=1,
    )
    assert len({run.identifier for run in runs}) == len({run.seed for run in runs}) == 64
    assert runs[0].identifier == "join/alpha[4,userspace-userspace]"
    last = runs[-1]
    assert last.identifier == (
        "join/alpha[4-mapped,userspace-userspace,simulated,scheduler=redundant,congestion=lia,checksum,impair=lossy]"
    )
    assert (last.family, last.addressing, last.checksum) == (4, "4-mapped", True)
    assert last.replay_command(9) == (
        f"testbed selftest '{last.identifier}' --seed 9 --family 4-mapped --backend simulated"
        " --scheduler redundant --congestion lia --checksum on --impair lossy"
    )


def test_each_axis_checks_its_names() -> None:
    axes = Axes(
        backends=("simulatd",),
        schedulers=("redundand",),
        congestion_controls=("vegas",),
        checksums=("maybe",),
        impairments=("losy",),
        selection="quik",
        tags=("singal",),
        excluded=("alpa",),
    )
    with pytest.raises(UsageError) as caught:
        expand(CASES, axes, seed=1)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "--backend 'simulatd'",
        "--scheduler 'redundand'",
        "--congestion 'vegas'",
        "--checksum 'maybe'",
        "--impair 'losy'",
        "--select 'quik'",
        "--except 'alpa'",
        "--tag 'singal'",
    ]
    assert str(caught.value).count("did you mean") == 6


def test_mixed_is_for_cases_that_say_so() -> None:
    with pytest.raises(UsageError, match="nothing is selected"):
        expand(CASES, Axes(families=("mixed",)), seed=1)
    willing = dataclasses.replace(CASES[0], families=("mixed",))
    runs = expand((willing,), Axes(families=("mixed",)), seed=1)
    assert {(run.family, run.addressing, run.family_name) for run in runs} == {(6, "mixed", "mixed")}


def test_what_is_left_out() -> None:
    assert identifiers(Axes(("join",), ("4",), ("kernel-kernel",), excluded=("signal",))) == [
        "join/beta[4,kernel-kernel]"
    ]
    assert identifiers(Axes((), ("4",), ("kernel-kernel",), excluded=("a*", "beta"))) == [
        "close/gamma[4,kernel-kernel]"
    ]
    with pytest.raises(UsageError, match=r"nothing is selected: --except leaves out all \d+ runs"):
        identifiers(Axes(("alpha",), excluded=("*alpha*",)))
    with pytest.raises(UsageError, match="in virtual time there is userspace-userspace only"):
        identifiers(Axes(stacks=("kernel-kernel",), backends=("simulated",)))


def test_tags_are_groups() -> None:
    found = identifiers(Axes(families=("4",), stacks=("kernel-kernel",), tags=("signal", "close")))
    assert found == ["join/alpha[4,kernel-kernel]", "close/gamma[4,kernel-kernel]"]


def test_the_quick_selection_takes_turns_and_leaves_slow_cases_out() -> None:
    cases = (
        *(make_case(f"case-{number}", "join") for number in range(8)),
        make_case("delta", "join", "slow"),
    )
    quick = expand(cases, Axes(selection="quick"), seed=1)
    assert [run.case for run in quick] == [case.full_name for case in cases[:8]]
    assert {(run.stacks, run.family) for run in quick} == {
        (pair, family) for pair in STACK_PAIRS for family in (4, 6)
    }
    simulated = expand(cases, Axes(selection="quick", backends=("simulated",)), seed=1)
    assert len(simulated) == 2 * 8
    assert "join/delta" in {run.case for run in expand(cases, Axes(), seed=1)}


@pytest.fixture
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case_module, "_registry", {})


@pytest.mark.usefixtures("_registry")
def test_two_cases_of_one_name_are_an_error() -> None:
    register = case(topology="one-path", groups=("join",))
    register(nothing)
    with pytest.raises(ValueError, match="two cases are named 'join/nothing'"):
        register(nothing)


@pytest.mark.usefixtures("_registry")
def test_a_case_needs_a_docstring_a_group_and_known_stacks() -> None:
    def silent(_lab: CaseLab) -> None:
        return

    for groups, stacks, function in (
        (("join",), STACK_PAIRS, silent),
        ((), STACK_PAIRS, nothing),
        (("join",), ("kernel-windows",), nothing),
    ):
        with pytest.raises(ValueError, match="needs a group"):
            case(topology="one-path", groups=groups, stacks=stacks)(function)
