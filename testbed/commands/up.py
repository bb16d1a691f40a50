"""``testbed up``: build a lab that stays until ``testbed down``."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from testbed.errors import UsageError

if TYPE_CHECKING:
    from testbed.backend.link_control import LinkState
    from testbed.topology.model import Topology


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_topology_arguments(parser)
    parser.add_argument("--name", metavar="LAB", help="name of the lab (default: the topology's)")
    parser.add_argument(
        "--impairments",
        choices=("auto", "emulator", "netem"),
        help="what impairs the links (default: what the topology says)",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="randomness of all userspace stacks and links")


def run(arguments: argparse.Namespace) -> int:
    from testbed.backend import ownership
    from testbed.backend.namespaces import NamespaceBackend
    from testbed.backend.privileges import ensure_privileges
    from testbed.topology import Realisation

    topology = load(arguments)
    if arguments.impairments is not None:
        topology = replace(topology, impairments=Realisation(arguments.impairments))
    lab_name = arguments.name if arguments.name is not None else topology.name
    ownership.check_lab_name(lab_name)
    ensure_privileges()
    started = time.perf_counter()
    try:
        lab = NamespaceBackend(persistent=True).up(topology, lab_name, seed=arguments.seed)
        duration_ms = 1000 * (time.perf_counter() - started)
        lab.close()
        if not arguments.quiet:
            print(f"lab '{lab_name}' is up: {len(topology.nodes)} nodes in {duration_ms:.0f} ms")
            for node in topology.nodes:
                print(f"  {node.name:<16} {node.stack or node.kind:<10} {lab.namespace_path(node.name).name}")
            for line in impaired_lines(lab.links.states()):
                print(f"  {line}")
            if topology.events:
                print(f"  {len(topology.events)} events wait for 'testbed events run {lab_name}'")
    except KeyboardInterrupt:
        # Too late for the backend to undo it, too early for the user to know that it is up.
        ownership.undo_own_labs()
        raise
    return 0


def impaired_lines(states: Sequence[LinkState]) -> Iterator[str]:
    """What happens to packets where anything does, and what does it."""
    from testbed.topology.impairments import impairment_text

    for state in states:
        for direction in (state.forward, state.backward):
            if direction.realised_by:
                text = impairment_text(direction.impairment) or "not impaired"
                yield f"{direction.sender} -> {direction.receiver}: {text} ({direction.realised_by})"


def add_topology_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every command that reads a topology."""
    parser.add_argument("topology", metavar="TOPOLOGY", help="a topology file, or the name of a shipped one")
    parser.add_argument(
        "--set",
        dest="variables",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a variable of the topology's template; may be repeated",
    )


def load(arguments: argparse.Namespace) -> Topology:
    """The topology that the options name. Raises UsageError or TopologyError."""
    from testbed.topology import load_topology

    return load_topology(arguments.topology, parse_variables(arguments.variables))


def parse_variables(assignments: Sequence[str]) -> Mapping[str, str]:
    """``["hosts=4"]`` → ``{"hosts": "4"}``. Raises UsageError."""
    wrong = [text for text in assignments if not re.fullmatch(r"[A-Za-z_]\w*=.*", text, re.DOTALL)]
    if wrong:
        raise UsageError("\n".join(f"--set {text}: expected NAME=VALUE" for text in wrong))
    pairs = [text.partition("=") for text in assignments]
    return {name: value for name, _equals, value in pairs}
