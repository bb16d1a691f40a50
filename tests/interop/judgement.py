"""What a transfer over bad links may leave in the counters of both ends; see docs/interop.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from testbed.selftests.judgement import FALLBACK_NAMES

NEVER = tuple(
    "MPTcpExt" + name
    for name in (
        *FALLBACK_NAMES,
        "DataCsumErr",
        "MPFailTx",
        "MPFailRx",
        "DSSCorruptionReset",
        "DSSNotMatching",
        "DSSNoMatchTCP",
        "MPJoinAckHMacFailure",
        "MPJoinSynAckHMacFailure",
        "MPJoinRejected",
        "MPFastcloseTx",
        "MPFastcloseRx",
        "FallbackFailed",
    )
)
"""Damage that no network does, and ends that nobody asked for."""


def problems(client: Mapping[str, int], server: Mapping[str, int], *, checksum: bool) -> list[str]:
    """Empty when all is well. A reset needs its excuse, which the counters of both ends tell."""
    return [
        *_problems_of("client", client, server, checksum=checksum),
        *_problems_of("server", server, client, checksum=checksum),
    ]


def _problems_of(
    side: str, own: Mapping[str, int], peer: Mapping[str, int], *, checksum: bool
) -> Iterator[str]:
    for name in NEVER:
        if own.get(name):
            yield f"{side}: {name} is {own[name]}"
    for name, limit, reason in (
        ("TcpExtTCPAbortOnTimeout", 0, "no path was dead"),
        # RFC 8684 §3.3.3: what a subflow still has to deliver after its copy came in by another one finds the
        # connection closed. Without a copy that cannot be.
        ("TcpExtTCPAbortOnData", _times_sent_again(peer), "the peer sent nothing twice"),
        ("TcpExtTCPAbortOnClose", _times_sent_again(peer) * checksum, "nothing can have been left unread"),
        ("MPTcpExtMPRstTx", own.get("TcpExtTCPAbortOnClose", 0), "it was for no subflow left unread"),
        ("MPTcpExtMPRstRx", _aborts(peer), "the peer refused no late data"),
        ("TcpEstabResets", _aborts(peer) + _aborts(own), "neither end refused late data"),
    ):
        if own.get(name, 0) > limit:
            yield f"{side}: {name} is {own[name]}, and {reason}"


def _times_sent_again(counters: Mapping[str, int]) -> int:
    return counters.get("MPTcpExtMPTCPRetrans", 0)


def _aborts(counters: Mapping[str, int]) -> int:
    """Subflows that refused data because the connection was over; Linux counts them at these places."""
    return counters.get("TcpExtTCPAbortOnData", 0) + counters.get("TcpExtTCPAbortOnClose", 0)
