"""Endpoints that go away while data flows."""

from __future__ import annotations

from testbed.selftests.case import case
from testbed.selftests.lab_view import CaseLab


@case(topology="four-links", groups=("remove", "subflow"))
def remove_single_subflow(lab: CaseLab) -> None:
    """The client withdraws the endpoint that it joined from: one REMOVE_ADDR, one subflow less."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth2", subflow=True, backup=True)
    with (
        lab.measure() as run,
        lab.slow_transfer() as transfer,
    ):
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.client.remove_endpoint("eth2")
        lab.wait_for_count(run.server, "RmAddr", 1)
    transfer.must_be_intact()
    run.must_join(1)
    run.must_remove(by=lab.client, addresses=1, subflows=1)
    run.must_not_reset()


@case(topology="four-links", groups=("remove", "signal"))
def remove_single_address(lab: CaseLab) -> None:
    """The server withdraws the address that it announced: one REMOVE_ADDR, one subflow less."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True, backup=True)
    with (
        lab.measure() as run,
        lab.slow_transfer() as transfer,
    ):
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.server.remove_endpoint("eth1")
        lab.wait_for_count(run.client, "RmAddr", 1)
    transfer.must_be_intact()
    run.must_join(1)
    run.must_announce(1)
    run.must_remove(by=lab.server, addresses=1, subflows=1)
    run.must_not_reset()


@case(topology="four-links", groups=("remove", "signal", "subflow"))
def remove_subflow_and_signal(lab: CaseLab) -> None:
    """Each side withdraws what it offered, one after the other; the first subflow carries on."""
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True, backup=True)
    lab.client.endpoint("eth2", subflow=True, backup=True)
    with (
        lab.measure() as run,
        lab.slow_transfer() as transfer,
    ):
        lab.wait_for_count(run.server, "MPJoinAckRx", 2)
        lab.server.remove_endpoint("eth1")
        lab.wait_for_count(run.client, "RmAddr", 1)
        lab.client.remove_endpoint("eth2")
        lab.wait_for_count(run.server, "RmAddr", 1)
    transfer.must_be_intact()
    run.must_join(2)
    run.must_announce(1)
    run.must_remove(by=lab.server, addresses=1, subflows=1)
    run.must_remove(by=lab.client, addresses=1, subflows=1)
    run.must_not_reset()


@case(topology="four-links", groups=("remove", "subflow"))
def remove_multiple_subflows(lab: CaseLab) -> None:
    """The client withdraws both endpoints that it joined from, one after the other."""
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2)
    lab.client.endpoint("eth1", subflow=True, backup=True)
    lab.client.endpoint("eth2", subflow=True, backup=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 2)
        lab.client.remove_endpoint("eth1")
        lab.wait_for_count(run.server, "RmAddr", 1)
        lab.client.remove_endpoint("eth2")
        lab.wait_for_count(run.server, "RmAddr", 2)
    transfer.must_be_intact()
    run.must_join(2)
    run.must_remove(by=lab.client, addresses=2, subflows=2)
    run.must_not_reset()


@case(topology="four-links", groups=("remove", "signal", "subflow"))
def remove_subflows_and_signal(lab: CaseLab) -> None:
    """The server withdraws its announced address, the client both its endpoints."""
    lab.server.limits(subflows=3)
    lab.client.limits(subflows=3, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True, backup=True)
    lab.client.endpoint("eth2", subflow=True, backup=True)
    lab.client.endpoint("eth3", subflow=True, backup=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 3)
        lab.server.remove_endpoint("eth1")
        lab.wait_for_count(run.client, "RmAddr", 1)
        lab.client.remove_endpoint("eth2")
        lab.wait_for_count(run.server, "RmAddr", 1)
        lab.client.remove_endpoint("eth3")
        lab.wait_for_count(run.server, "RmAddr", 2)
    transfer.must_be_intact()
    run.must_join(3)
    run.must_announce(1)
    run.must_remove(by=lab.server, addresses=1, subflows=1)
    run.must_remove(by=lab.client, addresses=2, subflows=2)
    run.must_not_reset()


@case(topology="four-links", groups=("remove", "signal", "limits"))
def remove_signal_subflow_with_limits(lab: CaseLab) -> None:
    """An address that was announced and never joined is withdrawn: the peer hears of it, no subflow ends."""
    lab.server.limits(subflows=0)
    lab.client.limits(subflows=0)
    lab.server.endpoint("eth1", signal=True, subflow=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.client, "AddAddr", 1)
        lab.server.remove_endpoint("eth1")
        lab.wait_for_count(run.client, "RmAddr", 1)
    transfer.must_be_intact()
    run.must_join(0)
    run.must_announce(1)
    run.must_remove(by=lab.server, addresses=1, subflows=0)
    run.must_not_reset()


@case(topology="four-links", groups=("remove", "signal"))
def remove_addresses(lab: CaseLab) -> None:
    """The server withdraws three announced addresses, one of them with an id of its own choice."""
    lab.server.limits(subflows=3, add_addr_accepted=3)
    lab.client.limits(subflows=3, add_addr_accepted=3)
    lab.server.endpoint("eth1", signal=True, backup=True, identifier=250)
    lab.server.endpoint("eth2", signal=True, backup=True)
    lab.server.endpoint("eth3", signal=True, backup=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 3)
        for count, interface in enumerate(("eth1", "eth2", "eth3"), 1):
            lab.server.remove_endpoint(interface)
            lab.wait_for_count(run.client, "RmAddr", count)
    transfer.must_be_intact()
    run.must_join(3)
    run.must_announce(3)
    run.must_remove(by=lab.server, addresses=3, subflows=3)
    run.must_not_reset()


@case(topology="four-links", groups=("remove", "subflow"))
def remove_id_0_subflow(lab: CaseLab) -> None:
    """The client withdraws the address that it opened the connection from; the joined subflow carries on."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth2", subflow=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.client.remove_initial_address()
        lab.wait_for_count(run.server, "RmAddr", 1)
    transfer.must_be_intact()
    run.must_join(1)
    run.must_remove(by=lab.client, addresses=1, subflows=1)
    run.must_not_reset()


@case(topology="four-links", groups=("remove", "signal"))
def remove_id_0_address(lab: CaseLab) -> None:
    """The server withdraws the address that the connection was opened to; the joined subflow carries on."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.server.remove_initial_address()
        lab.wait_for_count(run.client, "RmAddr", 1)
    transfer.must_be_intact()
    run.must_join(1)
    run.must_announce(1)
    run.must_remove(by=lab.server, addresses=1, subflows=1)
    run.must_not_reset()
