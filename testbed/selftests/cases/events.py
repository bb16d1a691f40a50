"""A network that changes while data flows: other impairments, boxes that are switched on and off."""

from __future__ import annotations

from testbed.middlebox.settings import DropMptcpSyns, Strip
from testbed.selftests.case import case
from testbed.selftests.judgement import at_least
from testbed.selftests.lab_view import CaseLab, mib

FAMILIES = ("4", "6")
EMULATED = {"emulated": "true", "rate": "20mbit"}


@case(topology="two-paths", groups=("events", "impairment"), families=FAMILIES, variables=EMULATED)
def path_becomes_lossy_and_recovers(lab: CaseLab) -> None:
    """One of two paths loses a fifth of its packets for a second: everything arrives."""
    lab.client.limits(subflows=1)
    lab.server.limits(subflows=1)
    lab.client.endpoint("eth1", subflow=True)
    with lab.measure() as run, lab.start_transfer(mib(4), 0) as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        began = lab.now()
        lab.impair("client", "eth1", "loss 20% delay 10ms", received=False)
        lab.at(began + 1.0, lambda: lab.impair("client", "eth1", "none"))
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_not_fall_back()


@case(
    topology="one-path",
    groups=("events", "middlebox", "fallback"),
    families=FAMILIES,
    variables={"emulated": "true"},
)
def box_between_connections(lab: CaseLab) -> None:
    """A box that removes options is there for the second of three connections: that one is plain TCP."""
    with lab.measure() as run:
        first = lab.transfer(mib(1))
        lab.set_middlebox("client", "eth0", Strip())
        second = lab.transfer(mib(1))
        lab.set_middlebox("client", "eth0")
        third = lab.transfer(mib(1))
    for transfer in (first, second, third):
        transfer.must_be_intact()
    first.must_speak_mptcp()
    second.must_speak_plain_tcp()
    third.must_speak_mptcp()
    run.client.must_count(MPCapableSYNTX=3, MPCapableSYNACKRX=2, MPCapableFallbackSYNACK=1)
    run.server.must_count(MPCapableSYNRX=2, MPCapableACKRX=2)


@case(
    topology="two-paths",
    groups=("events", "middlebox", "join"),
    families=FAMILIES,
    variables=EMULATED,
)
def joins_blocked_until_the_box_goes(lab: CaseLab) -> None:
    """A box swallows joins on the second path; once it is off, the join comes through."""
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2)
    lab.set_middlebox("client", "eth1", DropMptcpSyns())
    lab.client.endpoint("eth1", subflow=True)
    with lab.measure() as run, lab.start_transfer(mib(8), 0) as transfer:
        lab.wait_for_count(run.client, "MPJoinSynTx", 1)
        lab.wait_for_received(transfer, lab.server, mib(2))
        lab.set_middlebox("client", "eth1")
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.client.must_count(MPJoinSynTx=at_least(1), MPJoinSynAckRx=1)
    run.server.must_count(MPJoinSynRx=1, MPJoinAckRx=1)
