"""Links that fail without a word: subflows go stale and others finish. The kernel's link_failure_tests."""

from __future__ import annotations

from testbed.selftests.case import case
from testbed.selftests.host_view import CaseHost
from testbed.selftests.judgement import Expectation, at_least, at_most, between
from testbed.selftests.lab_view import CaseLab, kib, mib
from testbed.selftests.measurement import Measurement

RATE = {"rate": "10mbit"}
"""So slow that much is left to send when a link fails, for seconds; and so fast that the silent subflow holds
more than is sent again elsewhere before Linux, which takes five turns for that, finds it stale."""
SIZE = mib(16)
"""Half of it takes the other links two seconds, in which Linux finds a subflow stale after one or more."""
WHEN_ARRIVED = 0.5


def _must_be_stale(lab: CaseLab, run: Measurement, *, times: Expectation, for_good: int) -> None:
    """The client found subflows stale so often, and so many of them never came back.

    While others carry on, the bundled stack need not find out: it gives a subflow no more than the congestion
    window takes, and all of that may have been sent again before the subflow has been silent long enough.
    """
    delta = run.client.delta()
    stale, recovered = delta["MPTcpExtSubflowStale"], delta["MPTcpExtSubflowRecover"]
    if lab.client.stack == "userspace" and for_good == 1:
        times = at_most(5)
        for_good = min(for_good, stale)
    lab.verdict.must_be_within("client: SubflowStale", times, stale)
    lab.verdict.must_be_equal("client: stale for good", for_good, stale - recovered)


def _play(lab: CaseLab, to_client: int, subflows: int, *failing: str) -> Measurement:
    """When half of the data has arrived, these links of the server go dark; the rest arrives all the same."""
    with lab.measure() as run, lab.start_transfer(SIZE, to_client, timeout_s=40) as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", subflows)
        lab.wait_for_count(run.client, "EchoAddTx", 1)
        transfer.wait_until_part_arrived(WHEN_ARRIVED)
        for interface in failing:
            lab.set_link("server", interface, up=False)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_join(subflows)
    return run


def _three_more_paths(lab: CaseLab) -> None:
    lab.server.limits(subflows=3)
    lab.client.limits(subflows=3, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    lab.client.endpoint("eth2", subflow=True)
    lab.client.endpoint("eth3", subflow=True)


def _a_path_and_a_backup(lab: CaseLab) -> None:
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    lab.client.endpoint("eth2", subflow=True, backup=True)


def _must_carry(lab: CaseLab, host: CaseHost, carried: dict[str, int], percent: Expectation) -> None:
    share = carried["eth2"] * 100 // SIZE
    lab.verdict.must_be_within(f"{host.name} eth2: percent of the data", percent, share)


GROUPS = ("link-failure", "paths", "slow")


@case(topology="four-links", groups=GROUPS, families=("4",), variables=RATE)
def multiple_flows_signal_link_failure(lab: CaseLab) -> None:
    """One of four links fails while the client sends."""
    _three_more_paths(lab)
    run = _play(lab, kib(1), 3, f"eth{lab.random.randrange(4)}")
    _must_be_stale(lab, run, times=between(1, 5), for_good=1)


@case(topology="four-links", groups=GROUPS, families=("4",), variables=RATE)
def multi_flows_signal_bidi_link_fail(lab: CaseLab) -> None:
    """One of four links fails while both ends send."""
    _three_more_paths(lab)
    run = _play(lab, mib(2), 3, f"eth{lab.random.randrange(4)}")
    _must_be_stale(lab, run, times=at_least(1), for_good=1)


@case(topology="four-links", groups=GROUPS, families=("4",), variables=RATE, waits_mostly=True)
def backup_subflow_unused_link_failure(lab: CaseLab) -> None:
    """One of two ordinary links fails: the backup stays unused while the other is there."""
    _a_path_and_a_backup(lab)
    with lab.count_bytes(lab.client, "eth2") as carried:
        _play(lab, kib(1), 2, "eth0")
    _must_carry(lab, lab.client, carried, between(0, 5))


@case(topology="four-links", groups=GROUPS, families=("4",), variables=RATE, waits_mostly=True)
def backup_flow_used_multi_links_fail(lab: CaseLab) -> None:
    """Both ordinary links fail: the backup carries the second half."""
    _a_path_and_a_backup(lab)
    with lab.count_bytes(lab.client, "eth2") as carried:
        run = _play(lab, kib(1), 2, "eth0", "eth1")
    _must_be_stale(lab, run, times=between(2, 4), for_good=2)
    _must_carry(lab, lab.client, carried, between(45, 65))


@case(topology="four-links", groups=GROUPS, families=("4",), variables=RATE, waits_mostly=True)
def backup_flow_used_bidi_link_failure(lab: CaseLab) -> None:
    """Both ordinary links fail while both ends send: the backup carries what is left."""
    _a_path_and_a_backup(lab)
    run = _play(lab, mib(2), 2, "eth0", "eth1")
    _must_be_stale(lab, run, times=at_least(2), for_good=2)
