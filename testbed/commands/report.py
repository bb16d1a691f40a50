"""``testbed report``: render run records, or compare two sets of them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

NAME = "report"
HELP = "render the records of runs, or compare two"

EPILOG = """\
FILE is what testbed selftest --record wrote. Of two files, the second is compared with the first: outcomes,
and durations and goodput where they differ beyond noise. One file, and several with --merge, are rendered as
they are.

exit codes: 0 nothing failed, or of two files nothing got worse or vanished; 1 otherwise; 2 unreadable files.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="records of runs")
    parser.add_argument("--merge", action="store_true", help="several files are one set of runs")
    parser.add_argument("--tap", action="store_true", help="write KTAP to standard output")
    parser.add_argument("--junit", type=Path, metavar="OUT", help="write a JUnit XML report")
    parser.add_argument(
        "--html", type=Path, metavar="OUT", help="write one HTML page that needs no other file"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write a JSON report")


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit code; raises TestbedError."""
    from testbed.report.rendering import Outputs, render

    outputs = Outputs(
        tap=arguments.tap,
        junit=arguments.junit,
        json=arguments.json,
        html=arguments.html,
        verbosity=arguments.verbose - arguments.quiet,
    )
    return render(arguments.files, outputs, sys.stdout, is_merged=arguments.merge)
