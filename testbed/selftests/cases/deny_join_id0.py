"""Peers that want no join to the address of the first subflow (the C flag, RFC 8684 §3.1)."""

from __future__ import annotations

from testbed.selftests.case import case
from testbed.selftests.lab_view import CaseLab

DENIED = "{net.mptcp.allow_join_initial_addr_port: 0}"
ONLY_CLIENT_DENIES = {"client_sysctls": DENIED}
ONLY_SERVER_DENIES = {"server_sysctls": DENIED}


@case(topology="four-links", groups=("deny-join-id0", "subflow"), variables=ONLY_CLIENT_DENIES)
def single_subflow_allow_join_id0_server(lab: CaseLab) -> None:
    """What the client denies does not keep it from joining the server's first address."""
    lab.server.limits(subflows=1, add_addr_accepted=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.client.endpoint("eth2", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(1)


@case(topology="four-links", groups=("deny-join-id0", "subflow"), variables=ONLY_SERVER_DENIES)
def single_subflow_allow_join_id0_client(lab: CaseLab) -> None:
    """The server denies its first address, and has announced no other: the client does not join."""
    lab.server.limits(subflows=1, add_addr_accepted=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.client.endpoint("eth2", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(0)


@case(topology="four-links", groups=("deny-join-id0", "signal"), variables=ONLY_CLIENT_DENIES)
def signal_address_allow_join_id0_server(lab: CaseLab) -> None:
    """The client denies: it still joins the announced address."""
    lab.server.limits(subflows=1, add_addr_accepted=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(1)
    run.must_announce(1)


@case(topology="four-links", groups=("deny-join-id0", "signal"), variables=ONLY_SERVER_DENIES)
def signal_address_allow_join_id0_client(lab: CaseLab) -> None:
    """The server denies its first address and announces another: the client joins that."""
    lab.server.limits(subflows=1, add_addr_accepted=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(1)
    run.must_announce(1)


@case(topology="four-links", groups=("deny-join-id0", "signal", "subflow"), variables=ONLY_CLIENT_DENIES)
def subflow_and_address_allow_join_id0_server(lab: CaseLab) -> None:
    """The client denies: it joins from its endpoint and to the announced address."""
    lab.server.limits(subflows=2, add_addr_accepted=2)
    lab.client.limits(subflows=2, add_addr_accepted=2)
    lab.server.endpoint("eth1", signal=True)
    lab.client.endpoint("eth2", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(2)
    run.must_announce(1)


@case(topology="four-links", groups=("deny-join-id0", "signal", "subflow"), variables=ONLY_SERVER_DENIES)
def subflow_and_address_allow_join_id0_client(lab: CaseLab) -> None:
    """The server denies its first address: of two joins that would fit, the one to the announced is made."""
    lab.server.limits(subflows=2, add_addr_accepted=2)
    lab.client.limits(subflows=2, add_addr_accepted=2)
    lab.server.endpoint("eth1", signal=True)
    lab.client.endpoint("eth2", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(1)
    run.must_announce(1)
