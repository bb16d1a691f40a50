"""Joins that fail, and what comes after them: the kernel's subflow error and invalid address tests."""

from __future__ import annotations

from testbed.selftests.case import case
from testbed.selftests.judgement import at_least
from testbed.selftests.lab_view import CaseLab

FAMILIES = ("4", "6")
JOIN_SYN = "tcp flags syn tcp option mptcp subtype 1"
REJECT_JOINS = f"{JOIN_SYN} reject with tcp reset"
DROP_JOINS = f"{JOIN_SYN} drop"


def nowhere(lab: CaseLab, number: int, host: int) -> str:
    """An address that no host has, in a network of its own that nobody knows a way to."""
    return f"10.0.1{number}.{host}" if lab.family == 4 else f"fd00:0:0:1{number}::{host}"


@case(topology="four-links", groups=("join", "errors"), families=FAMILIES)
def no_mpc_reuse_with_single_endpoint(lab: CaseLab) -> None:
    """The connection's own address is no further path, and an address that is not there can't be bound to."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth0", subflow=True)
    lab.client.endpoint_at(nowhere(lab, 2, 2), "subflow")
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(0, bind_errors=1)


@case(topology="four-paths", groups=("join", "errors"), families=FAMILIES)
def failing_subflow(lab: CaseLab) -> None:
    """Of two joins one is answered with a reset: the other is made all the same."""
    lab.filter("r3", REJECT_JOINS)
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2)
    lab.client.endpoint("eth2", subflow=True)
    lab.client.endpoint("eth1", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(1, attempted=2)


@case(topology="four-paths", groups=("join", "errors"), families=FAMILIES)
def subflow_timeout(lab: CaseLab) -> None:
    """Of two joins one is never answered: the other is made all the same."""
    lab.filter("r3", DROP_JOINS)
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2)
    lab.client.endpoint("eth2", subflow=True)
    lab.client.endpoint("eth1", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(1, attempted=2)


@case(topology="four-paths", groups=("join", "errors"), families=FAMILIES)
def failing_subflow_makes_room(lab: CaseLab) -> None:
    """A join that failed does not count against the limit: the next endpoint takes its place."""
    lab.filter("r3", REJECT_JOINS)
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth2", subflow=True)
    lab.client.endpoint("eth1", subflow=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
    transfer.must_be_intact()
    run.must_join(1, attempted=2)


@case(topology="four-links", groups=("join", "errors", "signal"), families=FAMILIES)
def signal_invalid_addresses(lab: CaseLab) -> None:
    """Of three announced addresses two lead nowhere: each is tried, and the third is joined."""
    lab.server.limits(subflows=3, add_addr_accepted=3)
    lab.client.limits(subflows=3, add_addr_accepted=3)
    lab.server.endpoint_at(nowhere(lab, 2, 1), "signal")
    lab.server.endpoint("eth2", signal=True)
    lab.server.endpoint_at(nowhere(lab, 4, 1), "signal")
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "EchoAdd", 3)
    transfer.must_be_intact()
    run.must_join(1, attempted=3)
    run.must_announce(3)


@case(topology="four-links", groups=("join", "signal", "subflow"), families=FAMILIES)
def subflow_and_signal_together(lab: CaseLab) -> None:
    """One endpoint of the client is both announced and used; the server takes up no addresses."""
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2)
    lab.client.endpoint("eth2", signal=True, subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(1)
    run.must_announce(1, by=lab.client)
    run.must_announce(0)
    run.must_not_reset()


@case(
    topology="four-links",
    groups=("join", "signal"),
    families=FAMILIES,
    variables={"server_sysctls": "{net.mptcp.add_addr_timeout: 1}"},
)
def signal_addresses_race(lab: CaseLab) -> None:
    """Both ends announce all their addresses at once; each of the server's others is joined once."""
    for host in (lab.server, lab.client):
        host.limits(subflows=4, add_addr_accepted=4)
        for interface in ("eth0", "eth1", "eth2", "eth3"):
            host.endpoint(interface, signal=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "EchoAdd", 3)
        lab.wait_for_count(run.server, "MPJoinAckRx", 3)
    transfer.must_be_intact()
    run.client.must_count(MPJoinSynTx=3, MPJoinSynAckRx=3)
    run.server.must_count(MPJoinSynRx=3, MPJoinAckRx=3)
    run.must_announce(3)


