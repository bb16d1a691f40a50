"""``testbed bench stack``: what the bundled stack costs on one core, without any device or kernel in between.

Two stacks of one process hand each other their frames. Only the time spent inside the one or the other is
counted, so that each figure is that of one stack on one core: what sends, and what receives.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import pstats
import random
import resource
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from errno import EADDRNOTAVAIL
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from statistics import median

import mptcp_stack.tcp.subflow
from mptcp_stack.ip.interface import Interface, InterfaceAddress, LinkType
from mptcp_stack.listener import Listener
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.run_loop import RECEIVE_BATCH_FRAMES
from mptcp_stack.settings import StackSettings
from mptcp_stack.stack import Stack
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.frame import Frame
from testbed.errors import LabError, UsageError

MTU = 1500
SUPER_SEGMENT_BYTES = 65536
PORT = 5001
PROFILED_LINES = 10
_ROUND_US = 1_000
_WRITE_BYTES = 1 << 18
_IDLE_ROUNDS = 2_000
_OPENED_TOGETHER = 100
_MEASURED_CONNECTIONS = 1_000
_CLIENT, _SERVER = "10.0.0.2", "10.0.0.1"


@dataclass(slots=True)
class TransferResult:
    """One bulk transfer; segments are those of the MTU's size, however many share a frame."""

    name: str
    data_bytes: int
    segments: int = 0
    sender_s: float = 0.0
    receiver_s: float = 0.0

    @property
    def sender_segments_s(self) -> float:
        return self.segments / self.sender_s

    @property
    def receiver_segments_s(self) -> float:
        return self.segments / self.receiver_s

    @property
    def goodput_gbit_s(self) -> float:
        """Of the slower of the two, each on a core of its own."""
        return self.data_bytes * 8 / max(self.sender_s, self.receiver_s) / 1e9


@dataclass(slots=True)
class ConnectionsResult:
    """Many connections: opened one after the other, all open at once, and closed again."""

    count: int
    open_s: float = 0.0
    close_s: float = 0.0
    bytes_each: float = 0.0
    """Of memory, for one end of one established connection that carries nothing."""
    resident_bytes: int = 0
    """By how much the process grew until all were open: both ends, and what the allocator does not use."""


