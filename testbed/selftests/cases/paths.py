"""Two paths at once: using both, and losing one."""

from __future__ import annotations

from testbed.selftests.case import case
from testbed.selftests.judgement import at_least, at_most
from testbed.selftests.lab_view import CaseLab, mib

PATH_RATE_BIT_S = 20_000_000


@case(
    topology="two-paths",
    groups=("paths", "aggregation"),
    variables={"rate": "20mbit"},
    is_timing_sensitive=True,
)
def two_paths_are_used(lab: CaseLab) -> None:
    """Two paths of 20 Mbit/s carry one transfer: each its share, and faster than one path could."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    size = mib(6)
    with lab.measure() as run, lab.count_bytes(lab.server, "eth0", "eth1") as carried:
        started = lab.now()
        with lab.start_transfer(size, 0) as transfer:
            transfer.wait_until_part_arrived(0.99)
            elapsed_ms = round((lab.now() - started) * 1000)
    transfer.must_be_intact()
    run.must_be_one_mptcp_connection()
    run.must_join(1)
    run.must_announce(1)
    lab.note(f"bytes by path: {carried}; {elapsed_ms} ms")
    for interface, count in carried.items():
        lab.verdict.must_be_within(f"server {interface}: bytes", at_least(size // 4), count)
    one_path_ms = size * 8 * 1000 // PATH_RATE_BIT_S
    lab.verdict.must_be_within(
        "milliseconds, less than one path needs", at_most(one_path_ms * 8 // 10), elapsed_ms
    )


@case(topology="two-paths", groups=("paths", "failure"), variables={"rate": "20mbit"})
def path_killed_during_transfer(lab: CaseLab) -> None:
    """The first path goes dark in the middle, without a reset or an error: the second finishes the job."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    with (
        lab.measure() as run,
        lab.start_transfer(mib(4), 0) as transfer,
    ):
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        transfer.wait_until_part_arrived(0.3)
        lab.set_link("r1", "eth1", up=False)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_join(1)
    run.client.must_send_again()


@case(topology="two-paths", groups=("paths", "failure"), variables={"rate": "20mbit"})
def second_path_killed_during_transfer(lab: CaseLab) -> None:
    """The joined path goes dark while both ends send: the first path finishes the job, both ways."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    with (
        lab.measure() as run,
        lab.start_transfer(mib(3)) as transfer,
    ):
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        transfer.wait_until_part_arrived(0.3)
        lab.set_link("r2", "eth1", up=False)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_join(1)
