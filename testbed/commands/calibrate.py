"""``testbed calibrate``: what links really do, next to what was asked of them."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from testbed.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from testbed.calibration.measure import Calibration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "A mean delay is met within 1 % or 0.3 ms, a rate within 1 %, shares within the 99 % interval of a"
        " binomial distribution. Exit code 1 when anything was missed."
    )
    parser.add_argument(
        "topology", metavar="TOPOLOGY", nargs="?", help="build it, measure every link, undo it"
    )
    parser.add_argument(
        "--set", dest="variables", action="append", default=[], metavar="NAME=VALUE", help="template variable"
    )
    parser.add_argument("--lab", metavar="LAB", help="measure the links of a lab that is up instead")
    parser.add_argument(
        "--grid", action="store_true", help="measure a grid of impairments on one link instead"
    )
    parser.add_argument("--markdown", action="store_true", help="with --grid: the table of docs/fidelity.md")
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="FILE",
        help="with --markdown: a column for what '--grid --json' printed elsewhere (repeatable)",
    )
    parser.add_argument(
        "--impairments", choices=("auto", "emulator", "netem"), default="auto", help="what impairs the links"
    )
    parser.add_argument("--packets", type=int, default=2000, metavar="N", help="for each direction (2000)")
    parser.add_argument("--json", action="store_true", help="print a JSON array")


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    from testbed.calibration.table import markdown, read_run, run_of, to_object

    beside = [read_run(file) for file in arguments.beside]
    results = []
    shows_progress = not arguments.json and not arguments.markdown
    for result in _results(arguments):
        results.append(result)
        if shows_progress:
            print("\n".join(lines(result)), flush=True)
    missed = sum(not result.is_met for result in results)
    if arguments.json:
        print(json.dumps([to_object(result) for result in results], indent=2))
    elif arguments.markdown:
        print(markdown([run_of(results), *beside]))
    else:
        print(f"{len(results) - missed} of {len(results)} directions do what was asked of them")
    return ExitCode.FAIL if missed else ExitCode.PASS


def _check(arguments: argparse.Namespace) -> None:
    """Raises UsageError for options that make no sense together."""
    chosen = [arguments.topology is not None, arguments.lab is not None, arguments.grid]
    if sum(chosen) != 1:
        raise UsageError("calibrate what? A TOPOLOGY, --lab LAB, or --grid: one of them")
    if not 10 <= arguments.packets <= 1_000_000:
        raise UsageError(f"--packets: {arguments.packets} is not between 10 and 1000000")
    if arguments.beside and not (arguments.grid and arguments.markdown):
        raise UsageError("--beside: another column of the table that '--grid --markdown' makes")
    if arguments.markdown and not arguments.grid:
        raise UsageError("--markdown: the table of '--grid'; there is '--json' for others")
    if arguments.variables and arguments.topology is None:
        raise UsageError("--set: a variable of a TOPOLOGY, and none is given")
    if arguments.lab is not None and arguments.impairments != "auto":
        raise UsageError("--impairments: a lab that is up is measured as it was built")


def _results(arguments: argparse.Namespace) -> Iterable[Calibration]:
    if arguments.lab is not None:
        return _of_lab(arguments.lab, arguments.packets)
    from testbed.backend.privileges import ensure_privileges

    ensure_privileges()
    if arguments.grid:
        from testbed.calibration.grid import measure_grid
        from testbed.topology import Realisation

        return measure_grid(_lab_name(), Realisation(arguments.impairments), arguments.packets)
    return _of_topology(arguments)


def _of_lab(name: str, packets: int) -> Iterator[Calibration]:
    from testbed.calibration.measure import calibrate
    from testbed.commands.lab_access import open_lab_inside

    with open_lab_inside(name) as lab:
        yield from calibrate(lab, packets=packets)


def _of_topology(arguments: argparse.Namespace) -> Iterator[Calibration]:
    from contextlib import closing
    from dataclasses import replace

    from testbed.backend.namespaces import NamespaceBackend
    from testbed.calibration.measure import calibrate
    from testbed.commands.up import load
    from testbed.topology import Realisation

    topology = load(arguments)
    if arguments.impairments != "auto":
        topology = replace(topology, impairments=Realisation(arguments.impairments))
    with (
        closing(NamespaceBackend(with_agents=False)) as backend,
        backend.up(topology, _lab_name(), seed=1) as lab,
    ):
        yield from calibrate(lab, packets=arguments.packets)


def _lab_name() -> str:
    return f"calibrate-{os.getpid()}"


def lines(result: Calibration) -> Iterator[str]:
    """What people read about one direction."""
    from testbed.topology.impairments import impairment_text

    text = impairment_text(result.impairment) or "not impaired"
    by = f" ({result.realised_by})" if result.realised_by else ""
    yield f"{result.sender} -> {result.receiver}: {text}{by}"
    for each in result.comparisons:
        verdict = "met" if each.is_met else f"MISSED, allowed is {each.lowest:.3f} to {each.highest:.3f}"
        numbers = f"asked {each.asked:>9.3f}  achieved {each.achieved:>9.3f} {each.unit:<7}"
        yield f"  {each.quantity:<10} {numbers} {verdict}"
