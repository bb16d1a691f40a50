"""Made-up hosts and results: what the harness is judged against without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any

from mptcp_stack.counters import ALL_NAMES
from testbed.host.path_control import PathCommand
from testbed.host.protocol import (
    ConnectionResult,
    EndpointRequest,
    StepAnswer,
    StepKind,
    Workload,
    WorkloadProgress,
)
from testbed.middlebox.settings import BoxCounters, BoxSettings
from testbed.selftests.results import Outcome, Run, RunResult
from testbed.topology.impairments import impairment_text
from testbed.topology.model import Impairment, Interface, LinkEnd, Node, NodeKind, StackKind, Topology

CLEAN = ConnectionResult(
    bytes_sent=0,
    bytes_received=0,
    sha256_sent="",
    sha256_received="",
    duration_us=1000,
    is_mptcp=True,
    error=None,
)


def make_run(
    case: str = "join/no-join", *, family: int = 4, stacks: str = "kernel-kernel", repetition: int = 1
) -> Run:
    client, server = stacks.split("-")
    return Run(case, family, client, server, seed=7, repetition=repetition)


def make_result(
    outcome: Outcome = Outcome.PASS, *, run: Run | None = None, reason: str = "", duration_ms: int = 12
) -> RunResult:
    return RunResult(run or make_run(), outcome, reason, duration_ms)


def make_topology() -> Topology:
    """Client and server with two interfaces each."""

    def host(name: str, last: int) -> Node:
        return Node(
            name,
            NodeKind.HOST,
            StackKind.KERNEL,
            tuple(
                Interface(
                    f"eth{link}",
                    f"02:00:00:00:{link:02x}:{last:02x}",
                    1500,
                    (IPv4Interface(f"10.0.{link}.{last}/24"), IPv6Interface(f"fd00:0:0:{link}::{last}/64")),
                )
                for link in range(2)
            ),
        )

    return Topology("fake", (host("client", 2), host("server", 1)), ())


class FakeWorkload:
    """Has received everything at once; ends when it is told to finish or is asked for its result."""

    def __init__(self, agent: FakeAgent, workload: Workload) -> None:
        self.agent = agent
        self.workload = workload
        self.port = workload.port or 4321
        self.has_finished = False

    def wait_for(self, milestone: str, timeout_s: float) -> WorkloadProgress:
        self.agent.waited_for.append(milestone)
        if self.agent.fail_wait is not None:
            raise self.agent.fail_wait
        return WorkloadProgress("holding", self.port, 1, 0, 0)

    def get_option(
        self, level: int, option: int, length: int, *, request: bytes = b"", connection: int = 0
    ) -> bytes:
        return self.agent.options.get((level, option), bytes(length))

    def set_option(self, level: int, option: int, value: bytes, *, connection: int = 0) -> bytes:
        self.agent.options[level, option] = value
        return b""

    def step(
        self, kind: StepKind, number: int = 0, *, connection: int = 0, timeout_s: float = 10.0
    ) -> StepAnswer:
        self.agent.calls.append(f"step {kind} {number}")
        return StepAnswer(number)

    def progress(self) -> WorkloadProgress:
        return WorkloadProgress("transferring", self.port, 1, 0, self.workload.send_bytes)

    def finish(self) -> None:
        self.has_finished = True

    def stop(self) -> None:
        self.agent.calls.append("stop")

    def result(self, timeout_s: float) -> list[ConnectionResult]:
        """What an honest network does: the peer's bytes arrive."""
        peer = self.agent.peer.workload if self.agent.peer is not None else None
        received = peer.workload.send_bytes if peer is not None else 0
        honest = replace(
            CLEAN,
            bytes_sent=self.workload.send_bytes,
            sha256_sent=f"hash-of-{self.workload.send_seed}",
            bytes_received=received,
            sha256_received=f"hash-of-{peer.workload.send_seed}" if peer is not None else "",
        )
        return [self.agent.change_result(honest)]


