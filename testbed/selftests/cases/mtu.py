"""Paths with a smaller MTU in the middle, where no host sees it: told by ICMP, or a black hole."""

from __future__ import annotations

from testbed.selftests.case import SLOW, case
from testbed.selftests.lab_view import CaseLab, kib, mib

FAMILIES = ("4", "6")
_BLACK_HOLE = {"middlebox": "drop_icmp_errors: {}"}


@case(topology="mtu-mismatch", groups=("mtu",), families=FAMILIES)
def mtu_mismatch(lab: CaseLab) -> None:
    """Routers say how much fits through: both ends send smaller packets (RFC 1191, RFC 8201)."""
    with lab.measure() as run:
        transfer = lab.transfer(mib(1))
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_be_one_mptcp_connection()
    run.must_not_reset()


@case(topology="mtu-mismatch", groups=("mtu", SLOW), families=FAMILIES, variables={"bypass": "true"})
def mtu_mismatch_on_one_path(lab: CaseLab) -> None:
    """The first path has the smaller MTU, the joined one has not."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    with lab.measure() as run:
        transfer = lab.transfer(mib(1))
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_not_fall_back()


@case(
    topology="mtu-mismatch", groups=("mtu",), families=FAMILIES, variables={"bypass": "true", **_BLACK_HOLE}
)
def black_hole_on_one_path(lab: CaseLab) -> None:
    """Full packets vanish on the first path and nobody says so: the joined one carries the data."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    # Small ones get through: the connection is there, and the other path joined, before the large ones come.
    with lab.measure() as run, lab.start_transfer(mib(1), 0) as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_not_fall_back()
    run.client.must_send_again()


@case(
    topology="mtu-mismatch",
    groups=("mtu", SLOW),
    families=("6",),
    variables={"probing": "1", **_BLACK_HOLE},
    waits_mostly=True,
)
def black_hole_with_probing(lab: CaseLab) -> None:
    """The only path is a black hole: net.ipv4.tcp_mtu_probing finds what fits after some timeouts."""
    with lab.measure() as run:
        transfer = lab.transfer(kib(256), 0)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_not_fall_back()
