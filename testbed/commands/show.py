"""``testbed show``: a lab that is up: its nodes, and what its links do to packets."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lab", metavar="LAB", help="a lab, as 'testbed list' names it")


def run(arguments: argparse.Namespace) -> int:
    from testbed.commands.lab_access import open_lab_inside
    from testbed.commands.link import state_lines
    from testbed.topology.plan import describe_nodes

    with open_lab_inside(arguments.lab) as lab:
        print(describe_nodes(lab.topology))
        print("\nlinks")
        down = lab.links_down()
        for state in lab.links.states():
            for line in state_lines(state, down):
                print(f"  {line}")
    return 0
