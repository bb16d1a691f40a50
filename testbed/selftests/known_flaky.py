"""Cases that are known to fail now and then, with the reason: the list is empty, and a test keeps it so.

A failure of a case in it would be reported as a SKIP that says what failed. An entry needs a reason that
names what is being done about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from testbed.selftests.results import Outcome, RunResult

KNOWN_FLAKY: Mapping[str, str] = {}
"""Full name of a case → why it is flaky."""


def excused(result: RunResult, known: Mapping[str, str] = KNOWN_FLAKY) -> RunResult:
    """The result as it counts."""
    reason = known.get(result.run.case)
    if reason is None or result.outcome is not Outcome.FAIL:
        return result
    failures = "; ".join((*result.reason.splitlines(), *map(str, result.failed_checks())))
    return replace(result, outcome=Outcome.SKIP, reason=f"known to be flaky, {reason}; this time: {failures}")
