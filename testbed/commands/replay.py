"""``testbed replay``: play a recorded run again, with the same seed and the same axes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

NAME = "replay"
HELP = "play recorded runs again"

EPILOG = """\
RUN is a number from 1, counted as testbed report shows the runs, or a run's identifier; without --run every
run that failed is played again, or the only one that there is.
"""
DEFAULT_TIMEOUT_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", type=Path, metavar="RECORD", help="what testbed selftest --record wrote")
    parser.add_argument("--run", action="append", metavar="RUN", help="which; may be repeated")
    parser.add_argument("--jobs", type=int, metavar="N", help="labs at once (default: one)")
    parser.add_argument("--timeout", type=float, default=DEFAULT_TIMEOUT_S, metavar="SECONDS")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the records of the new runs")
    parser.add_argument("--pcap", type=Path, metavar="DIR", help="write a packet capture of every link")
    parser.add_argument("--tap", action="store_true", help="write KTAP to standard output")


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit code; raises TestbedError."""
    from testbed.report.records import read_records
    from testbed.selftests.axes import Axes
    from testbed.selftests.replay import chosen_runs
    from testbed.selftests.session import SessionOptions, needs_privileges, play_runs

    seed, runs = chosen_runs(read_records([arguments.file]), arguments.run)
    options = SessionOptions(
        axes=Axes(),
        jobs=arguments.jobs or 1,
        timeout_s=arguments.timeout,
        seed=seed,
        tap=arguments.tap,
        record=arguments.record,
        capture=arguments.pcap,
        verbosity=arguments.verbose - arguments.quiet,
        command_line=tuple(sys.argv[1:]),
    )
    from testbed.selftests.labs import remove_lab

    if needs_privileges(runs):
        from testbed.backend.privileges import ensure_privileges

        ensure_privileges()
    return play_runs(options, seed, runs, sys.stdout, sys.stderr, remove_lab)
