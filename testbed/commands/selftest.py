"""``testbed selftest``: play the matrix of cases, IP families and stack pairs, and judge it."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from testbed.commands.selftest_options import add_axes, axes_of

NAME = "selftest"
HELP = "run the selftest matrix"

EPILOG = """\
SELECT is a group (join), a case (join/signal-address, or signal-address alone) or a run
(join/signal-address[6,userspace-kernel]); * and ? stand for any text and any character.

exit codes: 0 all passed (skips allowed), 1 a failure, 2 usage, 4 all skipped,
5 this machine allows no labs, 130 interrupted.
"""
DEFAULT_TIMEOUT_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_axes(parser)
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="labs at once (default: two for each processor); two that mostly wait may go beside",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="repeat a session that printed this seed")
    parser.add_argument("--max-fail", type=int, metavar="N", help="begin no more runs after N failures")
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help=f"watchdog of each run (default: {DEFAULT_TIMEOUT_S:g})",
    )
    parser.add_argument("--list", action="store_true", help="print the chosen runs and play none")
    parser.add_argument(
        "--coverage",
        action="store_true",
        help="print which of the kernel's MPTCP sub-tests have a counterpart here, and play none",
    )
    parser.add_argument("--tap", action="store_true", help="write KTAP to standard output")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write a JUnit XML report")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a JSON report with all counters")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one HTML page, with plots")
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="write one JSON line for each run, for testbed report and testbed replay",
    )
    parser.add_argument(
        "--all-counters", action="store_true", help="record every counter, not only those that moved"
    )
    parser.add_argument(
        "--pcap",
        "--capture",
        dest="capture",
        type=Path,
        metavar="DIR",
        help="write a packet capture of every link (pcapng), and the keys of all connections",
    )
    parser.add_argument(
        "--bundles",
        type=Path,
        metavar="DIR",
        help="where a folder for each failed run is made (default: a temporary one of this session)",
    )


def default_bundles() -> Path:
    """Nothing is made there before a run fails."""
    return Path(tempfile.gettempdir()) / f"mptcp-testbed-{os.getuid()}-{os.getpid()}"


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit code; raises TestbedError."""
    # These take longer to import than ``--help`` may take.
    if arguments.coverage:
        from testbed.selftests.kernel_suite import coverage_table, kernel_tests

        print(coverage_table(kernel_tests()), end="")
        return 0
    from testbed.selftests.case import SIMULATED
    from testbed.selftests.session import SessionOptions, plan, run_session

    axes = axes_of(arguments)
    options = SessionOptions(
        axes=axes,
        # Most of the time a run waits.
        jobs=2 * (os.cpu_count() or 1) if arguments.jobs is None else arguments.jobs,
        timeout_s=arguments.timeout,
        seed=arguments.seed,
        tap=arguments.tap,
        junit=arguments.junit,
        json=arguments.json,
        html=arguments.html,
        record=arguments.record,
        all_counters=arguments.all_counters,
        maximum_failures=1 if arguments.until_fail else arguments.max_fail,
        capture=arguments.capture,
        bundles=arguments.bundles or default_bundles(),
        verbosity=arguments.verbose - arguments.quiet,
        command_line=tuple(sys.argv[1:]),
    )
    if arguments.list:
        for chosen in plan(options)[1]:
            print(chosen.identifier)
        return 0
    from testbed.backend.privileges import ensure_privileges
    from testbed.selftests.labs import remove_lab

    if axes.backends != (SIMULATED,):
        ensure_privileges()
    return run_session(options, sys.stdout, sys.stderr, remove_lab)
