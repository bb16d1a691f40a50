"""The axes of the matrix: what each is called, which values it knows, and what the user asked for."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from mptcp_stack.settings import CONGESTION_CONTROLS, SCHEDULERS
from testbed.selftests.case import BACKENDS, NAMESPACES, STACK_PAIRS
from testbed.selftests.presets import NO_IMPAIRMENT, PRESETS
from testbed.selftests.results import DEFAULT

ADDRESSINGS = ("4", "6", "4-mapped", "mixed")
"""IPv4; IPv6; IPv4 on sockets of IPv6, as ::ffff:10.0.0.1; IPv6 at first, with endpoints of IPv4."""
DEFAULT_FAMILIES = ("4", "6")
FULL, QUICK = SELECTIONS = ("full", "quick")
CONGESTION_NAMES = (DEFAULT, *CONGESTION_CONTROLS)
CHECKSUMS = ("off", "on")
MAXIMUM_REPETITIONS = 100_000
MAXIMUM_SHOWN = 16
"""Of the names that something could have been."""


@dataclass(frozen=True, slots=True)
class Axes:
    """What the user asked for, before it is checked."""

    select: tuple[str, ...] = ()
    """Names of cases, groups or runs, with ``*`` and ``?`` as wildcards; empty for all."""
    families: tuple[str, ...] = DEFAULT_FAMILIES
    stacks: tuple[str, ...] = STACK_PAIRS
    repeat: int = 1
    backends: tuple[str, ...] = (NAMESPACES,)
    schedulers: tuple[str, ...] = (DEFAULT,)
    congestion_controls: tuple[str, ...] = (DEFAULT,)
    checksums: tuple[str, ...] = ("off",)
    impairments: tuple[str, ...] = (NO_IMPAIRMENT,)
    excluded: tuple[str, ...] = ()
    """As ``select``; what it names is left out."""
    tags: tuple[str, ...] = ()
    """Only cases that belong to one of these groups; empty for all."""
    selection: str = FULL


def axis_problems(axes: Axes) -> list[str]:
    """What no axis knows, each with what it may have meant."""
    problems = []
    for option, values, known in (
        ("--family", axes.families, ADDRESSINGS),
        ("--stacks", axes.stacks, STACK_PAIRS),
        ("--backend", axes.backends, BACKENDS),
        ("--scheduler", axes.schedulers, SCHEDULERS),
        ("--congestion", axes.congestion_controls, CONGESTION_NAMES),
        ("--checksum", axes.checksums, CHECKSUMS),
        ("--impair", axes.impairments, tuple(PRESETS)),
        ("--select", (axes.selection,), SELECTIONS),
    ):
        problems += [f"{option} {value!r}: {hint(value, known)}" for value in values if value not in known]
        if not values:
            problems.append(f"{option}: at least one is needed")
    if not 1 <= axes.repeat <= MAXIMUM_REPETITIONS:
        problems.append(f"--repeat {axes.repeat}: must be from 1 to {MAXIMUM_REPETITIONS}")
    return problems


def hint(word: str, known: Sequence[str]) -> str:
    """What ``word`` was probably meant to be, else everything it could have been."""
    close = difflib.get_close_matches(word.partition("[")[0], known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(name) for name in close) + "?"
    shown = ", ".join(known[:MAXIMUM_SHOWN])
    return f"there are {shown}" + (", …" if len(known) > MAXIMUM_SHOWN else "")


def split_list(text: str) -> tuple[str, ...]:
    """``"4,6"`` → ``("4", "6")``; blanks and empty entries are dropped."""
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())
