"""Listeners at one address, and ports of announced addresses: the kernel's bind tests and more port tests."""

from __future__ import annotations

from testbed.host.protocol import Role, Workload, WorkloadKind
from testbed.selftests.case import case
from testbed.selftests.cases.laminar import must_know_laminar
from testbed.selftests.cases.ports import WITHOUT_TIMESTAMPS
from testbed.selftests.host_view import EVENT_LIMIT_S
from testbed.selftests.judgement import at_least
from testbed.selftests.lab_view import CaseLab

FAMILIES = ("4", "6")
PORT = 10100


def _announce_second(lab: CaseLab) -> None:
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2, add_addr_accepted=2)
    lab.server.endpoint("eth1", signal=True)


@case(topology="four-links", groups=("bind", "signal"), families=FAMILIES)
def bind_main_address_no_join(lab: CaseLab) -> None:
    """The server listens at its first address only: a join to another is refused."""
    _announce_second(lab)
    with lab.measure() as run, lab.start_transfer(1 << 16, listen_at=(lab.server.address(), 0)) as transfer:
        lab.wait_for_count(run.client, "MPJoinSynTx", 1)
    transfer.must_be_intact()
    run.must_join(0, attempted=1)
    run.must_announce(1)


@case(topology="four-links", groups=("bind", "signal"), families=FAMILIES)
def multiple_bind_to_allow_joins(lab: CaseLab) -> None:
    """Another listener at the announced address and the same port lets the join in."""
    _announce_second(lab)
    listener = Workload(
        WorkloadKind.HOLD, Role.LISTEN, lab.server.address("eth1"), 0, timeout_us=round(EVENT_LIMIT_S * 1e6)
    )
    second = lab.server.agent.start(listener)
    with (
        lab.measure() as run,
        lab.start_transfer(1 << 16, listen_at=(lab.server.address(), second.port)) as transfer,
    ):
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
    second.stop()
    transfer.must_be_intact()
    run.must_join(1)
    run.must_announce(1)


def _play_on_one_link(lab: CaseLab, *, from_interface: str | None, joins: int, connect_errors: int) -> None:
    """Connects over the first link's own addresses; the server announces that of the second, and listens."""
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2, add_addr_accepted=2)
    first, second = lab.server.link_local("eth0"), lab.server.link_local("eth1")
    lab.server.endpoint_at(second, "signal")
    if from_interface is not None:
        own = lab.client.link_local(from_interface)
        lab.client.agent.add_endpoint(own, flags=("laminar",), interface=from_interface)
    elsewhere = lab.server.agent.start(
        Workload(WorkloadKind.HOLD, Role.LISTEN, f"{second}%eth1", 0, timeout_us=round(EVENT_LIMIT_S * 1e6))
    )
    with (
        lab.measure() as run,
        lab.start_transfer(
            1 << 16, listen_at=(f"{first}%eth0", elsewhere.port), connect_to=f"{first}%eth0"
        ) as transfer,
    ):
        if from_interface is not None:
            must_know_laminar(transfer)
        lab.wait_for_count(run.server, "EchoAdd", 1)
        lab.wait_for_count(run.server, "MPJoinAckRx", joins)
    elsewhere.stop()
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_join(joins, connect_errors=connect_errors)
    run.must_announce(1)


@case(topology="four-links", groups=("bind", "signal"), families=("6",))
def multiple_bind_to_allow_joins_v6_link_local_routing(lab: CaseLab) -> None:
    """No route says on which link an announced link-local address is: the join comes to nothing."""
    _play_on_one_link(lab, from_interface=None, joins=0, connect_errors=1)


@case(topology="four-links", groups=("bind", "signal", "laminar"), families=("6",))
def multiple_bind_to_allow_joins_v6_link_local_laminar(lab: CaseLab) -> None:
    """A laminar endpoint says it: the join goes from there."""
    _play_on_one_link(lab, from_interface="eth1", joins=1, connect_errors=0)


@case(topology="four-links", groups=("join", "signal", "errors"), families=FAMILIES)
def signal_address_tcp_only_listener_on_client(lab: CaseLab) -> None:
    """The server announces an address of the client's, where plain TCP answers: the join is given up."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    own = lab.client.address("eth1")
    lab.server.endpoint_at(own, "signal")
    elsewhere = lab.client.agent.start(
        Workload(
            WorkloadKind.HOLD, Role.LISTEN, own, 0, protocol="tcp", timeout_us=round(EVENT_LIMIT_S * 1e6)
        )
    )
    anywhere = "0.0.0.0" if lab.family == 4 else "::"
    with (
        lab.measure() as run,
        lab.start_transfer(1 << 16, listen_at=(anywhere, elsewhere.port)) as transfer,
    ):
        lab.wait_for_count(run.client, "MPJoinSynTx", 1)
        lab.wait_for_count(run.server, "EchoAdd", 1)
    elsewhere.stop()
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.client.must_count(MPJoinSynTx=1, MPJoinSynAckRx=0, MPJoinSynAckNoMPJoin=1)
    run.server.must_count(MPJoinSynRx=0, MPJoinAckRx=0)


@case(topology="four-links", groups=("port", "signal"), families=FAMILIES)
def port_based_signal_endpoint_must_not_accept_mpc(lab: CaseLab) -> None:
    """The listener of an endpoint with a port is for joins: a new connection is reset at once."""
    lab.server.endpoint("eth1", signal=True, port=PORT)
    with lab.measure() as run:
        connecting = lab.client.agent.start(
            Workload(WorkloadKind.TRANSFER, Role.CONNECT, lab.server.address("eth1"), PORT, send_bytes=1000)
        )
        (result,) = connecting.result(EVENT_LIMIT_S)
    lab.verdict.must_be_equal("client: error", "ECONNREFUSED", result.error)
    run.client.must_count(MPCapableSYNTX=1, MPCapableSYNACKRX=0)
    run.server.must_count(MPCapableEndpAttempt=1, MPCapableSYNRX=at_least(0), MPCapableACKRX=0)


@case(topology="four-links", groups=("port", "flush", "signal", "subflow"), variables=WITHOUT_TIMESTAMPS)
def flush_subflows_and_signal_with_port(lab: CaseLab) -> None:
    """The server flushes what it announced, with a port, while the client withdraws both its endpoints."""
    lab.server.limits(subflows=3)
    lab.client.limits(subflows=3, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True, port=PORT)
    lab.client.endpoint("eth2", subflow=True)
    lab.client.endpoint("eth3", subflow=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 3)
        lab.server.flush_endpoints()
        lab.wait_for_count(run.client, "RmAddr", 1)
        # One after the other: Linux drops a REMOVE_ADDR that comes before it is done with the last one.
        for count, interface in enumerate(("eth2", "eth3"), 1):
            lab.client.remove_endpoint(interface)
            lab.wait_for_count(run.server, "RmAddr", count)
    transfer.must_be_intact()
    run.must_join(3)
    run.must_announce(1)
    run.client.must_count(RmAddr=1)
    run.must_remove_at_once(3)


@case(topology="four-links", groups=("port", "signal"), families=("6",))
def signal_addr_list_progresses_after_tx_drop(lab: CaseLab) -> None:
    """An ADD_ADDR that finds no room beside timestamps is dropped and counted; the next one is sent."""
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=0, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True, port=PORT)
    lab.server.endpoint("eth2", signal=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "EchoAdd", 1)
    transfer.must_be_intact()
    run.client.must_count(AddAddr=1, EchoAddTx=1, PortAdd=0)
    run.server.must_count(AddAddrTx=1, EchoAdd=1, AddAddrTxDrop=1)
