"""``testbed plan``: a topology with everything derived, before anything is built."""

from __future__ import annotations

import argparse

from testbed.commands.up import add_topology_arguments, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_topology_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON with the model's field names")


def run(arguments: argparse.Namespace) -> int:
    from testbed.topology import describe, to_json

    topology = load(arguments)
    print((to_json(topology) if arguments.json else describe(topology)).rstrip("\n"))
    return 0
