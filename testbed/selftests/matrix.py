"""The matrix: which cases, times which IP families, times which pairs of stacks."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from testbed.errors import UsageError
from testbed.selftests.case import BACKENDS, FAMILIES, NAMESPACES, SIMULATED, STACK_PAIRS, Case
from testbed.selftests.results import Run, run_identifier

SIMULATED_PAIR = "userspace-userspace"
"""The kernel's stack knows no virtual time."""


@dataclass(frozen=True, slots=True)
class Axes:
    """What the user asked for, before it is checked."""

    select: tuple[str, ...] = ()
    """Names of cases, groups or runs, with ``*`` and ``?`` as wildcards; empty for all."""
    families: tuple[str, ...] = ("4", "6")
    stacks: tuple[str, ...] = STACK_PAIRS
    repeat: int = 1
    backend: str = NAMESPACES


def expand(cases: Sequence[Case], axes: Axes, seed: int) -> tuple[Run, ...]:
    """Every run that was asked for, in a stable order.

    Raises UsageError with all problems at once: unknown names, families and stacks, a selection without runs.
    """
    problems = _problems(cases, axes)
    if problems:
        raise UsageError("\n".join(problems))
    runs = _runs(cases, axes, seed)
    chosen = [run for run in runs if _is_selected(run, cases, axes.select)]
    if not chosen:
        raise UsageError("nothing is selected: no case runs with these families and stacks")
    return tuple(chosen)


def derived_seed(session_seed: int, identifier: str) -> int:
    """The seed of one run: it depends on nothing but the session's seed and the run's identifier."""
    digest = hashlib.sha256(f"{session_seed}/{identifier}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


def split_list(text: str) -> tuple[str, ...]:
    """``"4,6"`` → ``("4", "6")``; blanks and empty entries are dropped."""
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())


def _runs(cases: Iterable[Case], axes: Axes, seed: int) -> list[Run]:
    return [
        _run(case, int(family), pair, repetition, seed, axes.backend)
        for repetition in range(1, axes.repeat + 1)
        for case in cases
        for pair in dict.fromkeys(axes.stacks)
        if pair in case.stacks and (axes.backend != SIMULATED or pair == SIMULATED_PAIR)
        for family in dict.fromkeys(axes.families)
    ]


def _run(case: Case, family: int, pair: str, repetition: int, seed: int, backend: str) -> Run:
    client_stack, server_stack = pair.split("-")
    run = Run(case.full_name, family, client_stack, server_stack, 0, repetition, backend)
    return replace(run, seed=derived_seed(seed, run.identifier))


def _problems(cases: Sequence[Case], axes: Axes) -> list[str]:
    problems = []
    families = [str(family) for family in FAMILIES]
    problems += [
        f"--family {family!r}: {_hint(family, families)}"
        for family in axes.families
        if family not in families
    ]
    problems += [
        f"--stacks {pair!r}: {_hint(pair, STACK_PAIRS)}" for pair in axes.stacks if pair not in STACK_PAIRS
    ]
    for name, values in (("--family", axes.families), ("--stacks", axes.stacks)):
        if not values:
            problems.append(f"{name}: at least one is needed")
    if axes.backend not in BACKENDS:
        problems.append(f"--backend {axes.backend!r}: {_hint(axes.backend, BACKENDS)}")
    if axes.repeat < 1:
        problems.append(f"--repeat {axes.repeat}: must be at least 1")
    everything = _runs(cases, Axes(repeat=max(axes.repeat, 1), backend=axes.backend), seed=0)
    for pattern in axes.select:
        if not any(_is_selected(run, cases, (pattern,)) for run in everything):
            problems.append(f"{pattern!r}: no such case, group or run; {_hint(pattern, _names(cases))}")
    return problems


def _names(cases: Iterable[Case]) -> list[str]:
    """All that SELECT may name, short forms first."""
    names: dict[str, None] = {}
    for case in cases:
        names.update(dict.fromkeys((*case.groups, case.name, case.full_name)))
    return list(names)


def _hint(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word.partition("[")[0], known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(name) for name in close) + "?"
    return "there are " + ", ".join(known)


def _is_selected(run: Run, cases: Sequence[Case], patterns: Sequence[str]) -> bool:
    if not patterns:
        return True
    case = next(case for case in cases if case.full_name == run.case)
    any_repetition = run_identifier(run.case, run.family, run.stacks, 1, run.axes)
    names = (run.identifier, any_repetition, case.full_name, case.name, *case.groups)
    return any(_matches(pattern, name) for pattern in patterns for name in names)


def _matches(pattern: str, name: str) -> bool:
    """A glob in which brackets mean themselves, for they are part of the names."""
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, name) is not None
