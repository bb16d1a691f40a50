"""Boxes in the middle that change or drop packets: MPTCP goes on, or goes back to TCP, and says why."""

from __future__ import annotations

from testbed.selftests.case import case
from testbed.selftests.judgement import at_least
from testbed.selftests.lab_view import CaseLab, kib, mib
from testbed.selftests.measurement import Measurement

FAMILIES = ("4", "6")


def _strip(subtypes: str, packets: str, rest: str = "") -> dict[str, str]:
    return {"middlebox": f"strip: {{subtypes: [{subtypes}], packets: [{packets}]{rest}}}"}


def _falls_back(lab: CaseLab) -> Measurement:
    """Data goes both ways all the same, as plain TCP."""
    with lab.measure() as run:
        transfer = lab.transfer(mib(1))
    transfer.must_be_intact()
    transfer.must_speak_plain_tcp()
    run.must_not_reset()
    return run


@case(
    topology="one-path",
    groups=("middlebox", "fallback"),
    families=FAMILIES,
    variables=_strip("mp_capable", "syn"),
)
def mp_capable_stripped_from_syn(lab: CaseLab) -> None:
    """The server never hears of MPTCP; the client sees it by the answer (RFC 8684 §3.7)."""
    run = _falls_back(lab)
    run.client.must_count(MPCapableSYNTX=1, MPCapableSYNACKRX=0, MPCapableFallbackSYNACK=1)
    run.server.must_count(MPCapableSYNRX=0, MPCapableACKRX=0, MPCapableFallbackACK=0)


@case(
    topology="one-path",
    groups=("middlebox", "fallback"),
    families=FAMILIES,
    variables=_strip("mp_capable", "syn_ack"),
)
def mp_capable_stripped_from_syn_ack(lab: CaseLab) -> None:
    """The client falls back by the answer, the server by the third ACK (RFC 8684 §3.7)."""
    run = _falls_back(lab)
    run.client.must_count(MPCapableSYNTX=1, MPCapableSYNACKRX=0, MPCapableFallbackSYNACK=1)
    run.server.must_count(MPCapableSYNRX=1, MPCapableACKRX=0, MPCapableFallbackACK=1)


@case(
    topology="one-path",
    groups=("middlebox", "fallback"),
    families=FAMILIES,
    variables=_strip("mp_capable", "third_ack"),
)
def mp_capable_stripped_from_third_ack(lab: CaseLab) -> None:
    """The server falls back by the third ACK, the client by the lack of DSS (RFC 8684 §3.7)."""
    run = _falls_back(lab)
    run.client.must_count(MPCapableSYNTX=1, MPCapableSYNACKRX=1)
    run.server.must_count(MPCapableSYNRX=1, MPCapableACKRX=0, MPCapableFallbackACK=1)


@case(
    topology="one-path",
    groups=("middlebox", "fallback"),
    families=FAMILIES,
    variables=_strip("dss", "data, ack"),
)
def dss_stripped(lab: CaseLab) -> None:
    """A handshake with MPTCP, and never a DSS: both ends fall back (RFC 8684 §3.7)."""
    run = _falls_back(lab)
    run.client.must_count(MPCapableSYNTX=1, MPCapableSYNACKRX=1)
    run.server.must_count(MPCapableSYNRX=1)


@case(
    topology="one-path",
    groups=("middlebox", "fallback"),
    families=FAMILIES,
    variables={"middlebox": "strip: {}"},
)
def everything_stripped(lab: CaseLab) -> None:
    """A box that removes every option of MPTCP."""
    run = _falls_back(lab)
    run.client.must_count(MPCapableSYNTX=1, MPCapableSYNACKRX=0, MPCapableFallbackSYNACK=1)
    run.server.must_count(MPCapableSYNRX=0, MPCapableACKRX=0, MPCapableFallbackACK=0)


@case(
    topology="one-path",
    groups=("middlebox", "fallback"),
    families=("4", "6"),
    variables={"middlebox": "drop_mptcp_syns: {}"},
)
def mptcp_syns_dropped(lab: CaseLab) -> None:
    """A black hole for MPTCP: after some SYNs (syn_retrans_before_tcp_fallback) the client goes without."""
    run = _falls_back(lab)
    run.client.must_count(MPCapableSYNTX=1, MPCapableSYNTXDrop=1, MPCapableSYNACKRX=0)
    run.server.must_count(MPCapableSYNRX=0, MPCapableACKRX=0)


def _stays_mptcp(lab: CaseLab) -> Measurement:
    with lab.measure() as run:
        transfer = lab.transfer(mib(1))
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_be_one_mptcp_connection()
    run.must_not_reset()
    return run


@case(
    topology="one-path",
    groups=("middlebox",),
    families=FAMILIES,
    variables={"middlebox": "split: {payload_bytes: 500}"},
)
def segments_split(lab: CaseLab) -> None:
    """Pieces of segments, each with the whole mapping: harmless (RFC 8684 §3.3)."""
    _stays_mptcp(lab)


@case(
    topology="one-path",
    groups=("middlebox", "checksum"),
    families=FAMILIES,
    variables={"middlebox": "split: {payload_bytes: 500}", "checksums": "1"},
)
def segments_split_with_checksums(lab: CaseLab) -> None:
    """A checksum covers the mapping, whatever segments carry it: harmless (RFC 8684 §3.3.1)."""
    run = _stays_mptcp(lab)
    run.client.must_count(DataCsumErr=0)
    run.server.must_count(DataCsumErr=0)


@case(
    topology="one-path",
    groups=("middlebox",),
    families=FAMILIES,
    variables={"middlebox": "randomise_sequence: {}"},
)
def sequence_numbers_randomised(lab: CaseLab) -> None:
    """Mappings count from the subflow's beginning, so other sequence numbers are harmless (RFC 8684 §3.3)."""
    _stays_mptcp(lab)


