"""Laminar endpoints: each is used for one address that the peer announces (Linux 6.18 and later)."""

from __future__ import annotations

from testbed.errors import CapabilityError
from testbed.selftests.case import case
from testbed.selftests.cases.join_errors import FAMILIES, REJECT_JOINS
from testbed.selftests.lab_view import CaseLab
from testbed.selftests.transfer import Transfer


def _the_route_is_blocked(lab: CaseLab, *interfaces: str) -> None:
    """What the client would choose by itself for the server's second address is no use."""
    lab.filter("r2", REJECT_JOINS)
    lab.server.limits(subflows=4)
    lab.client.limits(subflows=4, add_addr_accepted=2)
    for interface in interfaces:
        lab.server.endpoint(interface, signal=True)


def must_know_laminar(transfer: Transfer) -> None:
    """Raises CapabilityError: an older kernel takes a flag that it does not know, and ignores it."""
    if not transfer.client_info().endp_laminar_max:
        raise CapabilityError("the client's kernel knows no laminar endpoints")


@case(topology="four-paths", groups=("laminar", "signal"), families=FAMILIES)
def without_a_laminar_endpoint(lab: CaseLab) -> None:
    """The route chooses the source, and the join is rejected."""
    _the_route_is_blocked(lab, "eth1")
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(0, attempted=1)
    run.must_announce(1)


@case(topology="four-paths", groups=("laminar", "signal"), families=FAMILIES)
def with_a_laminar_endpoint(lab: CaseLab) -> None:
    """The join comes from the laminar endpoint, on a path that is open."""
    _the_route_is_blocked(lab, "eth1")
    lab.client.endpoint_at(lab.client.address("eth2"), "laminar")
    with lab.measure() as run, lab.slow_transfer() as transfer:
        must_know_laminar(transfer)
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
    transfer.must_be_intact()
    run.must_join(1)
    run.must_announce(1)


@case(topology="four-paths", groups=("laminar", "signal"), families=FAMILIES)
def with_multiple_laminar_endpoints(lab: CaseLab) -> None:
    """Two addresses, and two laminar endpoints of their family: one each."""
    _the_route_is_blocked(lab, "eth1", "eth2")
    lab.client.endpoint_at(lab.client.address("eth2", 6 if lab.family == 4 else 4), "laminar")
    lab.client.endpoint_at(lab.client.address("eth2"), "laminar")
    lab.client.endpoint_at(lab.client.address("eth3"), "laminar")
    with lab.measure() as run, lab.slow_transfer() as transfer:
        must_know_laminar(transfer)
        lab.wait_for_count(run.server, "MPJoinAckRx", 2)
    transfer.must_be_intact()
    run.must_join(2)
    run.must_announce(2)


@case(topology="four-paths", groups=("laminar", "signal"), families=FAMILIES)
def single_laminar_endpoint(lab: CaseLab) -> None:
    """Two addresses and one laminar endpoint: the second address is left alone."""
    _the_route_is_blocked(lab, "eth1", "eth2")
    lab.client.endpoint_at(lab.client.address("eth2"), "laminar")
    with lab.measure() as run, lab.slow_transfer() as transfer:
        must_know_laminar(transfer)
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.wait_for_count(run.server, "EchoAdd", 2)
    transfer.must_be_intact()
    run.must_join(1)
    run.must_announce(2)


@case(topology="four-paths", groups=("laminar", "signal", "subflow"), families=FAMILIES)
def subflow_and_laminar_endpoints(lab: CaseLab) -> None:
    """An endpoint that is for both is used once; that of the first subflow is in use already."""
    _the_route_is_blocked(lab, "eth1")
    lab.client.endpoint_at(lab.client.address("eth0"), "subflow", "laminar")
    lab.client.endpoint_at(lab.client.address("eth2"), "subflow", "laminar")
    with lab.measure() as run, lab.slow_transfer() as transfer:
        must_know_laminar(transfer)
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
    transfer.must_be_intact()
    run.must_join(1)
    run.must_announce(1)