@dataclass(slots=True)
class StackReport:
    is_compiled: bool = False
    """Whether this ran the stack that `make compiled` makes."""

    transfers: list[TransferResult] = field(default_factory=list)
    connections: list[ConnectionsResult] = field(default_factory=list)
    profile: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--megabytes", type=int, default=30, metavar="N", help="what each transfer carries (default 30)"
    )
    parser.add_argument(
        "--repeat", type=int, default=3, metavar="N", help="transfers of each kind (default 3)"
    )
    parser.add_argument(
        "--connections", type=int, default=10_000, metavar="N", help="open at once (default 10000)"
    )
    parser.add_argument("--no-profile", action="store_true", help="leave out the profile's top ten")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    problems = [
        f"--{name}: {getattr(arguments, name)} is not positive"
        for name in ("megabytes", "repeat", "connections")
        if getattr(arguments, name) < 1
    ]
    if problems:
        raise UsageError("\n".join(problems))
    data_bytes = arguments.megabytes << 20
    report = StackReport(is_compiled())
    for name, protocol, gso_bytes in (
        ("mptcp, MTU-size", "mptcp", 0),
        ("tcp, MTU-size", "tcp", 0),
        ("mptcp, super-segments", "mptcp", SUPER_SEGMENT_BYTES),
    ):
        for _ in range(arguments.repeat):
            report.transfers.append(measure_transfer(name, protocol, gso_bytes, data_bytes))
    report.connections.append(measure_connections(arguments.connections))
    if not arguments.no_profile:
        # Else what is left of the connections would be collected amid the transfer.
        gc.collect()
        report.profile = profile_of(lambda: measure_transfer("profiled", "mptcp", 0, data_bytes // 4))
    print(json.dumps(asdict(report)) if arguments.json else table(report))
    return 0


def is_compiled() -> bool:
    """Of many modules, the one that most work is in."""
    spec = mptcp_stack.tcp.subflow.__spec__
    return spec is not None and isinstance(spec.loader, ExtensionFileLoader)


class Pair:
    """Two stacks and the frames between them; the time spent in each is added up."""

    def __init__(self, gso_bytes: int = 0) -> None:
        settings = StackSettings(maximum_connections=1 << 20)
        self.stacks = [Stack(settings, random_bytes=random.Random(seed).randbytes) for seed in (1, 2)]
        self.interfaces = [
            _interface(stack, address, number, gso_bytes)
            for number, (stack, address) in enumerate(zip(self.stacks, (_CLIENT, _SERVER), strict=True), 1)
        ]
        self.spent_s = [0.0, 0.0]
        self.now_us = 1_000_000

    @property
    def client(self) -> Stack:
        return self.stacks[0]

    @property
    def server(self) -> Stack:
        return self.stacks[1]

    def timed(self, side: int, work: Callable[[], object]) -> None:
        started = time.thread_time()
        work()
        self.spent_s[side] += time.thread_time() - started

    def exchange(self) -> None:
        """Lets frames go back and forth until nobody has any, then moves the clock on."""
        is_busy = True
        while is_busy:
            is_busy = False
            for side in (0, 1):
                started = time.thread_time()
                outgoing = self.stacks[side].frames_to_send(self.now_us)
                self.spent_s[side] += time.thread_time() - started
                # What a device would do costs time as well, but it is none of the stack's.
                frames = [replace(frame, head=frame.to_bytes(), payload=()) for _, frame in outgoing]
                is_busy = is_busy or bool(frames)
                self._deliver(1 - side, frames)
        self.now_us += _ROUND_US
        for side in (0, 1):
            self._handle_deadline(side)

    def _deliver(self, side: int, frames: list[Frame]) -> None:
        """In batches of the run loop's size."""
        stack, interface, now_us = self.stacks[side], self.interfaces[side], self.now_us
        started = time.thread_time()
        for batch in range(0, len(frames), RECEIVE_BATCH_FRAMES):
            stack.receive_frames(frames[batch : batch + RECEIVE_BATCH_FRAMES], interface, now_us)
        self.spent_s[side] += time.thread_time() - started

    def _handle_deadline(self, side: int) -> None:
        stack = self.stacks[side]
        deadline_us = stack.next_deadline_us()
        if deadline_us is not None and deadline_us <= self.now_us:
            self.timed(side, lambda: stack.handle_deadline(self.now_us))

    def listen(self, protocol: str, backlog: int = 128) -> Listener:
        return self.server.listen(None, PORT, protocol=protocol, backlog=backlog)

    def until(self, is_done: Callable[[], bool]) -> None:
        """Raises LabError when nothing comes of it."""
        for _ in range(_IDLE_ROUNDS):
            if is_done():
                return
            self.exchange()
        raise LabError("bench stack: the two stacks came to no end; this is a defect")


def _interface(stack: Stack, address: str, number: int, gso_bytes: int) -> Interface:
    return stack.ip.add_interface(
        "eth0",
        link_type=LinkType.ETHERNET,
        mac=bytes((2, 0, 0, 0, 0, number)),
        mtu=MTU,
        addresses=[InterfaceAddress(parse_address(address), 24)],
        gso_max_size=gso_bytes,
        checksum_offload=bool(gso_bytes),
    )


def measure_transfer(name: str, protocol: str, gso_bytes: int, data_bytes: int) -> TransferResult:
    """The client sends, the server reads everything at once."""
    pair = Pair(gso_bytes)
    listener = pair.listen(protocol)
    sender = pair.client.connect(parse_address(_SERVER), PORT, protocol=protocol)
    receivers: list[Connection] = []
    pair.until(lambda: _accepts(listener, receivers) and sender.is_established)
    receiver = receivers[0]
    # Not zeros, whose checksum takes less time than that of anything else.
    data = random.Random(1).randbytes(_WRITE_BYTES)
    before = pair.client.counters["TcpExtTCPOrigDataSent"]
    pair.spent_s = [0.0, 0.0]
    written = read = 0

    def write() -> None:
        nonlocal written
        while written < data_bytes and (accepted := sender.write(data[: data_bytes - written])):
            written += accepted

    def take() -> None:
        nonlocal read
        while part := receiver.read(_WRITE_BYTES):
            read += len(part)

    def is_done() -> bool:
        pair.timed(0, write)
        pair.timed(1, take)
        return read == data_bytes

    while not is_done():
        pair.exchange()
    segments = pair.client.counters["TcpExtTCPOrigDataSent"] - before
    return TransferResult(name, data_bytes, segments, *pair.spent_s)


def _accepts(listener: Listener, accepted: list[Connection]) -> bool:
    while (connection := listener.accept()) is not None:
        accepted.append(connection)
    return bool(accepted)


def measure_connections(count: int) -> ConnectionsResult:
    """Both ends' time counts for opening and closing; memory is what one end of an idle connection holds."""
    result = ConnectionsResult(count, bytes_each=bytes_each(min(count, _MEASURED_CONNECTIONS)))
    gc.collect()
    resident_before = _resident_bytes()
    pair = Pair()
    listener = pair.listen("mptcp", backlog=2 * _OPENED_TOGETHER)
    opened: list[Connection] = []
    accepted: list[Connection] = []
    open_many(pair, listener, opened, accepted, count)
    result.open_s = sum(pair.spent_s)
    result.resident_bytes = _resident_bytes() - resident_before
    pair.spent_s = [0.0, 0.0]
    for connection in (*opened, *accepted):
        connection.close()
    pair.until(lambda: all(connection.is_closed for connection in (*opened, *accepted)))
    result.close_s = sum(pair.spent_s)
    return result


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def bytes_each(count: int) -> float:
    """The first hundred fill what all share."""
    pair = Pair()
    listener = pair.listen("mptcp", backlog=2 * _OPENED_TOGETHER)
    opened: list[Connection] = []
    accepted: list[Connection] = []
    open_many(pair, listener, opened, accepted, _OPENED_TOGETHER)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    open_many(pair, listener, opened, accepted, count)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / count / 2


def open_many(
    pair: Pair, listener: Listener, opened: list[Connection], accepted: list[Connection], count: int
) -> None:
    for _ in range(count):
        opened.append(_connect(pair))
        if len(opened) % _OPENED_TOGETHER == 0:
            pair.until(lambda: _accepts(listener, accepted) and len(accepted) == len(opened))
    pair.until(lambda: _accepts(listener, accepted) and len(accepted) == len(opened))


def _connect(pair: Pair) -> Connection:
    try:
        return pair.client.connect(parse_address(_SERVER), PORT)
    except OSError as error:
        if error.errno == EADDRNOTAVAIL:
            raise UsageError("--connections: more than there are local ports") from error
        raise


def profile_of(work: Callable[[], object]) -> list[str]:
    """The functions that take most of the time themselves, a line each."""
    profiler = cProfile.Profile()
    profiler.runcall(work)
    rows = pstats.Stats(profiler).get_stats_profile().func_profiles
    ranked = sorted(rows.items(), key=lambda row: row[1].tottime, reverse=True)[:PROFILED_LINES]
    return [
        f"{entry.tottime:7.3f} s {entry.ncalls:>10}  {name} ({entry.file_name.rpartition('/')[2]})"
        for name, entry in ranked
    ]


def _median_and_range(values: Sequence[float]) -> str:
    return f"{median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def table(report: StackReport) -> str:
    """For people to read."""
    lines = ["The stack is compiled." if report.is_compiled else "The stack is plain Python.", ""]
    lines += [f"{'transfer (median, and range)':<30}{'sender seg/s':>36}{'receiver seg/s':>36}{'Gbit/s':>8}"]
    for name in dict.fromkeys(each.name for each in report.transfers):
        same = [each for each in report.transfers if each.name == name]
        goodput = median(each.goodput_gbit_s for each in same)
        lines.append(
            f"{name:<30}{_median_and_range([each.sender_segments_s for each in same]):>36}"
            f"{_median_and_range([each.receiver_segments_s for each in same]):>36}{goodput:>8.2f}"
        )
    for many in report.connections:
        lines.append("")
        lines.append(
            f"{many.count:,} connections open at once, {many.bytes_each:,.0f} bytes each end; "
            f"the process grew by {many.resident_bytes / (1 << 20):,.0f} MiB for both ends of all"
        )
        lines.append(
            f"opened {many.count / many.open_s:,.0f} a second, closed {many.count / many.close_s:,.0f} a "
            "second (both ends on one core)"
        )
    if report.profile:
        lines += ["", "profile of a transfer at MTU-size, own time, calls:", *report.profile]
    return "\n".join(lines)