@case(
    topology="one-path",
    groups=("middlebox",),
    families=FAMILIES,
    variables={"middlebox": "duplicate_options: {}"},
)
def options_repeated(lab: CaseLab) -> None:
    """The same option twice says nothing new."""
    _stays_mptcp(lab)


@case(topology="one-path", groups=("middlebox",), families=FAMILIES, variables={"middlebox": "firewall: {}"})
def stateful_firewall(lab: CaseLab) -> None:
    """Only the client may open connections, as it does."""
    _stays_mptcp(lab)


@case(
    topology="one-path",
    groups=("middlebox", "checksum", "fallback"),
    families=FAMILIES,
    variables={"middlebox": 'rewrite: {after_bytes: 20000, direction: "->"}', "checksums": "1"},
)
def payload_rewritten(lab: CaseLab) -> None:
    """The checksum tells the server, MP_FAIL the client; on the only subflow both go on (RFC 8684 §3.7)."""
    # Small segments: Linux 6.18 makes a full one with the infinite mapping longer than the MTU, and stalls.
    with (
        lab.measure() as run,
        lab.start_transfer(kib(64), 0, chunk_bytes=1000, pause_us=2000) as transfer,
    ):
        pass
    transfer.must_be_complete()
    run.server.must_count(DataCsumErr=1, MPFailTx=1)
    run.client.must_count(MPFailRx=1, InfiniteMapTx=1)


@case(
    topology="two-paths",
    groups=("middlebox", "checksum"),
    families=FAMILIES,
    variables={
        "second_middlebox": 'rewrite: {after_bytes: 1000, direction: "->"}',
        "checksums": "1",
        "rate": "20mbit",
    },
)
def payload_rewritten_on_one_of_two_paths(lab: CaseLab) -> None:
    """The subflow whose checksum failed is reset, its data comes again on the other (RFC 8684 §3.7)."""
    _join_allowed(lab)
    with lab.measure() as run, lab.start_transfer(mib(4), 0) as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.server.must_count(DataCsumErr=1, MPFailTx=1, MPRstTx=at_least(1))
    run.client.must_count(MPFailRx=1, MPRstRx=at_least(1))


def _join_allowed(lab: CaseLab) -> None:
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)


def _joins_in_vain(lab: CaseLab) -> Measurement:
    _join_allowed(lab)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_not_fall_back()
    return run


def _strip_join(packets: str) -> dict[str, str]:
    return {"second_middlebox": f"strip: {{subtypes: [mp_join], packets: [{packets}]}}"}


@case(topology="two-paths", groups=("middlebox", "join"), families=FAMILIES, variables=_strip_join("syn"))
def mp_join_stripped_from_syn(lab: CaseLab) -> None:
    """What answers is plain TCP: the client resets it (RFC 8684 §3.7)."""
    run = _joins_in_vain(lab)
    run.client.must_count(MPJoinSynTx=1, MPJoinSynAckRx=0)
    run.server.must_count(MPJoinSynRx=0, MPJoinAckRx=0)


@case(topology="two-paths", groups=("middlebox", "join"), families=FAMILIES, variables=_strip_join("syn_ack"))
def mp_join_stripped_from_syn_ack(lab: CaseLab) -> None:
    """The client misses the answer to its join and resets the subflow (RFC 8684 §3.7)."""
    run = _joins_in_vain(lab)
    run.client.must_count(MPJoinSynTx=1, MPJoinSynAckRx=0)
    run.server.must_count(MPJoinSynRx=1, MPJoinAckRx=0)


@case(
    topology="two-paths", groups=("middlebox", "join"), families=FAMILIES, variables=_strip_join("third_ack")
)
def mp_join_stripped_from_third_ack(lab: CaseLab) -> None:
    """Without the HMAC the server lets nobody in (RFC 8684 §3.2)."""
    run = _joins_in_vain(lab)
    run.client.must_count(MPJoinSynTx=1, MPJoinSynAckRx=1)
    run.server.must_count(MPJoinSynRx=1, MPJoinAckRx=0)


@case(
    topology="two-paths",
    groups=("middlebox", "fallback", "signal"),
    families=FAMILIES,
    variables={"middlebox": "strip: {subtypes: [add_addr]}"},
)
def add_addr_stripped(lab: CaseLab) -> None:
    """Nobody joins. The announcement is left as an ACK without DSS: if it comes early, both fall back."""
    _join_allowed(lab)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.client.must_count(AddAddr=0, MPJoinSynTx=0)
    run.server.must_count(AddAddrTx=at_least(1), EchoAdd=0, MPJoinSynRx=0)


def _survives_the_reset(lab: CaseLab) -> None:
    _join_allowed(lab)
    with lab.measure() as run, lab.start_transfer(mib(2), 0) as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_not_fall_back()
    run.server.must_count(MPJoinAckRx=at_least(1))


@case(
    topology="two-paths",
    groups=("middlebox", "failure"),
    families=FAMILIES,
    variables={"second_middlebox": 'reset: {after_bytes: 50000, direction: "->"}', "rate": "20mbit"},
)
def second_path_reset(lab: CaseLab) -> None:
    """A box resets the joined subflow in the middle: the first carries on (RFC 8684 §3.6)."""
    _survives_the_reset(lab)


@case(
    topology="two-paths",
    groups=("middlebox", "failure"),
    families=FAMILIES,
    variables={"middlebox": 'reset: {after_bytes: 300000, direction: "->"}', "rate": "20mbit"},
)
def first_path_reset(lab: CaseLab) -> None:
    """A box resets the first subflow in the middle: the joined one carries on (RFC 8684 §3.6)."""
    _survives_the_reset(lab)
