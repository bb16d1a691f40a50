"""``testbed bench``: what labs and stacks cost on this machine."""

from __future__ import annotations

import argparse
import importlib

_BENCHMARKS = {
    "aggregation": "goodput over two paths of many rates and delays, next to the kernel's",
    "emulator": "packets a second through one link emulator, next to a plain veth",
    "goodput": "one transfer over an unshaped link for each pair of stacks",
    "recovery": "from a path's death until delivery goes on, next to the kernel's",
    "stack": "segments, memory and connections of the bundled stack on one core, with a profile",
    "topology": "up and down of many hosts on a switch, next to Mininet's where it is installed",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    benchmarks = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK", required=True)
    for name, help_line in _BENCHMARKS.items():
        benchmark = benchmarks.add_parser(name, help=help_line)
        module = importlib.import_module(f"testbed.bench.{name}")
        module.add_arguments(benchmark)
        benchmark.set_defaults(run_benchmark=module.run)


def run(arguments: argparse.Namespace) -> int:
    return int(arguments.run_benchmark(arguments))
