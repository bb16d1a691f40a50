"""``testbed clean``: remove what killed runs left behind, and nothing else."""

from __future__ import annotations

import argparse
import sys

from testbed.commands.down import report
from testbed.errors import TestbedError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Removed are labs whose owner was killed, whose 'up' never came to its end, or which lost a process."
        " Labs that are up are left alone, and so is everything that no journal of ours names."
    )
    parser.add_argument("--all", action="store_true", help="all your labs, also those that are up")
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed, only")


def run(arguments: argparse.Namespace) -> int:
    from testbed.backend import ownership

    failures = 0
    removed = 0
    for lab in ownership.read_labs():
        fault = lab.fault()
        if fault is None and not arguments.all:
            continue
        try:
            undone = ownership.undo(lab, dry_run=arguments.dry_run)
        except TestbedError as error:
            print(f"testbed: {error}", file=sys.stderr)
            failures += 1
            continue
        removed += bool(undone)
        report(undone, dry_run=arguments.dry_run, verbose=bool(arguments.verbose))
        if undone and not arguments.dry_run and not arguments.quiet:
            print(f"lab '{lab.name}' removed ({fault or 'it was up'})")
    fragments = ownership.clean_fragments(dry_run=arguments.dry_run)
    report(fragments, dry_run=arguments.dry_run, verbose=bool(arguments.verbose))
    if not removed and not fragments and not failures and not arguments.quiet:
        print("nothing to clean")
    return 1 if failures else 0
