"""``testbed bench aggregation``: what a connection gets of two paths, with either stack.

Both stacks are measured over links that are impaired alike, in one lab, one after the other. The goodput is
what the server's application has a stated time after the client has called connect, the handshake and the
start of the congestion window included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from testbed.bench.two_paths import LINK_MTU, STACKS, HostPair, host_pairs, impaired, two_path_topology
from testbed.errors import UsageError
from testbed.selftests.clock import RealClock
from testbed.topology.model import Impairment

if TYPE_CHECKING:
    from testbed.backend.lab import Lab

RATES_MBIT_S: Final = ((10, 10), (10, 3), (30, 10), (100, 100))
DELAYS_MS: Final = ((0, 0), (1, 25), (25, 1))
LOSSES_PERCENT: Final = (0.0, 1.0)
TARGET: Final = 0.95
"""Of the sum of the links' payload rates, without loss."""

FRAME_BYTES: Final = LINK_MTU + 14
"""As the link counts it: the packet and its Ethernet header."""
PAYLOAD_BYTES: Final = LINK_MTU - 20 - 20 - 12 - 24
"""Of a full packet: without the headers of IPv4 and TCP, and the options Timestamps and DSS.

The DSS of who only sends has a data ACK of 4 bytes, a mapping of 8 + 4 + 2 bytes, and 2 bytes of padding.
"""

_DEFAULT_SECONDS = 10.0
_MAXIMUM_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Cell:
    """Two links; each impaired alike in both directions."""

    rates_mbit_s: tuple[int, int]
    delays_ms: tuple[int, int]
    loss_percent: float = 0.0

    @property
    def payload_mbit_s(self) -> float:
        """Of both links together, every packet full and none sent twice."""
        return sum(self.rates_mbit_s) * PAYLOAD_BYTES / FRAME_BYTES

    def impairments(self, seed: int) -> Iterator[Impairment]:
        """Of the first link and of the second; their queues hold what the topology's default is."""
        for rate_mbit_s, delay_ms in zip(self.rates_mbit_s, self.delays_ms, strict=True):
            yield Impairment(
                rate_bit_s=rate_mbit_s * 1_000_000,
                delay_us=delay_ms * 1000,
                loss=self.loss_percent / 100,
                seed=seed,
            )

    def __str__(self) -> str:
        rates, delays = ("/".join(map(str, each)) for each in (self.rates_mbit_s, self.delays_ms))
        return f"{rates} Mbit/s, {delays} ms, {self.loss_percent:g} %"


