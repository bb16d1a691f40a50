"""The boxes in their other roles: on a joined path, towards the client, against signals of a path manager."""

from __future__ import annotations

from testbed.selftests.case import SLOW, case
from testbed.selftests.judgement import at_least
from testbed.selftests.lab_view import CaseLab, kib, mib
from testbed.selftests.measurement import Measurement

FAMILIES = ("4", "6")
GROUPS = ("box-role", "middlebox")


def _join_allowed(lab: CaseLab) -> None:
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth1", subflow=True)


def _joined(box: str) -> dict[str, str]:
    return {"second_middlebox": box}


def _goes_on(lab: CaseLab) -> Measurement:
    """The client tries to join; whatever becomes of that, data goes both ways as MPTCP."""
    _join_allowed(lab)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_not_fall_back()
    return run


def _joins_unharmed(lab: CaseLab) -> None:
    run = _goes_on(lab)
    run.must_join(1)
    run.must_not_reset()


@case(
    topology="two-paths",
    groups=(*GROUPS, SLOW),
    families=("6",),
    variables=_joined("split: {payload_bytes: 500}"),
)
def joined_path_splits_segments(lab: CaseLab) -> None:
    """Pieces with the mapping of the whole, on the joined subflow only."""
    _joins_unharmed(lab)


@case(topology="two-paths", groups=GROUPS, families=FAMILIES, variables=_joined("randomise_sequence: {}"))
def joined_path_randomises_sequence_numbers(lab: CaseLab) -> None:
    """Other sequence numbers on the joined subflow only."""
    _joins_unharmed(lab)


@case(
    topology="two-paths", groups=(*GROUPS, SLOW), families=("4",), variables=_joined("duplicate_options: {}")
)
def joined_path_repeats_options(lab: CaseLab) -> None:
    """MP_JOIN and DSS twice in a segment."""
    _joins_unharmed(lab)


@case(
    topology="two-paths",
    groups=GROUPS,
    families=FAMILIES,
    variables=_joined("drop_mptcp_syns: {subtypes: [mp_join]}"),
)
def joins_swallowed(lab: CaseLab) -> None:
    """A black hole for joins: the client goes on trying, the first subflow carries the data."""
    run = _goes_on(lab)
    run.client.must_count(MPJoinSynTx=1, MPJoinSynAckRx=0)
    run.server.must_count(MPJoinSynRx=0, MPJoinAckRx=0)


@case(
    topology="two-paths", groups=GROUPS, families=FAMILIES, variables=_joined('firewall: {direction: "<-"}')
)
def firewall_against_joins(lab: CaseLab) -> None:
    """A firewall that lets nothing in from the client's side."""
    run = _goes_on(lab)
    run.client.must_count(MPJoinSynTx=1, MPJoinSynAckRx=0)
    run.server.must_count(MPJoinSynRx=0, MPJoinAckRx=0)


@case(topology="two-paths", groups=(*GROUPS, SLOW), families=("4",), variables=_joined("firewall: {}"))
def firewall_lets_joins_out(lab: CaseLab) -> None:
    """A firewall that lets out what the client begins."""
    _joins_unharmed(lab)


@case(
    topology="two-paths",
    groups=GROUPS,
    families=FAMILIES,
    variables=_joined("strip: {subtypes: [dss], packets: [data, ack]}"),
)
def joined_path_strips_dss(lab: CaseLab) -> None:
    """Data without a mapping on one of two subflows: that subflow ends, the data does not (RFC 8684 §3.7)."""
    run = _goes_on(lab)
    run.server.must_count(MPJoinSynRx=1)


def _subflow_is_given_up(lab: CaseLab) -> None:
    _join_allowed(lab)
    with lab.measure() as run, lab.start_transfer(mib(3), 0) as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.server.must_count(DataCsumErr=at_least(1), MPRstTx=at_least(1))


@case(
    topology="two-paths",
    groups=(*GROUPS, "checksum", SLOW),
    families=("4",),
    variables=_joined('rewrite: {after_bytes: 1000, grow_by: 5, direction: "->"}')
    | {"checksums": "1", "rate": "20mbit"},
)
def payload_grows_on_joined_path(lab: CaseLab) -> None:
    """An ALG that puts bytes in: the checksum tells, and the subflow is reset (RFC 8684 §3.7)."""
    _subflow_is_given_up(lab)


@case(
    topology="two-paths",
    groups=(*GROUPS, "checksum", SLOW),
    families=("6",),
    variables=_joined('rewrite: {after_bytes: 1000, grow_by: -5, direction: "->"}')
    | {"checksums": "1", "rate": "20mbit"},
)
def payload_shrinks_on_joined_path(lab: CaseLab) -> None:
    """An ALG that takes bytes out."""
    _subflow_is_given_up(lab)


@case(
    topology="one-path",
    groups=(*GROUPS, "checksum", "fallback"),
    families=FAMILIES,
    variables={"middlebox": 'rewrite: {after_bytes: 20000, direction: "<-"}', "checksums": "1"},
)
def payload_rewritten_towards_the_client(lab: CaseLab) -> None:
    """As middlebox/payload-rewritten, with the roles exchanged."""
    # Small segments: Linux 6.18 makes a full one with the infinite mapping longer than the MTU, and stalls.
    with (
        lab.measure() as run,
        lab.start_transfer(0, kib(64), chunk_bytes=1000, pause_us=2000) as transfer,
    ):
        pass
    transfer.must_be_complete()
    run.client.must_count(DataCsumErr=1, MPFailTx=1)
    run.server.must_count(MPFailRx=1, InfiniteMapTx=1)


@case(
    topology="two-paths",
    groups=(*GROUPS, SLOW),
    families=FAMILIES,
    variables=_joined("reset: {after_bytes: 50000}") | {"rate": "20mbit"},
)
def joined_path_reset_both_ways(lab: CaseLab) -> None:
    """Both ends of the joined subflow are reset, each by data of the other."""
    _join_allowed(lab)
    with lab.measure() as run, lab.start_transfer(mib(2)) as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_not_fall_back()


@case(
    topology="two-paths",
    groups=(*GROUPS, "signal", SLOW),
    families=FAMILIES,
    variables={"middlebox": "strip: {subtypes: [remove_addr]}"},
)
def remove_addr_stripped(lab: CaseLab) -> None:
    """The peer never hears that an address is gone, only that its subflow is."""
    _join_allowed(lab)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.client.remove_endpoint("eth1")
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.client.must_count(RmAddrTx=1, RmSubflow=1)


@case(
    topology="two-paths",
    groups=(*GROUPS, "backup"),
    families=FAMILIES,
    variables={
        "middlebox": "strip: {subtypes: [mp_prio]}",
        "second_middlebox": "strip: {subtypes: [mp_prio]}",
    },
)
def mp_prio_stripped(lab: CaseLab) -> None:
    """The peer never hears that a subflow is to be a backup."""
    _join_allowed(lab)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.client.change_endpoint("eth1", backup=True)
        lab.wait_for_count(run.client, "MPPrioTx", 1)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.client.must_count(MPPrioTx=1)
    run.server.must_count(MPPrioRx=0)