@case(topology="four-links", groups=("join", "remove", "errors"), families=FAMILIES)
def remove_invalid_addresses(lab: CaseLab) -> None:
    """Addresses that lead nowhere are withdrawn like others; nobody connects to a multicast address."""
    multicast = "224.0.0.1" if lab.family == 4 else "ff02::1:2"
    lab.server.limits(subflows=3, add_addr_accepted=3)
    lab.client.limits(subflows=2, add_addr_accepted=2)
    nowhere_id = lab.server.endpoint_at(nowhere(lab, 2, 1), "signal", "backup")
    multicast_id = lab.server.endpoint_at(multicast, "signal", "backup")
    lab.server.endpoint("eth2", signal=True, backup=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "EchoAdd", 3)
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.server.remove_endpoint_id(nowhere_id)
        lab.wait_for_count(run.client, "RmAddr", 1)
        lab.server.remove_endpoint_id(multicast_id)
        lab.wait_for_count(run.client, "RmAddr", 2)
        lab.server.remove_endpoint("eth2")
        lab.wait_for_count(run.client, "RmAddr", 3)
    transfer.must_be_intact()
    run.must_join(1, attempted=2, connect_errors=1)
    run.must_announce(3)
    run.client.must_count(RmAddr=3)
    run.server.must_count(RmSubflow=1)
    run.must_not_reset()


@case(topology="four-links", groups=("join", "flush", "errors"), families=FAMILIES)
def flush_invalid_addresses(lab: CaseLab) -> None:
    """All endpoints go at once, with those that lead nowhere."""
    lab.server.limits(subflows=3, add_addr_accepted=3)
    lab.client.limits(subflows=3, add_addr_accepted=3)
    lab.server.endpoint_at(nowhere(lab, 2, 1), "signal", "backup")
    lab.server.endpoint("eth2", signal=True, backup=True)
    lab.server.endpoint_at(nowhere(lab, 4, 1), "signal", "backup")
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "EchoAdd", 3)
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.server.flush_endpoints()
        lab.wait_for_count(run.client, "RmAddr", 3)
    transfer.must_be_intact()
    run.must_join(1, attempted=3)
    run.must_announce(3)
    run.client.must_count(RmAddr=3)
    run.server.must_count(RmSubflow=1)
    run.must_not_reset()


NO_ECHO = "tcp option mptcp subtype 3 drop"
QUICK_REPETITION = {"server_sysctls": "{net.mptcp.add_addr_timeout: 1}"}


def _without_echoes(lab: CaseLab, *also: str) -> None:
    """No ADD_ADDR from the client reaches the server, nor what the other rules say."""
    for router in ("r1", "r2", "r3", "r4"):
        lab.filter(router, f'iifname "eth0" {NO_ECHO}', *also, hook="prerouting")


@case(
    topology="four-paths", groups=("join", "signal", "timeout"), families=FAMILIES, variables=QUICK_REPETITION
)
def signal_address_add_addr_timeout(lab: CaseLab) -> None:
    """Without an echo ADD_ADDR is repeated three times (RFC 8684 §3.4.1); the address is joined once."""
    _without_echoes(lab)
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.client, "AddAddr", 4)
    transfer.must_be_intact()
    run.must_join(1)
    run.client.must_count(AddAddr=4, EchoAddTx=4)
    run.server.must_count(AddAddrTx=at_least(4), EchoAdd=0)


@case(
    topology="four-paths",
    groups=("join", "signal", "timeout", "slow"),
    families=("4",),
    variables=QUICK_REPETITION,
    waits_mostly=True,
)
def signal_addresses_add_addr_timeout(lab: CaseLab) -> None:
    """The second address is announced when the first has been repeated in vain."""
    _without_echoes(lab)
    lab.server.limits(subflows=2, add_addr_accepted=2)
    lab.client.limits(subflows=2, add_addr_accepted=2)
    lab.server.endpoint("eth1", signal=True)
    lab.server.endpoint("eth2", signal=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.client, "AddAddr", 8)
    transfer.must_be_intact()
    run.must_join(2)
    run.client.must_count(AddAddr=8, EchoAddTx=8)
    run.server.must_count(AddAddrTx=at_least(8), EchoAdd=0)


@case(
    topology="four-paths",
    groups=("join", "signal", "timeout", "slow"),
    families=("4",),
    variables=QUICK_REPETITION,
    waits_mostly=True,
)
def invalid_address_add_addr_timeout(lab: CaseLab) -> None:
    """As before, though the first address leads nowhere; while it is tried an echo may be left out."""
    _without_echoes(lab, f"ip daddr {nowhere(lab, 2, 1)} drop")
    lab.server.limits(subflows=2, add_addr_accepted=2)
    lab.client.limits(subflows=2, add_addr_accepted=2)
    lab.server.endpoint_at(nowhere(lab, 2, 1), "signal")
    lab.server.endpoint("eth2", signal=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.client, "AddAddr", 8)
    transfer.must_be_intact()
    run.must_join(1, attempted=2)
    run.client.must_count(AddAddr=8, EchoAddTx=at_least(7))
    run.server.must_count(AddAddrTx=at_least(8), EchoAdd=0)
