"""Hosts that move: links that come and go, paths that fade, and times without any path."""

from __future__ import annotations

from functools import partial

from testbed.selftests.case import SLOW, case
from testbed.selftests.lab_view import CaseLab, mib
from testbed.selftests.path_watch import PathWatch

FAMILIES = ("4", "6")
EMULATED = {"emulated": "true", "rate": "20mbit"}
BREAKING = {"rate": "20mbit", "sysctls": "net.ipv4.tcp_rmem: 4096 65536 65536"}
"""With windows that the links' queues of 50 ms can hold: a REMOVE_ADDR that is lost is not repeated."""


def _join_allowed(lab: CaseLab) -> None:
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth1", subflow=True)


def _flaps(lab: CaseLab, router: str) -> None:
    """Three times the link is down for 300 ms and up for 300 ms."""
    _join_allowed(lab)
    with lab.measure() as run, lab.start_transfer(mib(6), 0) as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        began = lab.now() + 0.1
        for number in range(3):
            lab.at(began + 0.6 * number, lambda: lab.link_down(router, "eth1"))
            lab.at(began + 0.6 * number + 0.3, lambda: lab.link_up(router, "eth1"))
        lab.wait_until(began + 1.8)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_not_fall_back()


@case(topology="two-paths", groups=("mobility", "flapping", SLOW), families=("4",), variables=EMULATED)
def first_link_flaps(lab: CaseLab) -> None:
    """The first path comes and goes while data flows."""
    _flaps(lab, "r1")


@case(topology="two-paths", groups=("mobility", "flapping", SLOW), families=("6",), variables=EMULATED)
def second_link_flaps(lab: CaseLab) -> None:
    """The joined path comes and goes while data flows."""
    _flaps(lab, "r2")


@case(topology="two-paths", groups=("mobility", "walk-out", SLOW), families=FAMILIES, variables=EMULATED)
def walk_out(lab: CaseLab) -> None:
    """The first path fades: more and more loss and delay, then nothing gets through any more."""
    _join_allowed(lab)
    with lab.measure() as run, lab.start_transfer(mib(6), 0) as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        began = lab.now()
        for number, words in enumerate(
            ("delay 10ms loss 2%", "delay 40ms loss 10%", "delay 100ms loss 30%", "loss 100%")
        ):
            lab.at(began + 0.3 * number, partial(lab.impair, "client", "eth0", words))
        lab.wait_until(began + 1.2)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_not_fall_back()
    run.client.must_send_again()


