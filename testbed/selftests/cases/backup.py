"""Backup subflows and changes of priority (MP_PRIO), after the kernel's backup tests."""

from __future__ import annotations

from testbed.selftests.case import case
from testbed.selftests.cases.ports import WITHOUT_TIMESTAMPS
from testbed.selftests.lab_view import CaseLab


@case(topology="four-links", groups=("backup", "subflow"))
def single_subflow_backup(lab: CaseLab) -> None:
    """A subflow is joined as backup, and then is one no longer."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth2", subflow=True, backup=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.client.change_endpoint("eth2")
        lab.wait_for_count(run.server, "MPPrioRx", 1)
    transfer.must_be_intact()
    run.must_join(1)
    run.must_prioritise(sent_by_client=1, sent_by_server=0, joined_as_backup=1, answered_as_backup=0)


@case(topology="four-links", groups=("backup", "signal"))
def single_address_backup(lab: CaseLab) -> None:
    """The server answers the join to its backup address as backup, and then makes it an ordinary one."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True, backup=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.server.change_endpoint("eth1")
        lab.wait_for_count(run.client, "MPPrioRx", 1)
    transfer.must_be_intact()
    run.must_join(1)
    run.must_announce(1)
    run.must_prioritise(sent_by_client=0, sent_by_server=1, joined_as_backup=0, answered_as_backup=1)


@case(topology="four-links", groups=("backup", "signal"))
def single_address_switch_to_backup(lab: CaseLab) -> None:
    """An ordinary subflow is made a backup by the side whose address it uses."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.server.change_endpoint("eth1", backup=True)
        lab.wait_for_count(run.client, "MPPrioRx", 1)
    transfer.must_be_intact()
    run.must_join(1)
    run.must_announce(1)
    run.must_prioritise(sent_by_client=0, sent_by_server=1, joined_as_backup=0, answered_as_backup=0)


@case(topology="four-links", groups=("backup", "signal", "port"), variables=WITHOUT_TIMESTAMPS)
def single_address_with_port_backup(lab: CaseLab) -> None:
    """As single_address_backup, for an address with a port of its own."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True, backup=True, port=10100)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.server.change_endpoint("eth1")
        lab.wait_for_count(run.client, "MPPrioRx", 1)
    transfer.must_be_intact()
    run.must_join(1)
    run.must_announce(1)
    run.must_prioritise(sent_by_client=0, sent_by_server=1, joined_as_backup=0, answered_as_backup=1)


@case(topology="four-links", groups=("backup",))
def mpc_backup(lab: CaseLab) -> None:
    """The first subflow's own address is a backup endpoint: the peer is told once the connection is up."""
    lab.client.endpoint("eth0", subflow=True, backup=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPPrioRx", 1)
    transfer.must_be_intact()
    run.must_join(0)
    run.must_prioritise(sent_by_client=1, sent_by_server=0, joined_as_backup=0, answered_as_backup=0)


SECOND_BY_THE_FIRST_LINK = {
    "client_routes": '[{to: 10.0.2.1/32, via: 10.0.1.1}, {to: "fd00:0:0:2::1/128", via: "fd00:0:0:1::1"}]'
}
"""The client's way to the server's second address."""


@case(topology="four-links", groups=("backup", "signal"), variables=SECOND_BY_THE_FIRST_LINK)
def mpc_backup_both_sides(lab: CaseLab) -> None:
    """Both addresses of the first subflow are backup endpoints, and so are the joins that use one of them."""
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2, add_addr_accepted=1)
    lab.server.endpoint("eth0", signal=True, backup=True)
    lab.client.endpoint("eth0", subflow=True, backup=True)
    lab.client.endpoint("eth1", subflow=True)
    lab.server.endpoint("eth1", signal=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 2)
        lab.wait_for_count(run.server, "MPPrioRx", 1)
        lab.wait_for_count(run.client, "MPPrioRx", 1)
    transfer.must_be_intact()
    run.must_join(2)
    run.must_prioritise(sent_by_client=1, sent_by_server=1, joined_as_backup=1, answered_as_backup=1)


@case(topology="four-links", groups=("backup",))
def mpc_switch_to_backup(lab: CaseLab) -> None:
    """The first subflow becomes a backup in the middle of the transfer."""
    lab.client.endpoint("eth0", subflow=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        transfer.wait_until_part_arrived(0.1)
        lab.client.change_endpoint("eth0", backup=True)
        lab.wait_for_count(run.server, "MPPrioRx", 1)
    transfer.must_be_intact()
    run.must_join(0)
    run.must_prioritise(sent_by_client=1, sent_by_server=0, joined_as_backup=0, answered_as_backup=0)


@case(topology="four-links", groups=("backup",))
def mpc_switch_to_backup_both_sides(lab: CaseLab) -> None:
    """Both ends make the first subflow a backup."""
    lab.server.endpoint("eth0", subflow=True)
    lab.client.endpoint("eth0", subflow=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        transfer.wait_until_part_arrived(0.1)
        lab.server.change_endpoint("eth0", backup=True)
        lab.client.change_endpoint("eth0", backup=True)
        lab.wait_for_count(run.server, "MPPrioRx", 1)
        lab.wait_for_count(run.client, "MPPrioRx", 1)
    transfer.must_be_intact()
    run.must_join(0)
    run.must_prioritise(sent_by_client=1, sent_by_server=1, joined_as_backup=0, answered_as_backup=0)
