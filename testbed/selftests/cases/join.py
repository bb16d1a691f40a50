"""Joins from the client's endpoints and to announced addresses, after the kernel's mptcp_join tests."""

from __future__ import annotations

from testbed.selftests.case import case
from testbed.selftests.lab_view import CaseLab


@case(topology="four-links", groups=("join", "subflow"))
def no_join(lab: CaseLab) -> None:
    """Without endpoints nobody joins, whatever the limits allow."""
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    run.must_join(0)
    run.must_announce(0)


@case(topology="four-links", groups=("join", "subflow"))
def single_subflow(lab: CaseLab) -> None:
    """The client joins from its one further endpoint."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth2", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    run.must_join(1)


@case(topology="four-links", groups=("join", "subflow"))
def multiple_subflows(lab: CaseLab) -> None:
    """The client joins from both of its further endpoints."""
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2)
    lab.client.endpoint("eth2", subflow=True)
    lab.client.endpoint("eth1", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    run.must_join(2)


@case(topology="four-links", groups=("join", "subflow", "limits"))
def single_subflow_limited_by_client(lab: CaseLab) -> None:
    """The client has an endpoint, and a limit that forbids using it."""
    lab.server.limits(subflows=0)
    lab.client.limits(subflows=0)
    lab.client.endpoint("eth2", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    run.must_join(0)


@case(topology="four-links", groups=("join", "subflow", "limits"))
def single_subflow_limited_by_server(lab: CaseLab) -> None:
    """The client tries; the server answers the SYN and rejects the third packet."""
    lab.server.limits(subflows=0)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth2", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    run.must_join(0, rejected=1)


@case(topology="four-links", groups=("join", "subflow", "limits"))
def multiple_subflows_limited_by_server(lab: CaseLab) -> None:
    """The client tries twice; the server takes one and rejects the other."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=2)
    lab.client.endpoint("eth2", subflow=True)
    lab.client.endpoint("eth1", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    run.must_join(1, rejected=1)


@case(topology="four-links", groups=("join", "signal"))
def unused_signal_address(lab: CaseLab) -> None:
    """The server announces an address; the client, which accepts none, echoes it and does no more."""
    lab.client.limits(subflows=2, add_addr_accepted=0)
    lab.server.endpoint("eth1", signal=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    run.must_join(0)
    run.must_announce(1)


@case(topology="four-links", groups=("join", "signal"))
def signal_address(lab: CaseLab) -> None:
    """The server announces its second address; the client joins it once."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    run.must_join(1)
    run.must_announce(1)


@case(topology="four-links", groups=("join", "signal"))
def signal_addresses(lab: CaseLab) -> None:
    """The server announces three addresses, one after the other; the client joins each."""
    lab.server.limits(subflows=3, add_addr_accepted=3)
    lab.client.limits(subflows=3, add_addr_accepted=3)
    for interface in ("eth1", "eth2", "eth3"):
        lab.server.endpoint(interface, signal=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    run.must_join(3)
    run.must_announce(3)


@case(topology="four-links", groups=("join", "signal", "subflow"))
def subflow_and_signal(lab: CaseLab) -> None:
    """The client joins from its own endpoint, and to the address that the server announces."""
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    lab.client.endpoint("eth2", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    run.must_join(2)
    run.must_announce(1)


@case(topology="four-links", groups=("join", "signal", "subflow"))
def multiple_subflows_and_signal(lab: CaseLab) -> None:
    """Two endpoints of the client and one announced address: three joins."""
    lab.server.limits(subflows=3)
    lab.client.limits(subflows=3, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    lab.client.endpoint("eth2", subflow=True)
    lab.client.endpoint("eth3", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    run.must_join(3)
    run.must_announce(1)
