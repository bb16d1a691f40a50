"""A network that changes while data flows: other impairments, boxes that are switched on and off."""

from __future__ import annotations

from testbed.middlebox.settings import DropMptcpSyns, Strip
from testbed.selftests.case import SLOW, case
from testbed.selftests.judgement import at_least
from testbed.selftests.lab_view import CaseLab, kib, mib

FAMILIES = ("4", "6")
EMULATED = {"emulated": "true", "rate": "20mbit"}


@case(topology="two-paths", groups=("events", "impairment", SLOW), families=FAMILIES, variables=EMULATED)
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
    groups=("events", "middlebox", "join", SLOW),
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


FADING = """[
  {at: 300ms, link: "client:eth1", impair: {"->": {rate: 20mbit, delay: 20ms, loss: 2%}}},
  {at: 600ms, link: "client:eth1", impair: {"->": {rate: 10mbit, delay: 60ms, loss: 10%}}},
  {at: 900ms, link: "client:eth1", set: down},
  {at: 1400ms, link: "client:eth1", impair: {}},
  {at: 1500ms, link: "client:eth1", set: up},
]"""


@case(
    topology="two-paths",
    groups=("events", "impairment", SLOW),
    families=FAMILIES,
    variables={"rate": "20mbit", "events": FADING},
)
def path_fades_by_the_timeline_of_its_topology(lab: CaseLab) -> None:
    """The second path becomes bad, goes and comes back, as the topology says: everything arrives."""
    lab.client.limits(subflows=1)
    lab.server.limits(subflows=1)
    lab.client.endpoint("eth1", subflow=True)
    with lab.measure() as run, lab.start_transfer(mib(6), 0) as transfer:
        lab.wait_until(1.6)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_not_fall_back()
    due = [event for event in lab.events if "(due at" in event.text]
    lab.verdict.must_be_equal("events that happened", 5, len(due))


@case(
    topology="two-paths", groups=("events", "address", SLOW), families=FAMILIES, variables={"rate": "20mbit"}
)
def address_replaced_by_another(lab: CaseLab) -> None:
    """The client's second address goes while a subflow uses it, another one comes and is joined from."""
    lab.client.limits(subflows=2)
    lab.server.limits(subflows=2)
    lab.client.endpoint("eth1", subflow=True)
    old = lab.client.address("eth1")
    new = {4: "10.0.3.77", 6: "fd00:0:0:3::77"}[lab.family]
    with lab.measure() as run, lab.start_transfer(mib(6), 0) as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.wait_for_received(transfer, lab.server, mib(1))
        lab.remove_address("client", "eth1", old)
        lab.client.remove_endpoint("eth1")
        lab.add_address("client", "eth1", f"{new}/{24 if lab.family == 4 else 64}")
        lab.client.endpoint("eth1", subflow=True)
        lab.wait_for_count(run.server, "MPJoinAckRx", 2)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_not_fall_back()
    run.client.must_count(MPJoinSynTx=at_least(2), MPJoinSynAckRx=2)


@case(topology="roaming", groups=("events", "address"), families=FAMILIES, variables={"rate": "20mbit"})
def host_moved_to_another_network(lab: CaseLab) -> None:
    """The client's Wi-Fi goes from one network to another, with another address; LTE carries on meanwhile."""
    lab.client.limits(subflows=2)
    lab.server.limits(subflows=2)
    lab.client.endpoint("wwan0", subflow=True)
    with lab.measure() as run, lab.start_transfer(mib(6), 0) as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.wait_for_received(transfer, lab.server, mib(1))
        lab.move("client", "wlan0", "office")
        lab.client.endpoint("wlan0", subflow=True)
        lab.wait_for_count(run.server, "MPJoinAckRx", 2)
        with lab.count_bytes(lab.client, "wlan0") as carried:
            lab.wait_for_received(transfer, lab.server, mib(6))
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_not_fall_back()
    lab.verdict.must_be_within("bytes on wlan0 after the move", at_least(kib(256)), carried["wlan0"])
