"""``testbed bench topology``: how long many hosts on one switch take to come up and go down.

The repetitions of the testbed and of Mininet alternate, so that both see the same machine. The kernel frees
namespaces in the background after both kinds of ``down``; the next repetition pays for it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.errors import UsageError

if TYPE_CHECKING:
    from testbed.topology.model import Topology

_MININET_SCRIPT = Path(__file__).with_name("mininet_switch.py")
_MININET_TIMEOUT_S = 600.0
_HIGHEST_NODES = 4000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nodes", type=int, default=100, metavar="N", help="hosts on the switch (default: 100)"
    )
    parser.add_argument(
        "--repetitions", type=int, default=3, metavar="N", help="how often each is measured (default: 3)"
    )
    parser.add_argument("--no-mininet", action="store_true", help="measure the testbed only")
    parser.add_argument("--no-agents", action="store_true", help="leave the measurement with agents out")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit code. Raises TestbedError."""
    if not 1 <= arguments.nodes <= _HIGHEST_NODES or arguments.repetitions < 1:
        raise UsageError(f"--nodes takes 1 to {_HIGHEST_NODES}, --repetitions at least 1")
    from testbed.backend.privileges import ensure_privileges

    interpreter = None if arguments.no_mininet else mininet_interpreter()
    ensure_privileges()
    contenders: dict[str, Callable[[], Sample]] = {
        "testbed": lambda: measure_testbed(arguments.nodes, with_agents=False)
    }
    if not arguments.no_agents:
        contenders["testbed with agents"] = lambda: measure_testbed(arguments.nodes, with_agents=True)
    if interpreter is not None:
        contenders["mininet"] = lambda: measure_mininet(interpreter, arguments.nodes)
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    for _ in range(arguments.repetitions):
        for name, measure in contenders.items():
            samples[name].append(measure())
    summaries = [summarise(name, group) for name, group in samples.items()]
    if arguments.json:
        print(json.dumps(_as_json(arguments.nodes, arguments.repetitions, summaries), indent=2))
    else:
        _print_table(arguments.nodes, arguments.repetitions, summaries)
        if interpreter is None and not arguments.no_mininet:
            print("Mininet is not installed (Debian package 'mininet'), so there is nothing to compare with")
    return 0


@dataclass(frozen=True, slots=True)
class Sample:
    up_s: float
    down_s: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians over the repetitions, in seconds."""

    name: str
    up_s: float
    down_s: float
    total_s: float


def summarise(name: str, samples: Sequence[Sample]) -> Summary:
    """``total_s`` is the median of the sums, not the sum of the medians."""
    return Summary(
        name,
        statistics.median(sample.up_s for sample in samples),
        statistics.median(sample.down_s for sample in samples),
        statistics.median(sample.up_s + sample.down_s for sample in samples),
    )


def measure_testbed(nodes: int, *, with_agents: bool) -> Sample:
    """One lab up and down again, a launcher's start-up included where agents are wanted."""
    from testbed.backend.namespaces import NamespaceBackend

    topology = hosts_on_a_switch(nodes)
    backend = NamespaceBackend(with_agents=with_agents)
    try:
        started = time.perf_counter()
        lab = backend.up(topology, f"bench-{os.getpid()}")
        is_up = time.perf_counter()
        lab.down()
        return Sample(is_up - started, time.perf_counter() - is_up)
    finally:
        backend.close()


def hosts_on_a_switch(nodes: int) -> Topology:
    """``h1`` … on ``s1``, with an IPv4 and an IPv6 address each."""
    from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

    from testbed.topology.model import Interface, Link, LinkEnd, Node, NodeKind, StackKind, Topology

    def mac(group: int, number: int) -> str:
        return f"02:00:00:{group:02x}:{number >> 8:02x}:{number & 0xFF:02x}"

    numbers = range(1, nodes + 1)
    hosts = [
        Node(
            f"h{number}",
            NodeKind.HOST,
            StackKind.TCP,
            (
                Interface(
                    "eth0",
                    mac(1, number),
                    1500,
                    (
                        IPv4Interface((IPv4Address("10.0.0.0") + number, 16)),
                        IPv6Interface((IPv6Address("fd00::") + number, 64)),
                    ),
                ),
            ),
        )
        for number in numbers
    ]
    ports = tuple(Interface(f"port{number}", mac(2, number), 1500) for number in numbers)
    switch = Node("s1", NodeKind.SWITCH, interfaces=ports)
    links = tuple(Link(LinkEnd(f"h{number}", "eth0"), LinkEnd("s1", f"port{number}")) for number in numbers)
    return Topology("hosts-on-a-switch", (*hosts, switch), links)


def mininet_interpreter() -> str | None:
    """A Python that can import Mininet: this one, or the system's; None where there is none."""
    for interpreter in dict.fromkeys((sys.executable, "/usr/bin/python3")):
        found = subprocess.run([interpreter, "-c", "import mininet.net"], capture_output=True, check=False)
        if found.returncode == 0:
            return interpreter
    return None


def measure_mininet(interpreter: str, nodes: int) -> Sample:
    """The same hosts by Mininet, in a network namespace of its own: it leaves nothing in ours."""
    from testbed.backend.system import CLONE_NEWNET, network_namespace, unshare
    from testbed.errors import LabError

    with network_namespace():
        unshare(CLONE_NEWNET)
        process = subprocess.Popen(
            [interpreter, str(_MININET_SCRIPT), str(nodes)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    with process:
        try:
            output, errors = process.communicate(timeout=_MININET_TIMEOUT_S)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        last_line = (errors.strip().splitlines() or ["no message"])[-1]
        raise LabError(f"Mininet failed: {last_line}; --no-mininet leaves it out")
    return Sample(**json.loads(output))


def _as_json(nodes: int, repetitions: int, summaries: Sequence[Summary]) -> dict[str, object]:
    return {
        "benchmark": "topology",
        "nodes": nodes,
        "repetitions": repetitions,
        "results": [
            {"name": summary.name, "up_s": summary.up_s, "down_s": summary.down_s, "total_s": summary.total_s}
            for summary in summaries
        ],
        "ratio_to_mininet": ratios_to_mininet(summaries),
    }


def ratios_to_mininet(summaries: Sequence[Summary]) -> dict[str, float]:
    """How many times longer Mininet takes, up and down together, than each of the others."""
    mininet = next((summary for summary in summaries if summary.name == "mininet"), None)
    if mininet is None:
        return {}
    return {
        summary.name: mininet.total_s / summary.total_s for summary in summaries if summary is not mininet
    }


def _print_table(nodes: int, repetitions: int, summaries: Sequence[Summary]) -> None:
    ratios = ratios_to_mininet(summaries)
    print(f"{nodes} hosts on a switch, medians of {repetitions}")
    print(f"{'':<20} {'up':>9} {'down':>9} {'both':>9}")
    for summary in summaries:
        ratio = f"  {ratios[summary.name]:.1f}x as fast as Mininet" if summary.name in ratios else ""
        times = " ".join(f"{seconds:7.3f} s" for seconds in (summary.up_s, summary.down_s, summary.total_s))
        print(f"{summary.name:<20} {times}{ratio}")