@dataclass(slots=True)
class CellResult:
    """What each stack made of a cell."""

    cell: Cell
    mbit_s: dict[str, list[float]]
    """Stack → goodput of each repetition."""

    def share(self, stack: str) -> float:
        """The median's, of the payload rate."""
        return statistics.median(self.mbit_s[stack]) / self.cell.payload_mbit_s

    @property
    def ratio_to_kernel(self) -> float | None:
        """The bundled stack's median over Linux's."""
        ours, kernel = (self.mbit_s.get(stack) for stack in STACKS)
        return statistics.median(ours) / statistics.median(kernel) if ours and kernel else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds",
        type=float,
        default=_DEFAULT_SECONDS,
        metavar="S",
        help=f"of each measurement (default {_DEFAULT_SECONDS:g})",
    )
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="measurements of each cell, with other seeds (1)"
    )
    parser.add_argument(
        "--loss", default="0,1", metavar="PERCENT,…", help="loss of every link, in percent (default 0,1)"
    )
    parser.add_argument(
        "--rates",
        default=",".join("/".join(map(str, rates)) for rates in RATES_MBIT_S),
        metavar="A/B,…",
        help="in Mbit/s",
    )
    parser.add_argument(
        "--delays",
        default=",".join("/".join(map(str, delays)) for delays in DELAYS_MS),
        metavar="A/B,…",
        help="in ms, one way",
    )
    parser.add_argument("--stacks", default=",".join(STACKS), metavar="STACK,…")
    parser.add_argument(
        "--virtual-time",
        action="store_true",
        help="the bundled stack in a simulation of the same links, whose speed is not this machine's",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--markdown", action="store_true", help="print the tables of docs/aggregation.md")


def run(arguments: argparse.Namespace) -> int:
    stacks, cells = check_arguments(arguments)
    measure = _in_virtual_time if arguments.virtual_time else _in_a_lab
    results = []
    for result in measure(stacks, cells, arguments.seconds, arguments.repeat):
        results.append(result)
        if not arguments.json:
            print(line(result), file=sys.stderr if arguments.markdown else sys.stdout, flush=True)
    if arguments.json:
        print(json.dumps({"aggregation": [_object(result) for result in results]}))
    elif arguments.markdown:
        print(markdown(results, arguments.seconds, arguments.repeat, is_virtual=arguments.virtual_time))
    return 0


def _in_a_lab(
    stacks: Sequence[str], cells: Sequence[Cell], seconds: float, repetitions: int
) -> Iterator[CellResult]:
    from testbed.backend.namespaces import NamespaceBackend
    from testbed.backend.privileges import ensure_privileges

    ensure_privileges()
    topology = two_path_topology(stacks)
    with closing(NamespaceBackend()) as backend, backend.up(topology, f"bench-{os.getpid()}") as lab:
        pairs = host_pairs(topology, lab.hosts)
        for pair in pairs:
            pair.allow_both_paths()
        for cell in cells:
            yield _measure_cell(lab, pairs, cell, seconds, repetitions)


def _in_virtual_time(
    stacks: Sequence[str], cells: Sequence[Cell], seconds: float, repetitions: int
) -> Iterator[CellResult]:
    from testbed.backend.simulated.lab import SimulatedLab

    for cell in cells:
        result = CellResult(cell, {stack: [] for stack in stacks})
        for seed in range(1, repetitions + 1):
            topology = impaired(two_path_topology(stacks), list(cell.impairments(seed)))
            with SimulatedLab(topology, seed) as lab:
                (pair,) = host_pairs(topology, lab.hosts)
                pair.allow_both_paths()
                result.mbit_s[pair.stack].append(pair.send_for(seconds, lab.clock).mbit_s)
        yield result


def check_arguments(arguments: argparse.Namespace) -> tuple[tuple[str, ...], list[Cell]]:
    """The stacks and the cells to measure. Raises UsageError with every problem."""
    stacks = STACKS[:1] if arguments.virtual_time else tuple(dict.fromkeys(arguments.stacks.split(",")))
    problems = [
        f"--stacks: '{stack}' is none of {', '.join(STACKS)}" for stack in stacks if stack not in STACKS
    ]
    if not 0 < arguments.seconds <= _MAXIMUM_SECONDS:
        problems.append(f"--seconds: {arguments.seconds:g} is not in 0 to {_MAXIMUM_SECONDS:g}")
    if arguments.repeat < 1:
        problems.append(f"--repeat: {arguments.repeat} is not positive")
    rates = _pairs_of_numbers("--rates", arguments.rates, 1, problems)
    delays = _pairs_of_numbers("--delays", arguments.delays, 0, problems)
    losses = []
    for text in arguments.loss.split(","):
        try:
            loss = float(text)
        except ValueError:
            loss = -1.0
        losses.append(loss)
        if not 0 <= loss < 100:
            problems.append(f"--loss: '{text}' is no percentage below 100")
    if problems:
        raise UsageError("\n".join(problems))
    return stacks, [Cell(rate, delay, loss) for loss in losses for rate in rates for delay in delays]


def _pairs_of_numbers(option: str, text: str, lowest: int, problems: list[str]) -> list[tuple[int, int]]:
    pairs = []
    for each in text.split(","):
        first, _, second = each.partition("/")
        if not (first.isdecimal() and second.isdecimal() and min(int(first), int(second)) >= lowest):
            problems.append(f"{option}: '{each}' is not two numbers from {lowest} on, like 10/3")
            continue
        pairs.append((int(first), int(second)))
    return pairs


def _measure_cell(
    lab: Lab, pairs: Sequence[HostPair], cell: Cell, seconds: float, repetitions: int
) -> CellResult:
    result = CellResult(cell, {pair.stack: [] for pair in pairs})
    for seed in range(1, repetitions + 1):
        for pair in pairs:
            for link, impairment in zip(pair.links, cell.impairments(seed), strict=True):
                lab.links.put(link, impairment, impairment)
            result.mbit_s[pair.stack].append(pair.send_for(seconds, RealClock()).mbit_s)
    return result


def line(result: CellResult) -> str:
    """For people to read."""
    shares = "  ".join(
        f"{stack} {statistics.median(mbit_s):6.2f} Mbit/s ({result.share(stack):.3f})"
        for stack, mbit_s in result.mbit_s.items()
    )
    ratio = result.ratio_to_kernel
    return f"{result.cell!s:<32} {shares}" + (f"  {ratio:.2f} of the kernel's" if ratio is not None else "")


def markdown(
    results: Sequence[CellResult], seconds: float, repetitions: int, *, is_virtual: bool = False
) -> str:
    """One table for each loss, with where and how it was measured."""
    often = "once" if repetitions == 1 else f"{repetitions} times, of which the medians are shown"
    where = "in virtual time" if is_virtual else _machine()
    lines = [f"Measured over {seconds:g} s each, {often}, {where}."]
    for loss_percent in dict.fromkeys(result.cell.loss_percent for result in results):
        chosen = [result for result in results if result.cell.loss_percent == loss_percent]
        lines += ["", f"**{loss_percent:g} % loss**" if loss_percent else "**No loss**", ""]
        lines += _table(chosen)
    return "\n".join(lines)


def _machine() -> str:
    return (
        f"on Linux {platform.release()} with {os.cpu_count()} processors and Python"
        f" {platform.python_version()}; load average {os.getloadavg()[1]:.1f}"
    )


def _table(results: Sequence[CellResult]) -> Iterator[str]:
    stacks = list(results[0].mbit_s)
    yield (
        "| Rates (Mbit/s) | Delays (ms) | Payload rate |"
        + "".join(f" {stack} | share |" for stack in stacks)
        + " userspace / kernel |"
    )
    yield "|-|-|-:|" + "-:|-:|" * len(stacks) + "-:|"
    for result in results:
        rates, delays = (
            "/".join(map(str, each)) for each in (result.cell.rates_mbit_s, result.cell.delays_ms)
        )
        cells = "".join(
            f" {statistics.median(mbit_s):.2f} | {result.share(stack):.3f} |"
            for stack, mbit_s in result.mbit_s.items()
        )
        ratio = result.ratio_to_kernel
        compared = f"{ratio:.2f}" if ratio is not None else "-"
        yield f"| {rates} | {delays} | {result.cell.payload_mbit_s:.2f} |{cells} {compared} |"


def _object(result: CellResult) -> dict[str, object]:
    return {
        **asdict(result),
        "payload_mbit_s": result.cell.payload_mbit_s,
        "shares": {stack: result.share(stack) for stack in result.mbit_s},
        "ratio_to_kernel": result.ratio_to_kernel,
    }