def _breaks_before_it_makes(lab: CaseLab, break_s: float) -> None:
    """The only subflow goes with its address; after a while there is another interface."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    with lab.measure() as run, lab.start_transfer(mib(2), 0) as transfer:
        lab.wait_for_received(transfer, lab.server, mib(1) // 2)
        lab.client.remove_initial_address()
        lab.wait_until(lab.now() + break_s)
        before = transfer.received("server")
        began = lab.now()
        lab.client.endpoint("eth1", subflow=True)
        lab.wait_for_received(transfer, lab.server, before + 1)
        lab.note(f"delivery goes on {round((lab.now() - began) * 1000)} ms after the new endpoint")
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_be_one_mptcp_connection()
    run.must_join(1)
    run.client.must_count(RmAddrTx=1)
    run.server.must_count(RmAddr=1)


@case(
    topology="two-paths",
    groups=("mobility", "break-before-make"),
    families=FAMILIES,
    variables=BREAKING,
)
def break_before_make_after_1_second(lab: CaseLab) -> None:
    """A second without any subflow."""
    _breaks_before_it_makes(lab, 1.0)


@case(
    topology="two-paths",
    groups=("mobility", "break-before-make", SLOW),
    families=("6",),
    variables=BREAKING,
    waits_mostly=True,
)
def break_before_make_after_5_seconds(lab: CaseLab) -> None:
    """Five seconds without any subflow."""
    _breaks_before_it_makes(lab, 5.0)


@case(
    topology="two-paths",
    groups=("mobility", "break-before-make", SLOW),
    families=("4",),
    variables=BREAKING,
    waits_mostly=True,
)
def break_before_make_after_30_seconds(lab: CaseLab) -> None:
    """Half a minute without any subflow: half of net.mptcp.close_timeout."""
    _breaks_before_it_makes(lab, 30.0)


@case(
    topology="roaming",
    groups=("mobility", "break-before-make", SLOW),
    families=FAMILIES,
    variables={"rate": "20mbit"},
)
def break_before_make_with_a_new_address(lab: CaseLab) -> None:
    """The client's only interface in use is moved to another network and gets another address there."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    with lab.measure() as run, lab.start_transfer(mib(2), 0) as transfer:
        lab.wait_for_received(transfer, lab.server, mib(1) // 2)
        old = lab.client.address("wlan0")
        lab.client.remove_initial_address()
        lab.move("client", "wlan0", "office")
        lab.verdict.must_be_equal("the address is another one", True, lab.client.address("wlan0") != old)
        lab.wait_until(lab.now() + 1.0)
        lab.client.endpoint("wlan0", subflow=True)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_be_one_mptcp_connection()
    run.must_join(1)


@case(
    topology="four-links",
    groups=("mobility", "break-before-make", SLOW),
    families=("6",),
    variables={"rate": "20mbit", "client_sysctls": "{net.mptcp.path_manager: userspace}"},
)
def break_before_make_to_the_other_family(lab: CaseLab) -> None:
    """The only subflow, of IPv6, is closed; a second later there is one of IPv4, made by hand.

    The other way round neither stack can: a socket of IPv4 has no subflows of IPv6.
    """
    lab.server.limits(subflows=2)
    watch = PathWatch(lab, lab.client)
    with lab.measure() as run, lab.start_transfer(mib(2), 0) as transfer:
        first = watch.wait_for("established")
        lab.wait_for_received(transfer, lab.server, mib(1) // 2)
        watch.destroy_subflow(first)
        lab.wait_until(lab.now() + 1.0)
        remote = lab.server.address("eth1", 4)
        watch.create_subflow(20, lab.client.address("eth1", 4), remote, first["dport"])
        watch.wait_for("sub_established")
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_be_one_mptcp_connection()
    run.must_join(1)


def _outage(lab: CaseLab, outage_s: float) -> None:
    with lab.measure() as run, lab.start_transfer(mib(2), 0, timeout_s=45.0) as transfer:
        lab.wait_for_received(transfer, lab.server, mib(1) // 2)
        lab.impair("client", "eth0", "loss 100%")
        lab.wait_until(lab.now() + outage_s)
        lab.impair("client", "eth0", "loss 0%")
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_be_one_mptcp_connection()
    run.must_not_reset()


@case(topology="one-path", groups=("mobility", "outage", SLOW), families=("6",), variables=EMULATED)
def outage_of_1_second(lab: CaseLab) -> None:
    """The only path drops everything for a second: the subflow's timeouts get over it."""
    _outage(lab, 1.0)


@case(
    topology="one-path",
    groups=("mobility", "outage", SLOW),
    families=("4",),
    variables=EMULATED,
    waits_mostly=True,
)
def outage_of_5_seconds(lab: CaseLab) -> None:
    """Five seconds of nothing."""
    _outage(lab, 5.0)


@case(
    topology="two-paths",
    groups=("mobility", "handover", SLOW),
    families=("4", "6", "mixed"),
    variables=EMULATED,
)
def handover_to_an_announced_address(lab: CaseLab) -> None:
    """The server announces another address, of the other family if so asked; then the first path dies."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    with lab.measure() as run, lab.start_transfer(mib(3), 0) as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        lab.wait_for_received(transfer, lab.server, mib(1) // 2)
        lab.impair("client", "eth0", "loss 100%")
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_join(1)
    run.must_announce(1)
