"""MIB counters under the kernel's names, as ``nstat`` prints them.

Events are counted where they happen, by the rules of the Linux kernel. ``MPTcpExtMPCurrEstab`` and
``TcpCurrEstab`` are gauges: the only ones that go down.
"""

from __future__ import annotations

from collections.abc import Iterator

MPTCP_NAMES: tuple[str, ...] = tuple(
    "MPTcpExt" + name
    for name in """
    MPCapableSYNRX MPCapableSYNTX MPCapableSYNACKRX MPCapableACKRX MPCapableFallbackACK
    MPCapableFallbackSYNACK MPCapableSYNTXDrop MPCapableSYNTXDisabled MPCapableEndpAttempt
    MPFallbackTokenInit MPTCPRetrans MPJoinNoTokenFound MPJoinSynRx MPJoinSynBackupRx MPJoinSynAckRx
    MPJoinSynAckBackupRx MPJoinSynAckHMacFailure MPJoinAckRx MPJoinAckHMacFailure MPJoinRejected MPJoinSynTx
    MPJoinSynTxCreatSkErr MPJoinSynTxBindErr MPJoinSynTxConnectErr DSSNotMatching DSSCorruptionFallback
    DSSCorruptionReset InfiniteMapTx InfiniteMapRx DSSNoMatchTCP DataCsumErr OFOQueueTail OFOQueue OFOMerge
    NoDSSInWindow DuplicateData AddAddr AddAddrTx AddAddrTxDrop EchoAdd EchoAddTx EchoAddTxDrop PortAdd
    AddAddrDrop MPJoinPortSynRx MPJoinPortSynAckRx MPJoinPortAckRx MismatchPortSynRx MismatchPortAckRx
    RmAddr RmAddrDrop RmAddrTx RmAddrTxDrop RmSubflow MPPrioTx MPPrioRx MPFailTx MPFailRx MPFastcloseTx
    MPFastcloseRx MPRstTx MPRstRx SubflowStale SubflowRecover SndWndShared RcvWndShared RcvWndConflictUpdate
    RcvWndConflict MPCurrEstab Blackhole MPCapableDataFallback MD5SigFallback DssFallback
    SimultConnectFallback FallbackFailed WinProbe
    """.split()
)

TCP_NAMES: tuple[str, ...] = tuple(
    "Tcp" + name
    for name in """
    ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts
    InCsumErrors
    """.split()
)

TCP_EXTENSION_NAMES: tuple[str, ...] = tuple(
    "TcpExt" + name
    for name in """
    SyncookiesSent SyncookiesRecv SyncookiesFailed EmbryonicRsts
    TW TWRecycled PAWSTimewait DelayedACKs DelayedACKLost ListenOverflows ListenDrops TCPPureAcks
    TCPRenoRecovery TCPSackRecovery
    TCPLossUndo TCPLostRetransmit TCPFastRetrans TCPSlowStartRetrans TCPTimeouts TCPSackRecoveryFail
    TCPRcvCollapsed TCPSackFailures TCPRenoFailures TCPLossFailures TCPRenoRecoveryFail
    TCPSACKReneging TCPSACKReorder TCPRenoReorder TCPTSReorder TCPFullUndo TCPPartialUndo TCPDSACKUndo
    TCPLossProbes TCPLossProbeRecovery TCPSpuriousRTOs TCPDSACKIgnoredDubious TCPDSACKRecvSegs
    TCPBacklogCoalesce TCPDSACKOldSent TCPDSACKOfoSent TCPDSACKRecv TCPDSACKOfoRecv TCPAbortOnData
    TCPAbortOnClose TCPAbortOnTimeout TCPAbortOnLinger PAWSActive PAWSEstab PAWSOldAck TCPOFOQueue TCPOFODrop
    TCPOFOMerge TCPMTUPFail TCPMTUPSuccess TCPChallengeACK TCPSYNChallenge TCPSynRetrans
    TCPOrigDataSent TCPKeepAlive TCPDelivered
    TCPDeliveredCE TCPZeroWindowDrop TCPWinProbe TCPFromZeroWindowAdv TCPToZeroWindowAdv TCPWantZeroWindowAdv
    TCPHystartDelayDetect TCPACKSkippedSynRecv TCPACKSkippedPAWS TCPACKSkippedSeq TCPACKSkippedFinWait2
    TCPACKSkippedTimeWait TCPACKSkippedChallenge TCPRcvQDrop
    TCPFastOpenActive TCPFastOpenActiveFail TCPFastOpenPassive TCPFastOpenPassiveFail
    TCPFastOpenListenOverflow TCPFastOpenCookieReqd TCPFastOpenBlackhole TCPFastOpenPassiveAltKey
    TCPTimeWaitOverflow TCPDeferAcceptDrop TCPReqQFullDoCookies TCPReqQFullDrop OutOfWindowIcmps
    """.split()
)

