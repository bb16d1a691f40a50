"""``testbed soak``: two bundled stacks over bad networks, thousands of times, in virtual time."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

EPILOG = """\
Each seed determines everything: paths, loss, reordering, duplication, corruption, delay spikes, paths that
die, addresses that come and go, settings, and what the applications do. Whatever happens: what arrives is
what was sent, everything ends, and nothing is left.

exit codes: 0 all passed, 1 a seed failed, 2 usage, 130 interrupted.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--runs", type=int, default=1000, metavar="N", help="how many seeds (default: 1000)")
    parser.add_argument("--seed", type=int, metavar="S", help="the first seed (default: a random one)")
    parser.add_argument("--jobs", type=int, metavar="J", help="processes (default: one a processor)")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one seed and print its scenario")
    parser.add_argument("--trace", action="store_true", help="with --replay: print every packet")
    parser.add_argument(
        "--pcap", type=Path, metavar="FILE", help="with --replay: write the packets as pcapng"
    )


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit code; raises TestbedError."""
    # These take longer to import than ``--help`` may take.
    from testbed.errors import UsageError
    from testbed.soak.session import SoakOptions, replay, run_session

    if arguments.replay is not None:
        return replay(arguments.replay, sys.stdout, trace=arguments.trace, pcap=arguments.pcap)
    if arguments.trace or arguments.pcap:
        raise UsageError("--trace and --pcap show one seed: say which with --replay SEED")
    options = SoakOptions(
        runs=arguments.runs,
        first_seed=arguments.seed,
        jobs=(os.cpu_count() or 1) if arguments.jobs is None else arguments.jobs,
    )
    return run_session(options, sys.stdout, is_terminal=sys.stdout.isatty())
