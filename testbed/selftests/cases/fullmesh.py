"""Endpoints that are joined with every address of the peer, after the kernel's fullmesh tests."""

from __future__ import annotations

from testbed.selftests.case import case
from testbed.selftests.lab_view import CaseLab


@case(topology="four-links", groups=("fullmesh", "signal", "subflow"))
def fullmesh_2x1(lab: CaseLab) -> None:
    """Two endpoints of the client, and an address announced in the middle: four joins."""
    lab.server.limits(subflows=4)
    lab.client.limits(subflows=4, add_addr_accepted=1)
    lab.client.endpoint("eth1", subflow=True, fullmesh=True)
    lab.client.endpoint("eth2", subflow=True, fullmesh=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 2)
        lab.server.endpoint("eth1", signal=True)
        lab.wait_for_count(run.server, "MPJoinAckRx", 4)
    transfer.must_be_intact()
    run.must_join(4)
    run.must_announce(1)


@case(topology="four-links", groups=("fullmesh", "signal", "subflow"))
def fullmesh_1x1(lab: CaseLab) -> None:
    """The first address is a fullmesh endpoint too; another comes in the middle: three joins."""
    lab.server.limits(subflows=3, add_addr_accepted=1)
    lab.client.limits(subflows=3, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    lab.client.endpoint("eth0", subflow=True, fullmesh=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.client.endpoint("eth2", subflow=True, fullmesh=True)
        lab.wait_for_count(run.server, "MPJoinAckRx", 3)
    transfer.must_be_intact()
    run.must_join(3)
    run.must_announce(1)


@case(topology="four-links", groups=("fullmesh", "signal", "subflow"))
def fullmesh_1x2(lab: CaseLab) -> None:
    """Two fullmesh endpoints that come in the middle, with two addresses of the server: five joins."""
    lab.server.limits(subflows=5, add_addr_accepted=2)
    lab.client.limits(subflows=5, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.client.endpoint("eth2", subflow=True, fullmesh=True)
        lab.client.endpoint("eth3", subflow=True, fullmesh=True)
        lab.wait_for_count(run.server, "MPJoinAckRx", 5)
    transfer.must_be_intact()
    run.must_join(5)
    run.must_announce(1)


@case(topology="four-links", groups=("fullmesh", "signal", "subflow", "limits"))
def fullmesh_1x2_limited(lab: CaseLab) -> None:
    """As fullmesh_1x2, with room for one subflow less on both sides."""
    lab.server.limits(subflows=4, add_addr_accepted=2)
    lab.client.limits(subflows=4, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.client.endpoint("eth2", subflow=True, fullmesh=True)
        lab.client.endpoint("eth3", subflow=True, fullmesh=True)
        lab.wait_for_count(run.server, "MPJoinAckRx", 4)
    transfer.must_be_intact()
    run.must_join(4)
    run.must_announce(1)


@case(topology="four-links", groups=("fullmesh", "subflow"))
def set_fullmesh_flag(lab: CaseLab) -> None:
    """An endpoint becomes a fullmesh one: its subflow is closed and joined anew."""
    lab.server.limits(subflows=4, add_addr_accepted=4)
    lab.client.limits(subflows=4, add_addr_accepted=4)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        transfer.wait_until_part_arrived(0.1)
        lab.client.endpoint("eth2", subflow=True)
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.client.change_endpoint("eth2", fullmesh=True)
        lab.wait_for_count(run.server, "MPJoinAckRx", 2)
    transfer.must_be_intact()
    run.must_join(2)
    run.client.must_count(RmSubflow=1)


@case(topology="four-links", groups=("fullmesh", "subflow"))
def set_nofullmesh_flag(lab: CaseLab) -> None:
    """A fullmesh endpoint becomes an ordinary one: its subflow is closed and joined anew."""
    lab.server.limits(subflows=4, add_addr_accepted=4)
    lab.client.limits(subflows=4, add_addr_accepted=4)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        transfer.wait_until_part_arrived(0.1)
        lab.client.endpoint("eth2", subflow=True, fullmesh=True)
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.client.change_endpoint("eth2")
        lab.wait_for_count(run.server, "MPJoinAckRx", 2)
    transfer.must_be_intact()
    run.must_join(2)
    run.client.must_count(RmSubflow=1)


@case(topology="four-links", groups=("fullmesh", "backup", "subflow"))
def set_backup_fullmesh_flags(lab: CaseLab) -> None:
    """Both flags at once: the subflow is joined anew, as backup."""
    lab.server.limits(subflows=4, add_addr_accepted=4)
    lab.client.limits(subflows=4, add_addr_accepted=4)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        transfer.wait_until_part_arrived(0.1)
        lab.client.endpoint("eth2", subflow=True)
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.client.change_endpoint("eth2", backup=True, fullmesh=True)
        lab.wait_for_count(run.server, "MPJoinAckRx", 2)
    transfer.must_be_intact()
    run.must_join(2)
    run.must_prioritise(sent_by_client=1, sent_by_server=0, joined_as_backup=1, answered_as_backup=0)
    run.client.must_count(RmSubflow=1)


@case(topology="four-links", groups=("fullmesh", "backup", "subflow"))
def set_nobackup_nofullmesh_flags(lab: CaseLab) -> None:
    """Both flags are taken back at once: the subflow is joined anew, as an ordinary one."""
    lab.server.limits(subflows=4, add_addr_accepted=4)
    lab.client.limits(subflows=4, add_addr_accepted=4)
    lab.client.endpoint("eth1", subflow=True, backup=True, fullmesh=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.client.change_endpoint("eth1")
        lab.wait_for_count(run.server, "MPJoinAckRx", 2)
    transfer.must_be_intact()
    run.must_join(2)
    run.must_prioritise(sent_by_client=1, sent_by_server=0, joined_as_backup=1, answered_as_backup=0)
    run.client.must_count(RmSubflow=1)
