"""Joins while every SYN is answered with a cookie, after the kernel's syncookies tests."""

from __future__ import annotations

from testbed.selftests.case import case
from testbed.selftests.lab_view import CaseLab
from testbed.selftests.measurement import Measurement

COOKIES = "{net.ipv4.tcp_syncookies: 2}"
VARIABLES = {"client_sysctls": COOKIES, "server_sysctls": COOKIES}


def _must_join(lab: CaseLab, run: Measurement, subflows: int) -> None:
    """All joins, unless two of them met in one of the 1,024 places where Linux keeps half-open ones by hash.

    Then the later takes the earlier's place: the HMAC of the one is wrong, and of the other nothing is known.
    """
    if run.server.delta().get("MPTcpExtMPJoinAckHMacFailure") == 1 and subflows > 1:
        lab.note("two joins met in one place of the server's table of half-open joins")
        run.server.must_count(MPJoinSynRx=subflows, MPJoinAckRx=subflows - 2)
    else:
        run.must_join(subflows)


@case(topology="four-links", groups=("cookies", "subflow"), variables=VARIABLES)
def single_subflow_with_syn_cookies(lab: CaseLab) -> None:
    """A join is answered without a cookie, since the connection is known: only MP_CAPABLE needs one."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth2", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    _must_join(lab, run, 1)


@case(topology="four-links", groups=("cookies", "subflow"), variables=VARIABLES)
def multiple_subflows_with_syn_cookies(lab: CaseLab) -> None:
    """The client joins from two endpoints."""
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2)
    lab.client.endpoint("eth2", subflow=True)
    lab.client.endpoint("eth1", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    _must_join(lab, run, 2)


@case(topology="four-links", groups=("cookies", "signal"), variables=VARIABLES)
def signal_address_with_syn_cookies(lab: CaseLab) -> None:
    """The client joins the address that the server announces."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    _must_join(lab, run, 1)
    run.must_announce(1)


@case(topology="four-links", groups=("cookies", "signal", "subflow"), variables=VARIABLES)
def subflow_and_signal_with_syn_cookies(lab: CaseLab) -> None:
    """The client joins from its endpoint, and to the address that the server announces."""
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    lab.client.endpoint("eth2", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    _must_join(lab, run, 2)
    run.must_announce(1)


@case(topology="four-links", groups=("cookies", "signal", "subflow"), variables=VARIABLES)
def subflows_and_signal_with_syn_cookies(lab: CaseLab) -> None:
    """Two endpoints of the client and an announced address: three joins."""
    lab.server.limits(subflows=3)
    lab.client.limits(subflows=3, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    lab.client.endpoint("eth2", subflow=True)
    lab.client.endpoint("eth3", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    _must_join(lab, run, 3)
    run.must_announce(1)
