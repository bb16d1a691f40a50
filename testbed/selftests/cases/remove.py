"""Endpoints that go away while data flows."""

from __future__ import annotations

from testbed.selftests.case import case
from testbed.selftests.lab_view import CaseLab, kib


@case(topology="four-links", groups=("remove", "subflow"))
def remove_single_subflow(lab: CaseLab) -> None:
    """The client withdraws the endpoint that it joined from: one REMOVE_ADDR, one subflow less."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth2", subflow=True, backup=True)
    with (
        lab.measure() as run,
        lab.start_transfer(kib(256), chunk_bytes=kib(4), pause_us=10_000) as transfer,
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
        lab.start_transfer(kib(256), chunk_bytes=kib(4), pause_us=10_000) as transfer,
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
        lab.start_transfer(kib(256), chunk_bytes=kib(4), pause_us=10_000) as transfer,
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
