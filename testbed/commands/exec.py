"""``testbed exec``: run a program on a node, and end as it ends."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

_NOT_FOUND = 127
_NOT_EXECUTABLE = 126


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The exit code is the program's; 127 when there is no such program, 126 when it cannot be run, and"
        " 128 plus the signal's number when a signal ended it. Options of testbed itself come before LAB."
    )
    parser.add_argument("lab", metavar="LAB")
    parser.add_argument("node", metavar="NODE")
    parser.add_argument("program", metavar="PROGRAM", help="what to run there")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="and its arguments")


def run(arguments: argparse.Namespace) -> int:
    return become(arguments.lab, arguments.node, [arguments.program, *arguments.arguments])


def become(lab_name: str, node: str, argv: Sequence[str]) -> int:
    """Replace this process by a program on a node. Returns only if that fails.

    Raises LabError or UsageError when there is no such lab or node.
    """
    from testbed.backend import ownership
    from testbed.backend.privileges import enter_lab, enter_node

    lab = ownership.read_lab(lab_name)
    ownership.check_usable(lab)
    namespace = ownership.node_namespace(lab, node)
    enter_lab(lab)
    enter_node(namespace)
    environment = os.environ | lab.environment | {"MPTCP_TESTBED_NODE": node}
    sys.stdout.flush()
    return _execute(argv, environment)


def _execute(argv: Sequence[str], environment: dict[str, str]) -> int:
    try:
        _replace_process(argv, environment)
    except FileNotFoundError:
        print(f"testbed: {argv[0]}: no such program", file=sys.stderr)
        return _NOT_FOUND
    except OSError as error:
        print(f"testbed: {argv[0]}: {error.strerror}", file=sys.stderr)
        return _NOT_EXECUTABLE


def _replace_process(argv: Sequence[str], environment: dict[str, str]) -> NoReturn:
    os.execvpe(argv[0], list(argv), environment)