IP_NAMES: tuple[str, ...] = tuple(
    """
    IpInReceives IpInHdrErrors IpInAddrErrors IpInUnknownProtos IpInDiscards IpInDelivers IpOutRequests
    IpOutDiscards IpOutNoRoutes Ip6InReceives Ip6InHdrErrors Ip6InAddrErrors Ip6InUnknownProtos Ip6InDiscards
    Ip6InDelivers Ip6OutRequests Ip6OutDiscards Ip6OutNoRoutes IcmpInMsgs IcmpInErrors IcmpInCsumErrors
    IcmpOutMsgs IcmpOutEchos IcmpInEchoReps IcmpInEchos IcmpOutEchoReps IcmpInDestUnreachs Icmp6InMsgs
    Icmp6InErrors Icmp6OutMsgs
    Icmp6OutEchos Icmp6InEchoReplies Icmp6InEchos Icmp6OutEchoReplies Icmp6InDestUnreachs
    Icmp6InNeighborSolicits Icmp6InNeighborAdvertisements
    Icmp6OutNeighborSolicits Icmp6OutNeighborAdvertisements
    IpReasmTimeout IpReasmReqds IpReasmOKs IpReasmFails Ip6ReasmTimeout Ip6ReasmReqds Ip6ReasmOKs
    Ip6ReasmFails IpExtReasmOverlaps IcmpOutErrors IcmpOutRateLimitGlobal IcmpOutRateLimitHost
    IcmpOutDestUnreachs IcmpOutTimeExcds IcmpOutParmProbs Icmp6OutErrors Icmp6OutRateLimitHost
    Icmp6OutDestUnreachs Icmp6OutTimeExcds Icmp6OutParmProblems
    IpExtInNoECTPkts IpExtInECT1Pkts IpExtInECT0Pkts IpExtInCEPkts Ip6InNoECTPkts Ip6InECT1Pkts Ip6InECT0Pkts
    Ip6InCEPkts
    """.split()
)

DROP_NAMES: tuple[str, ...] = tuple(
    "StackDrop" + name
    for name in """
    MalformedEthernet MalformedArp MalformedIp MalformedIcmp MalformedTcp MalformedOption BadChecksum
    NotForUs UnknownProtocol Fragment NoRoute NeighbourUnresolved NeighbourQueueFull NoSocket
    ListenQueueFull OutOfWindow BadAcknowledgement Paws ReceiveQueueFull UnexpectedState TransmitQueueFull
    DeviceFull Martian InterfaceDown TooBig RateLimited IgnoredIcmp
    """.split()
)
"""Packets that this stack dropped, by reason; the kernel has no counterpart in its MIB."""

ALL_NAMES: tuple[str, ...] = IP_NAMES + TCP_NAMES + TCP_EXTENSION_NAMES + MPTCP_NAMES + DROP_NAMES


class Counters:
    """All counters of one host. An unknown name is a programming error and raises KeyError."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[str, int] = dict.fromkeys(ALL_NAMES, 0)

    def increment(self, name: str, amount: int = 1) -> None:
        self._values[name] += amount

    def decrement(self, name: str) -> None:
        """For the gauges only."""
        self._values[name] -= 1

    def __getitem__(self, name: str) -> int:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def snapshot(self) -> dict[str, int]:
        """Every counter, zeros included, in MIB order."""
        return dict(self._values)
