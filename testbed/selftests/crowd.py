"""Many connections at once: of one client, or of several hosts to one server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbed.host.protocol import ConnectionResult, Role, Workload, WorkloadKind
from testbed.selftests.host_view import EVENT_LIMIT_S, HostAgent
from testbed.selftests.judgement import Verdict
from testbed.selftests.lab_view import CaseLab


class Crowd:
    """Connections of clients to the server of a case; each sends its own data."""

    def __init__(
        self,
        lab: CaseLab,
        clients: Mapping[str, HostAgent],
        size: int,
        *,
        connections: int = 1,
        protocol: str = "mptcp",
        timeout_s: float = 30.0,
    ) -> None:
        """``connections`` of each client, which send ``size`` bytes each and stay open after that."""
        self._lab = lab
        self._timeout_s = timeout_s
        anywhere = "0.0.0.0" if lab.family == 4 else "::"
        workload = Workload(
            WorkloadKind.TRANSFER,
            Role.LISTEN,
            anywhere,
            0,
            protocol=protocol,
            connections=len(clients) * connections,
            hold_open_after=True,
        )
        self._server = lab.server.agent.start(workload)
        self._server.wait_for("listening", EVENT_LIMIT_S)
        lab.tell(f"{len(clients)} hosts open {connections} connections each")
        self._size = size
        self._expected = len(clients) * connections
        self._clients = [
            agent.start(
                Workload(
                    WorkloadKind.TRANSFER,
                    Role.CONNECT,
                    lab.server.address(),
                    self._server.port,
                    protocol=protocol,
                    connections=connections,
                    send_bytes=size,
                    send_seed=lab.random.getrandbits(32),
                    hold_open_after=True,
                )
            )
            for agent in clients.values()
        ]

    def finish(self) -> None:
        """Until all has arrived; then all ends close, and every byte is judged. Raises HostError."""
        self._server.wait_for(f"received {self._size * self._expected}", self._timeout_s)
        self._lab.tell("all data arrived")
        self._lab.settle()
        for workload in (*self._clients, self._server):
            workload.finish()
        sent = [result for client in self._clients for result in client.result(self._timeout_s)]
        received = list(self._server.result(self._timeout_s))
        judge_crowd(self._lab.verdict, self._expected, sent, received)


def judge_crowd(
    verdict: Verdict,
    connections: int,
    sent: Sequence[ConnectionResult],
    received: Sequence[ConnectionResult],
) -> None:
    """Every connection came to be, and what each of the clients' sent arrived on one of the server's."""
    verdict.must_be_equal("connections that send", connections, len(sent))
    verdict.must_be_equal("connections that receive", connections, len(received))
    errors = sorted({result.error for result in (*sent, *received) if result.error})
    verdict.must_be_equal("errors", [], errors)
    # a listener accepts in whatever order the network chose
    outgoing = sorted(result.sha256_sent for result in sent)
    verdict.must_be_equal("different data", len(outgoing), len({*outgoing} - {""}))
    incoming = sorted(result.sha256_received for result in received)
    verdict.record("SHA-256 of all", expected="as sent", observed="", holds=outgoing == incoming)


def judge_crowd_both_ways(
    verdict: Verdict,
    connections: int,
    clients: Sequence[ConnectionResult],
    servers: Sequence[ConnectionResult],
    *,
    speaks_mptcp: bool,
) -> None:
    """As ``judge_crowd``, for data in both directions; and what all of them spoke at the end."""
    judge_crowd(verdict, connections, clients, servers)
    judge_crowd(verdict, connections, servers, clients)
    spoken = {result.is_mptcp for result in (*clients, *servers)}
    verdict.must_be_equal("speak MPTCP", {speaks_mptcp}, spoken)
