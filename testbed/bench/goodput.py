"""``testbed bench goodput``: one bulk transfer for each pair of stacks over an unshaped veth.

Every pair has its own two hosts and link in one lab, so that all are measured in the same run, one after the
other. Goodput is what the receiving application got, from its accept to the end of data.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Interface, IPv6Interface
from typing import TYPE_CHECKING

from testbed.errors import LabError, UsageError
from testbed.host.protocol import ConnectionResult, Role, Workload, WorkloadKind
from testbed.topology.model import Interface, Link, LinkEnd, Node, NodeKind, StackKind, Topology

if TYPE_CHECKING:
    from testbed.backend.lab import Lab

PAIRS = ("kernel-kernel", "userspace-userspace", "userspace-kernel", "kernel-userspace")
"""Client-server; the client sends. The first is what the others are compared with."""
_DEFAULT_SECONDS = 2.0
_PROBE_BYTES = 32 << 20
_INTERFACE = "eth0"
_MTU = 1500
_FAMILIES = ("4", "6")
_TIMEOUT_S = 120.0


@dataclass(slots=True)
class PairResult:
    """What one pair reached."""

    pair: str
    transfer_bytes: int = 0
    gbit_s: list[float] = field(default_factory=list)
    """Of each repetition."""
    median_gbit_s: float = 0.0
    ratio_to_kernel: float | None = None
    """Of the medians; None when kernel-kernel was not measured."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--bytes", type=int, metavar="N", help="how much each transfer carries")
    size.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help=f"about how long each transfer takes (default {_DEFAULT_SECONDS:g})",
    )
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="transfers for each pair (default 1)"
    )
    parser.add_argument("--stacks", default=",".join(PAIRS), metavar="PAIR,…", help="client-server pairs")
    parser.add_argument("--family", choices=_FAMILIES, default="4", help="IP version (default 4)")
    parser.add_argument("--verify", action="store_true", help="hash the data at both ends, which costs time")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    from testbed.backend.namespaces import NamespaceBackend
    from testbed.backend.privileges import ensure_privileges

    pairs = check_arguments(arguments)
    ensure_privileges()
    lab_name = f"bench-{os.getpid()}"
    with closing(NamespaceBackend()) as backend, backend.up(build_topology(pairs), lab_name) as lab:
        results = [_measure_pair(lab, pair, arguments) for pair in pairs]
    compare(results)
    print(
        json.dumps({"goodput": [asdict(result) for result in results]}) if arguments.json else table(results)
    )
    return 0


