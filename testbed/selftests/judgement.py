"""Judging what a run did: expectations on counters and data, collected so that a failure shows all of them.

A helper here never raises for what it finds: it records a :class:`~testbed.selftests.results.Check`. Numbers
follow the check functions of the kernel's ``mptcp_join.sh``, for both sides of the connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mptcp_stack.counters import ALL_NAMES
from testbed.selftests.results import Check, Outcome

NEWER_KERNEL_NAMES = frozenset(
    "MPTcpExt" + name
    for name in """
    MPJoinNoIdFound MPJoinSynAckNoMPJoin MPJoinAckNoMPJoin MPJoinAckNoCtx MPJoinNotEstablished MD5SigReset
    DssReset BacklogDrop RcvPruned OFOPruned
    """.split()
)
"""Counters that Linux gained after 6.18: cases may name them, older hosts skip the check."""

FALLBACK_NAMES = (
    "InfiniteMapTx",
    "DSSCorruptionFallback",
    "SimultConnectFallback",
    "MPCapableFallbackACK",
    "MPCapableFallbackSYNACK",
    "MPCapableDataFallback",
    "MD5SigFallback",
    "DssFallback",
)
"""Each counts connections that gave up MPTCP, for a reason of its own."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """A closed range of integers; ``None`` leaves that end open."""

    minimum: int | None
    maximum: int | None

    def holds_for(self, value: int) -> bool:
        if self.minimum is not None and value < self.minimum:
            return False
        return self.maximum is None or value <= self.maximum

    def __str__(self) -> str:
        if self.minimum == self.maximum:
            return str(self.minimum)
        if self.maximum is None:
            return f"at least {self.minimum}"
        if self.minimum is None:
            return f"at most {self.maximum}"
        return f"between {self.minimum} and {self.maximum}"


def exactly(value: int) -> Expectation:
    return Expectation(value, value)


def at_least(value: int) -> Expectation:
    return Expectation(value, None)


def at_most(value: int) -> Expectation:
    return Expectation(None, value)


def between(minimum: int, maximum: int) -> Expectation:
    if minimum > maximum:
        raise ValueError(f"an empty range: {minimum} to {maximum}")
    return Expectation(minimum, maximum)


def full_counter_name(name: str) -> str:
    """nstat's name for a counter; MPTCP's may be said without their prefix.

    Raises ValueError for a name that no known kernel has: a misspelt counter must not become a skipped check.
    """
    for candidate in (name, "MPTcpExt" + name):
        if candidate in ALL_NAMES or candidate in NEWER_KERNEL_NAMES:
            return candidate
    raise ValueError(f"no kernel has a counter named {name!r}")


class Verdict:
    """All checks of one run."""

    __slots__ = ("_checks",)

    def __init__(self) -> None:
        self._checks: list[Check] = []

    @property
    def checks(self) -> tuple[Check, ...]:
        return tuple(self._checks)

    @property
    def outcome(self) -> Outcome:
        """FAIL if one check failed, SKIP if none could be made, PASS otherwise."""
        outcomes = {check.outcome for check in self._checks}
        if Outcome.FAIL in outcomes:
            return Outcome.FAIL
        return Outcome.PASS if Outcome.PASS in outcomes else Outcome.SKIP

    def record(self, subject: str, *, expected: object, observed: object, holds: bool) -> None:
        outcome = Outcome.PASS if holds else Outcome.FAIL
        self._checks.append(Check(subject, str(expected), str(observed), outcome))

    def must_be_equal(self, subject: str, expected: object, observed: object) -> None:
        self.record(subject, expected=expected, observed=observed, holds=expected == observed)

    def must_be_within(self, subject: str, expected: Expectation, observed: int) -> None:
        self.record(subject, expected=expected, observed=observed, holds=expected.holds_for(observed))

    def fail(self, subject: str, expected: object, observed: object) -> None:
        self.record(subject, expected=expected, observed=observed, holds=False)

    def skip(self, subject: str, reason: str) -> None:
        self._checks.append(Check(subject, "", "", Outcome.SKIP, reason))


def judge_counters(
    verdict: Verdict, host: str, delta: Mapping[str, int], expected: Mapping[str, int | Expectation]
) -> None:
    """Check what a run added to the counters of one host.

    A plain number means exactly that number. A counter that this host's kernel does not have is skipped.
    """
    for name, wanted in expected.items():
        full_name = full_counter_name(name)
        expectation = exactly(wanted) if isinstance(wanted, int) else wanted
        if full_name in delta:
            verdict.must_be_within(f"{host} {name}", expectation, delta[full_name])
        else:
            verdict.skip(f"{host} {name}", "its kernel has no such counter")
