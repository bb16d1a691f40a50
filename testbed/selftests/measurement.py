"""What a case demands of the counters of both ends.

Each check function states, for the sender of an event and for its receiver, the numbers that the kernel's
selftests state; they hold for every pair of stacks.
"""

from __future__ import annotations

from testbed.selftests.host_view import CaseHost, counted
from testbed.selftests.judgement import (
    FALLBACK_NAMES,
    Expectation,
    Verdict,
    at_least,
    between,
    exactly,
    full_counter_name,
    judge_counters,
)


class Measurement:
    """What happened to the counters of both hosts between two moments."""

    def __init__(self, verdict: Verdict, client: CaseHost, server: CaseHost) -> None:
        self.client = HostMeasurement(verdict, client)
        self.server = HostMeasurement(verdict, server)

    def start(self) -> None:
        self.client.start()
        self.server.start()

    def stop(self) -> None:
        self.client.stop()
        self.server.stop()

    def must_be_one_mptcp_connection(self) -> None:
        """One handshake with MP_CAPABLE on every packet, and no fallback on either side."""
        self.client.must_count(MPCapableSYNTX=1, MPCapableSYNACKRX=1)
        self.server.must_count(MPCapableSYNRX=1, MPCapableACKRX=1)
        self.must_not_fall_back()

    def must_not_fall_back(self) -> None:
        """No connection gave up MPTCP, on either side and for any reason."""
        nothing = dict.fromkeys(FALLBACK_NAMES, 0)
        self.client.must_count(**nothing)
        self.server.must_count(**nothing)

    def must_join(
        self,
        subflows: int,
        *,
        attempted: int | None = None,
        rejected: int = 0,
        bind_errors: int = 0,
        connect_errors: int = 0,
    ) -> None:
        """The client opened ``attempted`` subflows; the server accepted ``subflows`` and rejected some.

        The two kinds of errors are of subflows of the client that came to nothing before their SYN.
        Both sides also agree that every HMAC was right and that nothing fell back.
        """
        sent = subflows + rejected if attempted is None else attempted
        answered = subflows + rejected
        self.client.must_count(
            MPJoinSynTx=sent,
            MPJoinSynAckRx=answered,
            MPJoinSynAckHMacFailure=0,
            MPJoinSynAckNoMPJoin=0,
            MPJoinSynTxCreatSkErr=0,
            MPJoinSynTxBindErr=bind_errors,
            MPJoinSynTxConnectErr=connect_errors,
        )
        self.server.must_count(
            MPJoinSynRx=answered,
            MPJoinAckRx=subflows,
            MPJoinAckHMacFailure=0,
            MPJoinRejected=rejected,
            MPJoinNoTokenFound=0,
            MPJoinAckNoMPJoin=0,
            MPJoinNotEstablished=0,
        )
        self.must_not_fall_back()

    def must_announce(self, addresses: int, *, by: CaseHost | None = None) -> None:
        """``by``, the server, announced this many addresses, perhaps repeatedly, and its peer echoed each."""
        announcer, peer = self._sides(by or self.server.host)
        repeated = at_least(addresses) if addresses else exactly(0)
        announcer.must_count(AddAddrTx=repeated, EchoAdd=addresses, AddAddrTxDrop=0)
        peer.must_count(AddAddr=repeated, EchoAddTx=repeated, AddAddrDrop=0)

    def must_remove(self, *, by: CaseHost, addresses: int, subflows: int) -> None:
        """``by`` withdrew addresses, its peer heard of each; ``by`` closed the subflows that used them."""
        remover, peer = self._sides(by)
        remover.must_count(RmAddrTx=addresses, RmSubflow=subflows)
        peer.must_count(RmAddr=addresses, RmAddrDrop=0)

    def must_remove_at_once(self, subflows: int) -> None:
        """Both hosts were flushed: each subflow was removed by one of them, or by both before they heard."""
        removed = sum(side.delta().get("MPTcpExtRmSubflow", 0) for side in (self.client, self.server))
        self.client.verdict.must_be_within(
            "RmSubflow of both hosts", between(subflows, 2 * subflows), removed
        )

    def must_join_at_ports(self, subflows: int) -> None:
        """So many addresses were announced with a port, and so many joins went there."""
        announced = at_least(subflows) if subflows else exactly(0)
        self.client.must_count(PortAdd=announced, MPJoinPortSynAckRx=subflows)
        self.server.must_count(
            MPJoinPortSynRx=subflows, MPJoinPortAckRx=subflows, MismatchPortSynRx=0, MismatchPortAckRx=0
        )

    def must_prioritise(
        self, *, sent_by_client: int, sent_by_server: int, joined_as_backup: int, answered_as_backup: int
    ) -> None:
        """MP_PRIO of both ends, and the backup flags of the joins' SYN and SYN/ACK."""
        self.client.must_count(
            MPPrioTx=sent_by_client, MPPrioRx=sent_by_server, MPJoinSynAckBackupRx=answered_as_backup
        )
        self.server.must_count(
            MPPrioTx=sent_by_server, MPPrioRx=sent_by_client, MPJoinSynBackupRx=joined_as_backup
        )

    def must_fastclose(self, *, by: CaseHost) -> None:
        """``by`` ended the connection with MP_FASTCLOSE in a reset, and its peer understood."""
        closer, peer = self._sides(by)
        closer.must_count(MPFastcloseTx=1, MPFastcloseRx=0, MPRstTx=at_least(1))
        peer.must_count(MPFastcloseTx=0, MPFastcloseRx=1, MPRstRx=at_least(1))

    def must_not_reset(self) -> None:
        """No subflow was reset with MP_TCPRST."""
        self.client.must_count(MPRstTx=0, MPRstRx=0)
        self.server.must_count(MPRstTx=0, MPRstRx=0)

    def _sides(self, host: CaseHost) -> tuple[HostMeasurement, HostMeasurement]:
        """The measurement of ``host``, and of its peer."""
        if host is self.client.host:
            return self.client, self.server
        return self.server, self.client


class HostMeasurement:
    """What happened to the counters of one host."""

    def __init__(self, verdict: Verdict, host: CaseHost) -> None:
        self.host = host
        self.before: dict[str, int] = {}
        self.after: dict[str, int] = {}
        self.verdict = verdict

    def start(self) -> None:
        self.before = self.host.agent.counters()

    def stop(self) -> None:
        self.after = self.host.agent.counters()

    def delta(self) -> dict[str, int]:
        return {name: value - self.before.get(name, 0) for name, value in self.after.items()}

    def must_count(self, **expected: int | Expectation) -> None:
        """Exactly these numbers, or numbers within these ranges; what the host's kernel lacks is skipped."""
        judge_counters(self.verdict, self.host.name, self.delta(), expected)

    def must_send_again(self) -> None:
        """Data went out once more on another subflow.

        For Linux what a subflow gives back that has become stale is not sent again but new.
        """
        if self.host.stack != "kernel":
            self.must_count(MPTCPRetrans=at_least(1))
            return
        delta = self.delta()
        times = delta.get("MPTcpExtMPTCPRetrans", 0) + delta.get("MPTcpExtSubflowStale", 0)
        self.verdict.must_be_within(f"{self.host.name} MPTCPRetrans, SubflowStale", at_least(1), times)

    def grown(self, name: str) -> int:
        """What a counter has gained since the start. Raises CapabilityError where there is none."""
        full_name = full_counter_name(name)
        return counted(self.host, full_name) - self.before.get(full_name, 0)
