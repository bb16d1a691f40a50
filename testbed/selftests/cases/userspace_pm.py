"""Hosts whose path manager is "userspace": what they leave alone, and what they do when told.

After the kernel's userspace tests in mptcp_join.sh.
"""

from __future__ import annotations

from testbed.host.path_control import CreateSubflow
from testbed.selftests.case import case
from testbed.selftests.cases.join_errors import nowhere
from testbed.selftests.lab_view import CaseLab
from testbed.selftests.path_watch import PathWatch

FAMILIES = ("4", "6")
MANAGED = "{net.mptcp.path_manager: userspace}"
AT_SERVER = {"server_sysctls": MANAGED}
AT_CLIENT = {"client_sysctls": MANAGED}
AT_BOTH = {"client_sysctls": MANAGED, "server_sysctls": MANAGED}


@case(topology="four-links", groups=("userspace-pm", "signal"), families=FAMILIES, variables=AT_SERVER)
def userspace_pm_type_prevents_add_addr(lab: CaseLab) -> None:
    """The server's endpoint is not for connections that are managed from outside."""
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2, add_addr_accepted=2)
    lab.server.endpoint("eth1", signal=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(0)
    run.must_announce(0)


@case(topology="four-links", groups=("userspace-pm", "signal"), families=FAMILIES, variables=AT_CLIENT)
def userspace_pm_no_echo_without_daemon(lab: CaseLab) -> None:
    """Nobody is there to take the server's address up: it is not echoed."""
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2)
    lab.server.endpoint("eth1", signal=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.client, "AddAddr", 1)
    transfer.must_be_intact()
    run.must_join(0)
    run.client.must_count(EchoAddTx=0)
    run.server.must_count(EchoAdd=0)


