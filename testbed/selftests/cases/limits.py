"""Limits that bite: with cookies, a peer that denies its initial address, and very many addresses."""

from __future__ import annotations

from testbed.errors import CapabilityError, HostError
from testbed.selftests.case import case
from testbed.selftests.cases.cookies import VARIABLES
from testbed.selftests.lab_view import CaseLab

FAMILIES = ("4", "6")
MESH = 8
HIGH_LIMIT = 64


@case(topology="four-links", groups=("cookies", "subflow", "limits"), families=FAMILIES, variables=VARIABLES)
def subflows_limited_by_server_with_syn_cookies(lab: CaseLab) -> None:
    """With cookies a join beyond the limit is turned away at its SYN: nothing can be remembered of it."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=2)
    lab.client.endpoint("eth2", subflow=True)
    lab.client.endpoint("eth1", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.client.must_count(MPJoinSynTx=2)
    run.server.must_count(MPJoinSynRx=2, MPJoinAckRx=1, MPJoinRejected=1)
    run.must_not_fall_back()


@case(
    topology="four-links",
    groups=("deny-join-id0", "signal", "subflow"),
    families=FAMILIES,
    variables={"server_sysctls": "{net.mptcp.allow_join_initial_addr_port: 0}"},
)
def default_limits_server_denies_join_id0(lab: CaseLab) -> None:
    """Who may not join the initial address takes up one other, though limits say none, from each endpoint."""
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2)
    lab.server.endpoint("eth1", signal=True)
    lab.client.endpoint("eth2", subflow=True)
    lab.client.endpoint("eth3", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(2)


@case(
    topology="four-links",
    groups=("fullmesh", "slow"),
    families=("4",),
    variables={"links": str(MESH), "server_sysctls": "{net.mptcp.add_addr_timeout: 1}"},
)
def fullmesh_8x8(lab: CaseLab) -> None:
    """Each of eight addresses with each of eight: 63 joins. It needs the limits of Linux 7."""
    for host in (lab.server, lab.client):
        try:
            host.limits(subflows=HIGH_LIMIT, add_addr_accepted=HIGH_LIMIT)
        except HostError as error:
            raise CapabilityError(f"no limits of {HIGH_LIMIT}: {error}") from None
    for number in range(MESH):
        lab.client.endpoint(f"eth{number}", subflow=True, fullmesh=True)
        lab.server.endpoint(f"eth{number}", signal=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", MESH * MESH - 1)
    transfer.must_be_intact()
    run.must_join(MESH * MESH - 1)
