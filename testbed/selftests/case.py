"""Selftest cases: what the decorator says about them, and the registry that finds them.

A case is a function of one :class:`~testbed.selftests.lab_view.CaseLab`. Its name is the function's with
hyphens; its first group leads its full name: ``join/signal-address``. Its docstring says what it shows.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.selftests.lab_view import CaseLab

CaseFunction = Callable[["CaseLab"], None]

STACK_PAIRS = ("userspace-userspace", "userspace-kernel", "kernel-userspace", "kernel-kernel")
"""Every combination of client and server, client first."""

USUAL_FAMILIES = ("4", "6", "4-mapped")
"""What a case runs with unless it says otherwise: ``mixed`` suits joins that follow an announcement."""

SLOW = "slow"
"""The group of cases that the quick selection leaves out."""

NAMESPACES, SIMULATED = BACKENDS = ("namespaces", "simulated")
"""Labs of network namespaces in real time, or of userspace stacks in virtual time."""


@dataclass(frozen=True, slots=True)
class Case:
    """One case, before it is multiplied by families and stacks."""

    name: str
    """``signal-address``."""
    groups: tuple[str, ...]
    topology: str
    """Name of a bundled topology."""
    function: CaseFunction
    description: str
    variables: Mapping[str, str] = field(default_factory=dict)
    """What the topology's template is filled in with."""
    stacks: tuple[str, ...] = STACK_PAIRS
    families: tuple[str, ...] = USUAL_FAMILIES
    is_timing_sensitive: bool = False
    """It judges durations: nothing else runs beside it, except in virtual time."""
    waits_mostly: bool = False
    """For timers of seconds, while its hosts have nothing to do: it takes no other run's place."""

    @property
    def full_name(self) -> str:
        return f"{self.groups[0]}/{self.name}"


_registry: dict[str, Case] = {}


def case(
    *,
    topology: str,
    groups: Sequence[str],
    stacks: Sequence[str] = STACK_PAIRS,
    variables: Mapping[str, str] | None = None,
    families: Sequence[str] = USUAL_FAMILIES,
    is_timing_sensitive: bool = False,
    waits_mostly: bool = False,
) -> Callable[[CaseFunction], CaseFunction]:
    """Register a function as a selftest case.

    Raises ValueError at import for a case without a group or docstring, an unknown stack pair, or a full name
    that is taken: two results of one name could not be told apart.
    """

    def register(function: CaseFunction) -> CaseFunction:
        # callables in general have no name: those that decorate a case are functions
        name = getattr(function, "__name__", "").replace("_", "-")
        description = inspect.getdoc(function)
        unknown = sorted(set(stacks) - set(STACK_PAIRS))
        if not groups or not description or unknown:
            raise ValueError(f"case {name!r}: needs a group, a docstring and known stacks ({unknown})")
        found = Case(
            name,
            tuple(groups),
            topology,
            function,
            description,
            dict(variables or {}),
            tuple(stacks),
            tuple(families),
            is_timing_sensitive,
            waits_mostly,
        )
        if found.full_name in _registry:
            raise ValueError(f"two cases are named {found.full_name!r}")
        _registry[found.full_name] = found
        return function

    return register


@cache
def all_cases() -> tuple[Case, ...]:
    """Every case of :mod:`testbed.selftests.cases`, in the order of their files and lines."""
    package = importlib.import_module("testbed.selftests.cases")
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda found: found.name):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return tuple(_registry.values())


def find_case(full_name: str) -> Case:
    """Raises KeyError for an unknown name."""
    all_cases()
    return _registry[full_name]
