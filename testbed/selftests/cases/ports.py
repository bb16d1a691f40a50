"""Announced addresses with a port of their own, after the kernel's add_addr_ports tests."""

from __future__ import annotations

from testbed.selftests.case import case
from testbed.selftests.lab_view import CaseLab

WITHOUT_TIMESTAMPS = {
    "client_sysctls": "{net.ipv4.tcp_timestamps: 0}",
    "server_sysctls": "{net.ipv4.tcp_timestamps: 0}",
}
"""An ADD_ADDR of 32 bytes, for an IPv6 address with a port, does not fit beside timestamps of 12."""


@case(topology="four-links", groups=("port", "signal"), variables=WITHOUT_TIMESTAMPS)
def signal_address_with_port(lab: CaseLab) -> None:
    """The client joins the announced address at the announced port."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True, port=10100)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(1)
    run.must_announce(1)
    run.must_join_at_ports(1)


@case(topology="four-links", groups=("port", "signal", "subflow"), variables=WITHOUT_TIMESTAMPS)
def subflow_and_signal_with_port(lab: CaseLab) -> None:
    """A join from the client's endpoint goes to the connection's port, the other to the announced one."""
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True, port=10100)
    lab.client.endpoint("eth2", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(2)
    run.must_announce(1)
    run.must_join_at_ports(1)


@case(topology="four-links", groups=("port", "remove", "signal"), variables=WITHOUT_TIMESTAMPS)
def remove_single_address_with_port(lab: CaseLab) -> None:
    """The server withdraws the address and closes its port."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True, port=10100)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.server.remove_endpoint("eth1")
        lab.wait_for_count(run.client, "RmAddr", 1)
    transfer.must_be_intact()
    run.must_join(1)
    run.must_announce(1)
    run.must_join_at_ports(1)
    run.must_remove(by=lab.server, addresses=1, subflows=1)


@case(topology="four-links", groups=("port", "remove", "signal", "subflow"), variables=WITHOUT_TIMESTAMPS)
def remove_subflow_and_signal_with_port(lab: CaseLab) -> None:
    """Each side withdraws what it offered, one of them with a port."""
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True, port=10100)
    lab.client.endpoint("eth2", subflow=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 2)
        lab.server.remove_endpoint("eth1")
        lab.wait_for_count(run.client, "RmAddr", 1)
        lab.client.remove_endpoint("eth2")
        lab.wait_for_count(run.server, "RmAddr", 1)
    transfer.must_be_intact()
    run.must_join(2)
    run.must_join_at_ports(1)
    run.must_remove(by=lab.server, addresses=1, subflows=1)
    run.must_remove(by=lab.client, addresses=1, subflows=1)


@case(topology="four-links", groups=("port", "signal"), variables=WITHOUT_TIMESTAMPS)
def multiple_addresses_with_port(lab: CaseLab) -> None:
    """Two addresses announced with the same port."""
    lab.server.limits(subflows=2, add_addr_accepted=2)
    lab.client.limits(subflows=2, add_addr_accepted=2)
    lab.server.endpoint("eth1", signal=True, port=10100)
    lab.server.endpoint("eth2", signal=True, port=10100)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(2)
    run.must_announce(2)
    run.must_join_at_ports(2)


@case(topology="four-links", groups=("port", "signal"), variables=WITHOUT_TIMESTAMPS)
def multiple_addresses_with_ports(lab: CaseLab) -> None:
    """Two addresses announced with different ports."""
    lab.server.limits(subflows=2, add_addr_accepted=2)
    lab.client.limits(subflows=2, add_addr_accepted=2)
    lab.server.endpoint("eth1", signal=True, port=10100)
    lab.server.endpoint("eth2", signal=True, port=10101)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(2)
    run.must_announce(2)
    run.must_join_at_ports(2)