@case(topology="four-links", groups=("userspace-pm", "subflow"), families=FAMILIES, variables=AT_SERVER)
def userspace_pm_type_rejects_join(lab: CaseLab) -> None:
    """Nobody is there to let the client's join in."""
    lab.server.limits(subflows=1, add_addr_accepted=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.client.endpoint("eth2", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(0, rejected=1)


@case(topology="four-links", groups=("userspace-pm", "subflow"), families=FAMILIES, variables=AT_CLIENT)
def userspace_pm_type_does_not_send_join(lab: CaseLab) -> None:
    """The client's endpoint is not for connections that are managed from outside."""
    lab.server.limits(subflows=1, add_addr_accepted=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.client.endpoint("eth2", subflow=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    run.must_join(0)


@case(topology="four-links", groups=("userspace-pm", "backup"), families=FAMILIES, variables=AT_SERVER)
def userspace_pm_type_prevents_mp_prio(lab: CaseLab) -> None:
    """The join is rejected: there is no subflow whose priority could change."""
    lab.server.limits(subflows=1, add_addr_accepted=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.client.endpoint("eth2", subflow=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinRejected", 1)
        lab.client.change_endpoint("eth2", backup=True)
    transfer.must_be_intact()
    run.must_join(0, rejected=1)
    run.must_prioritise(sent_by_client=0, sent_by_server=0, joined_as_backup=0, answered_as_backup=0)


@case(topology="four-links", groups=("userspace-pm", "remove"), families=FAMILIES, variables=AT_BOTH)
def userspace_pm_type_prevents_rm_addr(lab: CaseLab) -> None:
    """An endpoint that was of no use for the connection goes without a word."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth2", subflow=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        transfer.wait_until_part_arrived(0.2)
        lab.client.remove_endpoint("eth2")
    transfer.must_be_intact()
    run.must_join(0)
    run.must_remove(by=lab.client, addresses=0, subflows=0)


@case(topology="four-links", groups=("userspace-pm", "signal"), families=FAMILIES, variables=AT_SERVER)
def userspace_pm_add_and_remove_address(lab: CaseLab) -> None:
    """Two addresses are announced and joined; the subflow of one is destroyed, the other withdrawn."""
    lab.client.limits(subflows=2, add_addr_accepted=2)
    watch = PathWatch(lab, lab.server)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        watch.wait_for("established")
        watch.announce(10, lab.server.address("eth1"))
        first = watch.wait_for("sub_established")
        watch.announce(20, lab.server.address("eth2"))
        watch.wait_for("sub_established", 2)
        lab.wait_for_count(run.server, "EchoAdd", 2)
        transfer.must_use(2, accepted=2)
        watch.destroy_subflow(first)
        watch.remove(20)
        watch.wait_for("sub_closed", 2)
        lab.wait_for("client: one subflow", lambda: transfer.client_info().subflows_total == 1)
        transfer.must_use(0)
    transfer.must_be_intact()
    run.must_join(2)
    run.must_announce(2)
    run.must_remove(by=lab.server, addresses=1, subflows=1)


@case(topology="four-links", groups=("userspace-pm", "subflow"), families=FAMILIES, variables=AT_CLIENT)
def userspace_pm_create_destroy_subflow(lab: CaseLab) -> None:
    """A subflow is created and destroyed; from an address that is not there none can be created."""
    lab.server.limits(subflows=1)
    watch = PathWatch(lab, lab.client)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        port = watch.wait_for("established")["dport"]
        watch.create_subflow(20, lab.client.address("eth2"), lab.server.address(), port)
        joined = watch.wait_for("sub_established")
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        transfer.must_use(1)
        watch.destroy_subflow(joined)
        watch.wait_for("sub_closed")
        lab.wait_for("server: one subflow", lambda: transfer.server_info().subflows_total == 1)
        transfer.must_use(0)
        wrong = CreateSubflow(watch.token, 10, nowhere(lab, 2, 2), lab.server.address(), port)
        lab.verdict.must_be_equal("a subflow from nowhere is refused", True, watch.refuses(wrong))
        transfer.must_use(0)
    transfer.must_be_intact()
    run.server.must_count(MPJoinSynRx=1, MPJoinAckRx=1, RmAddr=0)
    run.client.must_count(MPJoinSynTx=1, MPJoinSynAckRx=1, RmSubflow=1)


@case(topology="four-links", groups=("userspace-pm", "subflow"), families=FAMILIES, variables=AT_CLIENT)
def userspace_pm_create_id_0_subflow(lab: CaseLab) -> None:
    """A subflow from another address may have the id 0."""
    lab.server.limits(subflows=1)
    watch = PathWatch(lab, lab.client)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        port = watch.wait_for("established")["dport"]
        transfer.must_use(0)
        watch.create_subflow(0, lab.client.address("eth2"), lab.server.address(), port)
        joined = watch.wait_for("sub_established")
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.verdict.must_be_equal("id of the subflow's address", 0, joined.get("loc_id"))
        transfer.must_use(1)
    transfer.must_be_intact()
    run.must_join(1)


@case(topology="four-links", groups=("userspace-pm", "remove"), families=FAMILIES, variables=AT_CLIENT)
def userspace_pm_remove_initial_subflow(lab: CaseLab) -> None:
    """The first subflow is destroyed; the joined one carries on."""
    lab.server.limits(subflows=1)
    watch = PathWatch(lab, lab.client)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        initial = watch.wait_for("established")
        watch.create_subflow(20, lab.client.address("eth2"), lab.server.address(), initial["dport"])
        watch.wait_for("sub_established")
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        transfer.must_use(1)
        watch.destroy_subflow(initial)
        watch.wait_for("sub_closed")
        lab.wait_for("server: one subflow", lambda: transfer.server_info().subflows_total == 1)
        transfer.must_use(1, with_initial=False)
    transfer.must_be_intact()
    run.must_join(1)
    run.must_remove(by=lab.client, addresses=0, subflows=1)
    run.must_not_reset()


@case(topology="four-links", groups=("userspace-pm", "remove"), families=FAMILIES, variables=AT_SERVER)
def userspace_pm_send_rm_addr_for_id_0(lab: CaseLab) -> None:
    """The initial address is withdrawn: the peer closes the first subflow, the joined one carries on."""
    lab.client.limits(subflows=1, add_addr_accepted=1)
    watch = PathWatch(lab, lab.server)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        watch.wait_for("established")
        watch.announce(10, lab.server.address("eth1"))
        watch.wait_for("sub_established")
        lab.wait_for_count(run.server, "EchoAdd", 1)
        transfer.must_use(1, accepted=1)
        watch.remove(0)
        watch.wait_for("sub_closed")
        transfer.must_use(1, with_initial=False)
    transfer.must_be_intact()
    run.must_join(1)
    run.must_announce(1)
    run.must_remove(by=lab.server, addresses=1, subflows=0)
    run.must_not_reset()


@case(topology="four-paths", groups=("userspace-pm", "errors"), families=FAMILIES, variables=AT_CLIENT)
def userspace_pm_no_dup_close_events_after_error(lab: CaseLab) -> None:
    """A subflow that a reset ends is told of once, and so is one that is refused."""
    lab.server.limits(subflows=2)
    watch = PathWatch(lab, lab.client)
    at_server = PathWatch(lab, lab.server)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        port = watch.wait_for("established")["dport"]
        watch.create_subflow(20, lab.client.address("eth2"), lab.server.address(), port)
        watch.wait_for("sub_established")
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        transfer.must_use(1)
        lab.filter("r1", "meta l4proto tcp reject with tcp reset")
        watch.wait_for("sub_closed")
        at_server.wait_for("sub_closed")
        watch.create_subflow(0, lab.client.address(), lab.server.address(), port)
        watch.wait_for("sub_closed", 2)
    transfer.must_be_intact()
    closed = watch.of("sub_closed")
    lab.verdict.must_be_equal(
        "subflows of path 1 that were closed",
        2,
        len([event for event in closed if event["saddr"] == lab.client.address()]),
    )
    lab.verdict.must_be_equal(
        "of them with an error",
        2,
        len([event for event in closed if event.get("error") and event["saddr"] == lab.client.address()]),
    )
