"""Our own packet scripts: all of them on the bundled stack, a few on the kernel where it has MPTCP.

``make test`` plays all on the kernel as well, in a step after these tests (``scripts/check``): what runs in
real time would be late beside them, and they beside it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from testbed.packetdrill.playing import PlayOptions, PlayResult
from testbed.packetdrill.runner import WorkerCounts, play_all
from testbed.packetdrill.stack_under_test import IpVersion
from testbed.packetdrill.suite import Cell, find_scripts, plan
from testbed.selftests.environment import kernel_mptcp_missing
from testbed.selftests.results import Outcome

FOLDER = Path(__file__).parents[1] / "packets"
FEWEST_SCRIPTS = 80
KERNEL_SCRIPTS = (
    "tcp/handshake-data-close",
    "mptcp/handshake-data-close",
    "mptcp/connection/passive-open-with-mp-capable",
    "mptcp/connection/version-zero-offered",
    "mptcp/connection/plain-tcp-client",
)
RFC_SECTION = re.compile(r"//.*\bRFC \d{3,5}\b.*(§\s?\d|[Ss]ection \d|[Aa]ppendix [A-Z])")

Played = tuple[Cell, PlayResult]


def play_suite(paths: list[Path], stack: str) -> list[Played]:
    """Each script with every IP version that it is for, on one stack."""
    cells = plan(find_scripts(paths), [stack], list(IpVersion))
    jobs = [(cell, PlayOptions()) for cell in cells]
    return [(cells[number], result) for number, result in play_all(jobs, WorkerCounts.of_this_machine())]


def complaints(played: list[Played]) -> str:
    """The failures by name, each with its diff."""
    return "\n".join(
        sorted(
            f"{Path(cell.path).relative_to(FOLDER)}[{cell.version.value},{cell.stack}]"
            f" {result.outcome.value}\n{result.message}\n"
            for cell, result in played
            if result.outcome in (Outcome.FAIL, Outcome.ERROR)
        )
    )


def passed(played: list[Played]) -> set[str]:
    return {cell.path for cell, result in played if result.outcome is Outcome.PASS}


def test_all_pass_on_the_bundled_stack() -> None:
    played = play_suite([FOLDER], "userspace")
    failures = complaints(played)
    assert not failures, f"packet scripts fail:\n{failures}"
    assert passed(played)


@pytest.mark.root
@pytest.mark.timeout(60)
@pytest.mark.kernel
@pytest.mark.skipif(kernel_mptcp_missing() is not None, reason=f"{kernel_mptcp_missing()}")
def test_the_kernel_passes_scripts_of_every_kind() -> None:
    paths = [FOLDER / f"{name}.pkt" for name in KERNEL_SCRIPTS]
    played = play_suite(paths, "kernel")
    failures = complaints(played)
    assert not failures, f"packet scripts fail:\n{failures}"
    if not passed(played):
        pytest.skip("; ".join(sorted({result.message for _, result in played})))


def test_each_script_begins_with_the_section_that_it_is_about() -> None:
    without = [
        str(path.relative_to(FOLDER))
        for path in find_scripts([FOLDER])
        if not RFC_SECTION.match(path.read_text(encoding="utf-8").partition("\n")[0])
    ]
    assert not without, f"the first comment names no section of an RFC: {', '.join(without)}"


def test_the_suite_is_large_enough() -> None:
    assert len(find_scripts([FOLDER])) >= FEWEST_SCRIPTS
