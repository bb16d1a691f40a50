"""``testbed check``: every problem of a topology file, and the exit code 2 when there is one."""

from __future__ import annotations

import argparse
import sys

from testbed.commands.up import add_topology_arguments, parse_variables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_topology_arguments(parser)
    parser.add_argument("more", nargs="*", metavar="TOPOLOGY", help="more of them")


def run(arguments: argparse.Namespace) -> int:
    from testbed.errors import ExitCode, TopologyError
    from testbed.topology import load_topology

    variables = parse_variables(arguments.variables)
    code = ExitCode.PASS
    for name in (arguments.topology, *arguments.more):
        try:
            topology = load_topology(name, variables)
        except TopologyError as error:
            print(error, file=sys.stderr)
            code = ExitCode.USAGE
        else:
            if not arguments.quiet:
                print(f"{name}: {len(topology.nodes)} nodes, {len(topology.links)} links, no problems")
    return code
