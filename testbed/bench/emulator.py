"""``testbed bench emulator``: how many packets a second one link emulator forwards, next to a plain veth.

A sender floods the receiving host with frames of the MTU that it has no use for, over a veth with nothing in
its middle and then through the emulator under several settings. What arrives at the receiver is counted, and
the processor time that the emulator took for it: on a busy machine that tells its capacity. All in one lab
and one run, so that the ratios hold whatever the machine is doing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.backend import ownership
from testbed.backend.agents import EMULATOR_ROLE
from testbed.errors import ExitCode, UsageError
from testbed.topology.impairments import combine, parse_word, split_words
from testbed.topology.model import Impairment

if TYPE_CHECKING:
    from testbed.backend.lab import Lab
    from testbed.topology.model import Topology

REQUIRED_PACKETS_S = 60_000
SETTINGS = (
    "",
    "delay 10ms",
    "delay 10ms 1ms loss 1%",
    "delay 10ms loss 1% reorder 5% duplicate 1% corrupt 1%",
)
"""What the emulator does meanwhile; nothing first, which is what is required."""
_FRAME = b"\x02\0\0\0\0\x02" + b"\x02\0\0\0\0\x01" + b"\x88\xb5" + bytes(1500)
"""Of an EtherType for local experiments: the receiver's kernel drops it without more ado."""
_SETTLE_S = 0.3
_SOL_PACKET = 263
_PACKET_QDISC_BYPASS = 20
_FILE = """\
version: 1
name: bench-emulator
nodes: {sender: {stack: tcp}, receiver: {stack: tcp}}
links:
  - endpoints: [sender, receiver]
  - endpoints: [sender, receiver]
    impair: {"->": delay 1ms}
"""


@dataclass(frozen=True, slots=True)
class Throughput:
    """What one path carried."""

    path: str
    sent_packets_s: float
    received_packets_s: float
    seconds: float
    """How long the flood was, from its first packet on."""
    packets_per_processor_s: float | None = None
    """What the emulator forwards with a processor of its own; includes the receiving kernel's work."""
    ratio_to_veth: float | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        f"exit code 1 when the emulator forwards less than {REQUIRED_PACKETS_S} packets per second of a"
        " processor unimpaired."
    )
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="for each path (default 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    from testbed.backend.namespaces import NamespaceBackend
    from testbed.backend.privileges import ensure_privileges

    if not 0.1 <= arguments.seconds <= 600:
        raise UsageError(f"--seconds: {arguments.seconds:g} is not between 0.1 and 600")
    ensure_privileges()
    with (
        contextlib.closing(NamespaceBackend(with_agents=False)) as backend,
        backend.up(_topology(), f"bench-{os.getpid()}", seed=1) as lab,
    ):
        results = _measure(lab, arguments.seconds)
    unimpaired = results[1]
    if arguments.json:
        print(json.dumps({"emulator": [asdict(result) for result in results]}))
    else:
        print(table(results))
    reached = max(unimpaired.received_packets_s, unimpaired.packets_per_processor_s or 0.0)
    is_fast_enough = reached >= REQUIRED_PACKETS_S
    return ExitCode.PASS if is_fast_enough else ExitCode.FAIL


def _topology() -> Topology:
    from testbed.topology.load import load_text
    from testbed.topology.problems import ProblemCollector

    return load_text(_FILE, ProblemCollector("bench"))


def _measure(lab: Lab, seconds: float) -> list[Throughput]:
    veth = _flood(lab, "eth0", "plain veth", seconds)
    results = [veth]
    pid = _emulator_pid(lab)
    link = lab.links.link_at("sender:eth1")
    for text in SETTINGS:
        impairment = _impairment(text)
        lab.links.put(link, impairment, Impairment())
        used_ns = _processor_ns(pid)
        measured = _flood(lab, "eth1", f"emulator, {text or 'unimpaired'}", seconds)
        used_s = (_processor_ns(pid) - used_ns) / 1e9
        results.append(
            replace(
                measured,
                packets_per_processor_s=measured.received_packets_s * measured.seconds / used_s,
                ratio_to_veth=measured.received_packets_s / veth.received_packets_s,
            )
        )
    return results


def _emulator_pid(lab: Lab) -> int:
    processes = ownership.read_lab(lab.name).processes
    return next(process.pid for process in processes if process.role == EMULATOR_ROLE)


def _processor_ns(pid: int) -> int:
    """Nanoseconds that a process has been running (proc(5), schedstat)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def _impairment(text: str) -> Impairment:
    words = split_words(text) if text else {}
    return combine({word: parse_word(word, value) for word, value in words.items()})


def _flood(lab: Lab, interface: str, path: str, seconds: float) -> Throughput:
    with _sender(lab, interface):
        sent, received = _packets(lab, "sender", interface, 1), _packets(lab, "receiver", interface, 0)
        started = time.monotonic()
        time.sleep(seconds)
        took_s = time.monotonic() - started
        sent = _packets(lab, "sender", interface, 1) - sent
        received = _packets(lab, "receiver", interface, 0) - received
    time.sleep(_SETTLE_S)
    return Throughput(path, sent / took_s, received / took_s, took_s)


@contextlib.contextmanager
def _sender(lab: Lab, interface: str) -> Iterator[None]:
    """A process that sends as fast as it can."""
    with lab.inside("sender"):
        flooding = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        flooding.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        flooding.bind((interface, 0))
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                with contextlib.suppress(OSError):
                    flooding.send(_FRAME)
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        flooding.close()


def _packets(lab: Lab, node: str, interface: str, column: int) -> int:
    """Packets that an interface has received (0) or sent (1)."""
    with lab.inside(node):
        text = Path("/proc/thread-self/net/dev").read_text()
    line = next(line for line in text.splitlines() if line.strip().startswith(f"{interface}:"))
    return int(line.partition(":")[2].split()[1 + 8 * column])


def table(results: list[Throughput]) -> str:
    """Readable columns; what is required stands below."""
    width = max(len(result.path) for result in results)
    lines = [f"{'PATH':<{width}}  {'SENT/S':>9}  {'ARRIVED/S':>9}  {'PER CPU-S':>9}  OF THE VETH"]
    for result in results:
        ratio = "" if result.ratio_to_veth is None else f"{result.ratio_to_veth:.2f}"
        rates = f"{result.sent_packets_s:>9,.0f}  {result.received_packets_s:>9,.0f}"
        capacity = result.packets_per_processor_s
        capacity_text = "" if capacity is None else f"{capacity:,.0f}"
        lines.append(f"{result.path:<{width}}  {rates}  {capacity_text:>9}  {ratio}".rstrip())
    lines.append(
        f"required of the emulator, unimpaired: {REQUIRED_PACKETS_S:,} packets per second of a processor"
    )
    return "\n".join(lines)
