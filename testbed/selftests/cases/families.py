"""Subflows of the other family, and IPv4 written as IPv6: the kernel's v4mapped and mixed tests."""

from __future__ import annotations

from testbed.selftests.case import case
from testbed.selftests.judgement import at_most
from testbed.selftests.lab_view import CaseLab

MAPPED = ("4-mapped",)


def _mapped(address: str) -> str:
    return f"::ffff:{address}"


def _join_from(lab: CaseLab, address: str, subflows: int) -> None:
    """The client has an endpoint there; so many joins come of it."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint_at(address, "subflow")
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    run.must_join(subflows)


def _join_to(lab: CaseLab, address: str) -> None:
    """The server announces the address, and the client joins it."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint_at(address, "signal")
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    run.must_join(1)
    run.must_announce(1)


@case(topology="four-links", groups=("v4mapped", "subflow"), families=MAPPED)
def single_subflow_ipv4_mapped(lab: CaseLab) -> None:
    """Connection and endpoint are both written as IPv6."""
    _join_from(lab, _mapped(lab.client.address("eth2")), 1)


@case(topology="four-links", groups=("v4mapped", "signal"), families=MAPPED)
def signal_address_ipv4_mapped(lab: CaseLab) -> None:
    """Connection and announced address are both written as IPv6."""
    _join_to(lab, _mapped(lab.server.address("eth1")))


@case(topology="four-links", groups=("v4mapped", "subflow"), families=MAPPED)
def single_subflow_v4_map_v6(lab: CaseLab) -> None:
    """Only the connection is written as IPv6."""
    _join_from(lab, lab.client.address("eth2"), 1)


@case(topology="four-links", groups=("v4mapped", "signal"), families=MAPPED)
def signal_address_v4_map_v6(lab: CaseLab) -> None:
    """Only the connection is written as IPv6."""
    _join_to(lab, lab.server.address("eth1"))


@case(topology="four-links", groups=("v4mapped", "subflow"), families=("4",))
def single_subflow_v6_map_v4(lab: CaseLab) -> None:
    """Only the endpoint is written as IPv6."""
    _join_from(lab, _mapped(lab.client.address("eth2")), 1)


@case(topology="four-links", groups=("v4mapped", "signal"), families=("4",))
def signal_address_v6_map_v4(lab: CaseLab) -> None:
    """Only the announced address is written as IPv6."""
    _join_to(lab, _mapped(lab.server.address("eth1")))


@case(topology="four-links", groups=("v4mapped", "subflow"), families=("4",))
def no_join_with_diff_families_v4_v6(lab: CaseLab) -> None:
    """An IPv6 endpoint is no use for a connection of IPv4."""
    _join_from(lab, lab.client.address("eth1", 6), 0)


@case(topology="four-links", groups=("v4mapped", "subflow"), families=("4",))
def no_join_with_an_embedded_ipv4_address(lab: CaseLab) -> None:
    """An IPv6 address whose end looks like one of IPv4 is of IPv6 all the same."""
    prefix = lab.client.address("eth1", 6).rpartition("::")[0]
    _join_from(lab, f"{prefix}::{lab.client.address('eth2', 4)}", 0)


@case(topology="four-links", groups=("v4mapped", "subflow"), families=("6",))
def no_join_with_diff_families_v6_v4(lab: CaseLab) -> None:
    """An IPv4 endpoint is no use for the first address of a connection of IPv6."""
    _join_from(lab, lab.client.address("eth2", 4), 0)


@case(topology="four-links", groups=("mixed", "signal"), families=("4",))
def ipv4_sockets_do_not_use_ipv6_addresses(lab: CaseLab) -> None:
    """An IPv6 address is not even announced on a connection of IPv4."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint_at(lab.server.address("eth1", 6), "signal")
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(0)


@case(topology="four-links", groups=("mixed", "signal"), families=("6",))
def simult_ipv4_and_ipv6_subflows(lab: CaseLab) -> None:
    """A connection of IPv6 is joined by a subflow of IPv4."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint_at(lab.server.address("eth0", 4), "signal")
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(1)
    run.must_announce(1)


@case(topology="four-links", groups=("mixed", "signal", "fullmesh"), families=("6",))
def simult_ipv4_and_ipv6_subflows_fullmesh_1x1(lab: CaseLab) -> None:
    """A fullmesh endpoint is of no use for an address of the other family.

    The routes choose a source for it then, as in Linux 6.18; in newer kernels nobody joins it.
    """
    lab.server.limits(subflows=4)
    lab.client.limits(subflows=4, add_addr_accepted=1)
    lab.client.endpoint_at(lab.client.address("eth0"), "subflow", "fullmesh")
    lab.server.endpoint_at(lab.server.address("eth0", 4), "signal")
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    joins = run.client.delta()["MPTcpExtMPJoinSynTx"]
    lab.verdict.must_be_within("joins from what the routes choose", at_most(1), joins)
    run.must_join(joins)
    run.must_announce(1)


@case(topology="four-links", groups=("mixed", "signal", "fullmesh"), families=("6",))
def simult_ipv4_and_ipv6_subflows_fullmesh_2x2(lab: CaseLab) -> None:
    """An address of each family is joined; a fullmesh endpoint that comes later joins those of its own."""
    lab.server.limits(subflows=4)
    lab.client.limits(subflows=4, add_addr_accepted=2)
    lab.server.endpoint_at(lab.server.address("eth1", 4), "signal")
    lab.server.endpoint_at(lab.server.address("eth1", 6), "signal")
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 2)
        lab.client.endpoint_at(lab.client.address("eth2"), "subflow", "fullmesh")
        lab.wait_for_count(run.server, "MPJoinAckRx", 4)
    transfer.must_be_intact()
    run.must_join(4)
    run.must_announce(2)
