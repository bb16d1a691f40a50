"""The matrix: which cases, times which values of every axis."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from testbed.errors import UsageError
from testbed.selftests.axes import ADDRESSINGS, DEFAULT_FAMILIES, QUICK, Axes, axis_problems, hint
from testbed.selftests.case import BACKENDS, SIMULATED, SLOW, STACK_PAIRS, Case
from testbed.selftests.results import Run

SIMULATED_PAIR = "userspace-userspace"
"""The kernel's stack knows no virtual time."""


def expand(cases: Sequence[Case], axes: Axes, seed: int) -> tuple[Run, ...]:
    """Every run that was asked for, in a stable order.

    Raises UsageError with all problems at once: unknown names and values, a selection without runs.
    """
    problems = axis_problems(axes) + _name_problems(cases, axes)
    if problems:
        raise UsageError("\n".join(problems))
    runs = _runs(cases, axes, seed)
    selected = [run for run in runs if _is_selected(run, cases, axes.select or ("*",))]
    chosen = [run for run in selected if not _is_selected(run, cases, axes.excluded)]
    if axes.selection == QUICK:
        chosen = _quick(chosen, cases)
    if not chosen:
        raise UsageError(f"nothing is selected: {_why_nothing(cases, axes, len(selected))}")
    return tuple(chosen)


def _why_nothing(cases: Sequence[Case], axes: Axes, selected: int) -> str:
    if selected:
        return f"--except leaves out all {selected} runs"
    if set(axes.backends) == {SIMULATED} and SIMULATED_PAIR not in axes.stacks:
        return f"in virtual time there is {SIMULATED_PAIR} only"
    named = [case for case in cases if _is_named(case, axes.select)]
    if not axes.tags and len(named) == 1:
        case = named[0]
        return f"{case.full_name} has --family {','.join(case.families)} and --stacks {','.join(case.stacks)}"
    return "no case runs with these axes"


def _is_named(case: Case, patterns: Sequence[str]) -> bool:
    """Whether a pattern means the case as such, without a run of it."""
    names = (case.full_name, case.name, *case.groups)
    return any(_matches(pattern, name) for pattern in patterns for name in names)


def derived_seed(session_seed: int, identifier: str) -> int:
    """The seed of one run: it depends on nothing but the session's seed and the run's identifier."""
    digest = hashlib.sha256(f"{session_seed}/{identifier}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


def _runs(cases: Iterable[Case], axes: Axes, seed: int) -> list[Run]:
    once = [
        run
        for case in cases
        if not axes.tags or set(axes.tags) & set(case.groups)
        for run in _runs_of(case, axes)
    ]
    repeated = [replace(run, repetition=number) for number in range(1, axes.repeat + 1) for run in once]
    return [replace(run, seed=derived_seed(seed, run.identifier)) for run in repeated]


def _runs_of(case: Case, axes: Axes) -> list[Run]:
    """Of one case, each once; their seeds are still to be given."""
    values = (
        axes.backends,
        axes.schedulers,
        axes.congestion_controls,
        axes.checksums,
        axes.impairments,
        axes.stacks,
        _families(case, axes),
    )
    runs = []
    for backend, scheduler, control, checksum, impairment, pair, family in itertools.product(
        *map(dict.fromkeys, values)
    ):
        if pair not in case.stacks or family not in case.families:
            continue
        if backend == SIMULATED and pair != SIMULATED_PAIR:
            continue
        client_stack, server_stack = pair.split("-")
        runs.append(
            Run(
                case.full_name,
                6 if family in ("6", "mixed") else 4,
                client_stack,
                server_stack,
                seed=0,
                backend=backend,
                addressing=family if family in ("4-mapped", "mixed") else "",
                scheduler=scheduler,
                congestion_control=control,
                checksum=checksum == "on",
                impairment=impairment,
            )
        )
    return runs


def _families(case: Case, axes: Axes) -> tuple[str, ...]:
    """Those asked for; by default a case that runs with none of them runs with its own."""
    is_default = axes.families == DEFAULT_FAMILIES
    return case.families if is_default and not set(axes.families) & set(case.families) else axes.families


def _quick(runs: Sequence[Run], cases: Sequence[Case]) -> list[Run]:
    """Of each case that is not slow, one pair of stacks and one family, others for the next case.

    All runs in virtual time stay, for they take next to none.
    """
    slow = {case.full_name for case in cases if SLOW in case.groups}
    real = [run for run in runs if run.backend != SIMULATED]
    chosen = {
        case.full_name: _turn([run for run in real if run.case == case.full_name], number)
        for number, case in enumerate(cases)
    }
    return [
        run
        for run in runs
        if run.case not in slow
        and (run.backend == SIMULATED or (run.stacks, run.family_name) == chosen[run.case])
    ]


def _turn(runs: Sequence[Run], number: int) -> tuple[str, str] | None:
    """The pair and family whose turn it is: every pair comes with every family."""
    if not runs:
        return None
    pairs = list(dict.fromkeys(run.stacks for run in runs))
    families = list(dict.fromkeys(run.family_name for run in runs))
    return pairs[number % len(pairs)], families[(number + number // len(pairs)) % len(families)]


def _name_problems(cases: Sequence[Case], axes: Axes) -> list[str]:
    """Patterns that name nothing, whatever the axes."""
    patterns = (*axes.select, *axes.excluded)
    names_repetition = any("repetition-" in pattern for pattern in patterns)
    everywhere = replace(
        axes,
        families=ADDRESSINGS,
        stacks=STACK_PAIRS,
        backends=BACKENDS,
        repeat=max(axes.repeat, 1) if names_repetition else 1,
        tags=(),
    )
    everything = _runs(cases, everywhere, seed=0) if patterns else []
    names = _names(cases)
    problems = [
        f"{prefix}{pattern!r}: no such case, group or run; {hint(pattern, names)}"
        for prefix, patterns in (("", axes.select), ("--except ", axes.excluded))
        for pattern in patterns
        if not any(_is_selected(run, cases, (pattern,)) for run in everything)
    ]
    groups = list(dict.fromkeys(group for case in cases for group in case.groups))
    problems += [f"--tag {tag!r}: {hint(tag, groups)}" for tag in axes.tags if tag not in groups]
    return problems


def _names(cases: Iterable[Case]) -> list[str]:
    """All that SELECT may name, short forms first."""
    names: dict[str, None] = {}
    for case in cases:
        names.update(dict.fromkeys((*case.groups, case.name, case.full_name)))
    return list(names)


def _is_selected(run: Run, cases: Sequence[Case], patterns: Sequence[str]) -> bool:
    if patterns == ("*",):
        return True
    case = next(case for case in cases if case.full_name == run.case)
    any_repetition = replace(run, repetition=1).identifier
    return _is_named(case, patterns) or any(
        _matches(pattern, name) for pattern in patterns for name in (run.identifier, any_repetition)
    )


def _matches(pattern: str, name: str) -> bool:
    """A glob in which brackets mean themselves, for they are part of the names."""
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, name) is not None
