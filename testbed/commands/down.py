"""``testbed down``: take labs down."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from testbed.backend.ownership import Undone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("labs", nargs="+", metavar="LAB", help="the labs, as 'testbed list' names them")
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed, only")


def run(arguments: argparse.Namespace) -> int:
    from testbed.backend import ownership
    from testbed.errors import LabError

    labs, problems = [], []
    for name in dict.fromkeys(arguments.labs):
        try:
            labs.append(ownership.read_lab(name))
        except LabError as error:
            problems.append(str(error))
    if problems:
        if labs:
            kept = ", ".join(lab.name for lab in labs)
            problems.append(
                f"nothing was taken down: {kept} {'is' if len(labs) == 1 else 'are'} up as before"
            )
        raise LabError("\n".join(problems))
    for lab in labs:
        undone = ownership.undo(lab, dry_run=arguments.dry_run)
        report(undone, dry_run=arguments.dry_run, verbose=bool(arguments.verbose))
        if not arguments.dry_run and not arguments.quiet:
            print(f"lab '{lab.name}' is down")
    return 0


def report(undone: Iterable[Undone], *, dry_run: bool, verbose: bool) -> None:
    """What was removed, where anybody wants to know."""
    if dry_run or verbose:
        for item in undone:
            print(f"{'would remove' if dry_run else 'removed'} {item}")
