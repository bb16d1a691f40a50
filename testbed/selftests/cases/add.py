"""Endpoints that are added while data flows."""

from __future__ import annotations

from testbed.selftests.case import case
from testbed.selftests.lab_view import CaseLab


@case(topology="four-links", groups=("add", "subflow"))
def add_single_subflow(lab: CaseLab) -> None:
    """The client gets an endpoint in the middle of the transfer, and joins from it."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        transfer.wait_until_part_arrived(0.1)
        lab.wait_for_connections(lab.client, 1)
        lab.client.endpoint("eth2", subflow=True)
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
    transfer.must_be_intact()
    run.must_join(1)
    lab.wait_for_connections(lab.client, 0)


@case(topology="four-links", groups=("add", "signal"))
def add_signal_address(lab: CaseLab) -> None:
    """The server gets an address to announce in the middle of the transfer; the client joins it."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        transfer.wait_until_part_arrived(0.1)
        lab.wait_for_connections(lab.server, 1)
        lab.server.endpoint("eth1", signal=True)
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
    transfer.must_be_intact()
    run.must_join(1)
    run.must_announce(1)
    lab.wait_for_connections(lab.server, 0)


@case(topology="four-links", groups=("add", "subflow"))
def add_multiple_subflows(lab: CaseLab) -> None:
    """The client gets two endpoints in the middle of the transfer, and joins from both."""
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        transfer.wait_until_part_arrived(0.1)
        lab.wait_for_connections(lab.client, 1)
        lab.client.endpoint("eth2", subflow=True)
        lab.client.endpoint("eth3", subflow=True)
        lab.wait_for_count(run.server, "MPJoinAckRx", 2)
    transfer.must_be_intact()
    run.must_join(2)
    lab.wait_for_connections(lab.client, 0)


@case(topology="four-links", groups=("add", "signal"))
def add_multiple_addresses(lab: CaseLab) -> None:
    """The server gets two addresses to announce in the middle of the transfer; the client joins both."""
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2, add_addr_accepted=2)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        transfer.wait_until_part_arrived(0.1)
        lab.wait_for_connections(lab.server, 1)
        lab.server.endpoint("eth2", signal=True)
        lab.server.endpoint("eth3", signal=True)
        lab.wait_for_count(run.server, "MPJoinAckRx", 2)
    transfer.must_be_intact()
    run.must_join(2)
    run.must_announce(2)
    lab.wait_for_connections(lab.server, 0)