def check_arguments(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The pairs to measure. Raises UsageError with every problem."""
    pairs = tuple(dict.fromkeys(arguments.stacks.split(",")))
    problems = [f"--stacks: '{pair}' is none of {', '.join(PAIRS)}" for pair in pairs if pair not in PAIRS]
    if arguments.bytes is not None and arguments.bytes < 1:
        problems.append(f"--bytes: {arguments.bytes} is not positive")
    if arguments.seconds is not None and not 0 < arguments.seconds <= _TIMEOUT_S / 4:
        problems.append(f"--seconds: {arguments.seconds:g} is not in 0 to {_TIMEOUT_S / 4:g}")
    if arguments.repeat < 1:
        problems.append(f"--repeat: {arguments.repeat} is not positive")
    if problems:
        raise UsageError("\n".join(problems))
    return pairs


def build_topology(pairs: Sequence[str]) -> Topology:
    """Two hosts and one link for each pair, each in networks of its own."""
    nodes: list[Node] = []
    links: list[Link] = []
    for index, pair in enumerate(pairs):
        ends = []
        for position, stack in enumerate(pair.split("-"), start=1):
            name = _host_name(pair, position)
            nodes.append(
                Node(
                    name=name,
                    kind=NodeKind.HOST,
                    stack=StackKind(stack),
                    interfaces=(
                        Interface(
                            name=_INTERFACE,
                            mac=f"02:be:9c:00:{index:02x}:{position:02x}",
                            mtu=_MTU,
                            addresses=(
                                IPv4Interface(f"{_address(index, position, '4')}/24"),
                                IPv6Interface(f"{_address(index, position, '6')}/64"),
                            ),
                        ),
                    ),
                )
            )
            ends.append(LinkEnd(name, _INTERFACE))
        links.append(Link(first=ends[0], second=ends[1], mtu=_MTU))
    return Topology(name="goodput", nodes=tuple(nodes), links=tuple(links))


def compare(results: Sequence[PairResult]) -> None:
    """Fill in the medians and the ratios."""
    for result in results:
        result.median_gbit_s = statistics.median(result.gbit_s)
    reference = next((result.median_gbit_s for result in results if result.pair == PAIRS[0]), None)
    for result in results:
        result.ratio_to_kernel = result.median_gbit_s / reference if reference else None


def table(results: Sequence[PairResult]) -> str:
    """For people to read."""
    lines = [f"{'client-server':<22}{'Gbit/s':>8}{'ratio':>8}{'MB':>8}  repetitions"]
    for result in results:
        ratio = f"{result.ratio_to_kernel:.2f}" if result.ratio_to_kernel is not None else "-"
        repetitions = " ".join(f"{value:.2f}" for value in result.gbit_s)
        lines.append(
            f"{result.pair:<22}{result.median_gbit_s:>8.2f}{ratio:>8}"
            f"{result.transfer_bytes / 1e6:>8.0f}  {repetitions}"
        )
    return "\n".join(lines)


def _measure_pair(lab: Lab, pair: str, arguments: argparse.Namespace) -> PairResult:
    if not arguments.quiet and not arguments.json:
        print(f"{pair} …", file=sys.stderr)
    result = PairResult(pair, arguments.bytes or 0)
    if not result.transfer_bytes:
        seconds = arguments.seconds or _DEFAULT_SECONDS
        probe_gbit_s = _transfer(lab, pair, _PROBE_BYTES, arguments)
        result.transfer_bytes = max(_PROBE_BYTES, round(probe_gbit_s * 1e9 / 8 * seconds))
    for _ in range(arguments.repeat):
        result.gbit_s.append(_transfer(lab, pair, result.transfer_bytes, arguments))
    return result


def _transfer(lab: Lab, pair: str, transfer_bytes: int, arguments: argparse.Namespace) -> float:
    """Gbit/s. Raises LabError when the transfer fails, or falls back to TCP."""
    client, server = (lab.host(_host_name(pair, position)) for position in (1, 2))
    address = str(_server_address(lab, pair, arguments.family))
    timeout_us = round(_TIMEOUT_S * 1e6)
    receiving = server.start(
        Workload(WorkloadKind.TRANSFER, Role.LISTEN, "::", 0, verify=arguments.verify, timeout_us=timeout_us)
    )
    sending = client.start(
        Workload(
            WorkloadKind.TRANSFER,
            Role.CONNECT,
            address,
            receiving.port,
            send_bytes=transfer_bytes,
            verify=arguments.verify,
            timeout_us=timeout_us,
        )
    )
    (sent,) = sending.result(_TIMEOUT_S)
    (received,) = receiving.result(_TIMEOUT_S)
    check_transfer(pair, transfer_bytes, sent, received)
    return received.bytes_received * 8 / received.duration_us / 1000


def check_transfer(
    pair: str, transfer_bytes: int, sent: ConnectionResult, received: ConnectionResult
) -> None:
    """Raises LabError for a transfer that says nothing about the stacks' speed."""
    for whose, result in (("client", sent), ("server", received)):
        if result.error is not None:
            raise LabError(f"{pair}: {whose}: {result.error} ({result.detail})")
        if not result.is_mptcp:
            raise LabError(f"{pair}: {whose}: the connection fell back to TCP")
    if received.bytes_received != transfer_bytes or sent.sha256_sent != received.sha256_received:
        raise LabError(f"{pair}: the data did not arrive as it was sent")


def _server_address(lab: Lab, pair: str, family: str) -> object:
    node = lab.topology.node(_host_name(pair, 2))
    (interface,) = node.interfaces
    return next(address.ip for address in interface.addresses if str(address.version) == family)


def _host_name(pair: str, position: int) -> str:
    client, server = (stack[0] for stack in pair.split("-"))
    return f"{client}{server}-{'client' if position == 1 else 'server'}"


def _address(index: int, position: int, family: str) -> str:
    return f"10.77.{index}.{position}" if family == "4" else f"fd77:0:0:{index:x}::{position:x}"