@dataclass
class FakeAgent:
    """A host whose counters move when a workload starts."""

    values: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ALL_NAMES, 0))
    peer: FakeAgent | None = None
    on_start: dict[str, int] = field(default_factory=dict)
    """What a workload adds to the counters."""
    change_result: Callable[[ConnectionResult], ConnectionResult] = lambda honest: honest
    fail_wait: Exception | None = None
    workload: FakeWorkload | None = None
    waited_for: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    options: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def start(self, workload: Workload) -> FakeWorkload:
        self.calls.append(f"start {workload.role} {workload.address} {workload.port} {workload.protocol}")
        for name, amount in self.on_start.items():
            self.values[name] += amount
        self.workload = FakeWorkload(self, workload)
        return self.workload

    def counters(self) -> dict[str, int]:
        return dict(self.values)

    def set_limits(self, subflows: int, add_addr_accepted: int) -> None:
        self.calls.append(f"limits {subflows} {add_addr_accepted}")

    def add_endpoint(
        self,
        address: str,
        *,
        flags: Iterable[str],
        interface: str | None = None,
        identifier: int | None = None,
        port: int | None = None,
    ) -> int:
        self.calls.append(f"endpoint {address} {','.join(flags)} {interface}")
        return 5

    def delete_endpoint(self, identifier: int, address: str | None = None) -> None:
        self.calls.append(f"delete endpoint {identifier}")

    def flush_endpoints(self) -> None:
        self.calls.append("flush endpoints")

    def set_endpoint_flags(
        self, flags: Iterable[str], *, identifier: int | None = None, address: str | None = None
    ) -> None:
        self.calls.append(f"endpoint {identifier} {','.join(flags)}")

    def endpoints(self) -> list[EndpointRequest]:
        return []

    def limits(self) -> tuple[int, int]:
        return 2, 0

    def watch_paths(self) -> None:
        self.calls.append("watch paths")

    def path_events(self) -> list[dict[str, Any]]:
        return []

    def command_paths(self, command: PathCommand) -> None:
        self.calls.append(f"command {command}")

    def listeners(
        self,
        *,
        local_address: str | None = None,
        local_port: int | None = None,
        remote_port: int | None = None,
    ) -> list[str]:
        return []

    def sockets_in_use(self) -> int:
        return 0

    def reach(self, address: str, timeout_s: float = 5.0) -> int | None:
        return 1

    def sockets(self) -> str:
        return "ESTAB 1\nTIME-WAIT 2"


@dataclass
class FakeNetwork:
    """Every look at an interface finds 1000 bytes more each way."""

    calls: list[str] = field(default_factory=list)
    looks: int = 0

    def set_link(self, node: str, interface: str, up: bool) -> None:
        self.calls.append(f"{node}:{interface} {'up' if up else 'down'}")

    def impair(
        self, node: str, interface: str, words: Mapping[str, str], *, sent: bool, received: bool
    ) -> None:
        self.calls.append(f"{node}:{interface} {dict(words)} {sent} {received}")

    def put_impairments(
        self, node: str, interface: str, forward: Impairment | None, backward: Impairment | None
    ) -> None:
        shown = [impairment_text(each) if each is not None else "as it is" for each in (forward, backward)]
        self.calls.append(f"{node}:{interface} {shown}")

    def set_middlebox(self, node: str, interface: str, boxes: Sequence[BoxSettings]) -> None:
        self.calls.append(f"{node}:{interface} boxes {', '.join(box.kind for box in boxes)}")

    def box_counters(self) -> Mapping[LinkEnd, Sequence[BoxCounters]]:
        return {LinkEnd("client", "eth0"): [BoxCounters("strip", "->", seen=9, changed=2)]}

    def reconfigure(self, topology: Topology) -> None:
        self.calls.append("reconfigured")

    def schedule(self, delay_s: float, action: Callable[[], None]) -> None:
        self.calls.append(f"in {delay_s:.1f} s")
        action()

    def interface_bytes(self, node: str, interface: str) -> tuple[int, int]:
        self.looks += 1
        return self.looks * 1000, self.looks * 1000

    def filter(self, router: str, rules: Sequence[str], hook: str) -> None:
        self.calls.append(f"{router} {hook} {'; '.join(rules)}")

    def filtered(self, node: str) -> list[int]:
        return [0]

    def intercept(self, host: str, port: int) -> None:
        self.calls.append(f"{host} intercepts {port}")


def connected_agents() -> tuple[FakeAgent, FakeAgent]:
    """A client and a server with the counters of one clean MPTCP connection."""
    client = FakeAgent(
        on_start={"MPTcpExtMPCapableSYNTX": 1, "MPTcpExtMPCapableSYNACKRX": 1},
    )
    server = FakeAgent(on_start={"MPTcpExtMPCapableSYNRX": 1, "MPTcpExtMPCapableACKRX": 1})
    client.peer, server.peer = server, client
    return client, server
