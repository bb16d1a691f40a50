"""``testbed shell``: the user's shell on a node."""

from __future__ import annotations

import argparse
import os
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lab", metavar="LAB")
    parser.add_argument("node", metavar="NODE")


def run(arguments: argparse.Namespace) -> int:
    from testbed.commands.exec import become

    if sys.stdin.isatty() and not arguments.quiet:
        print(f"shell on {arguments.node} of lab '{arguments.lab}'; 'exit' leaves it", file=sys.stderr)
    return become(arguments.lab, arguments.node, [os.environ.get("SHELL") or "/bin/sh"])
