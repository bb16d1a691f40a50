"""Many connections at once, many senders at once, rivals at a bottleneck, and connections that do nothing."""

from __future__ import annotations

from testbed.selftests.case import SLOW, case
from testbed.selftests.crowd import Crowd
from testbed.selftests.judgement import at_least, between
from testbed.selftests.lab_view import CaseLab, kib

FAMILIES = ("4", "6")
MANY = 100


@case(topology="two-paths", groups=("crowd", "many-connections"), families=FAMILIES)
def many_connections(lab: CaseLab) -> None:
    """A hundred connections at once, each with a second subflow."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth1", subflow=True)
    with lab.measure() as run:
        Crowd(lab, {"client": lab.client.agent}, kib(32), connections=MANY).finish()
    run.client.must_count(MPCapableSYNTX=MANY, MPCapableSYNACKRX=MANY)
    run.server.must_count(MPCapableSYNRX=at_least(MANY), MPCapableACKRX=MANY)
    run.must_not_fall_back()
    run.must_join(MANY)


@case(topology="incast", groups=("crowd", "incast"), families=FAMILIES, variables={"senders": "8"})
def incast(lab: CaseLab) -> None:
    """Eight hosts send to one at once, through a queue that cannot hold all of it."""
    senders = {name: agent for name, agent in lab.agents.items() if name != "server"}
    with lab.measure() as run:
        Crowd(lab, senders, kib(256)).finish()
    run.server.must_count(MPCapableACKRX=len(senders))
    run.server.must_count(MPCapableFallbackACK=0)


@case(
    topology="shared-bottleneck",
    groups=("fairness", "congestion", SLOW),
    families=("4",),
    stacks=("userspace-userspace", "userspace-kernel"),
    variables={"congestion": "lia", "rate": "4mbit"},
    is_timing_sensitive=True,
)
def coupled_at_a_shared_bottleneck(lab: CaseLab) -> None:
    """Two coupled subflows beside a connection with one: together they take about as much (RFC 6356 §3).

    Only the bundled stack has coupled congestion control, so it is the one that sends.
    """
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth1", subflow=True)
    coupled = lab.endless_transfer()
    lab.wait_for_connections(lab.server, 1)
    rival = lab.endless_transfer("tcp")
    lab.wait_until(lab.now() + 4.0)
    before = coupled.received("server"), rival.received("server")
    lab.wait_until(lab.now() + 12.0)
    after = coupled.received("server"), rival.received("server")
    lab.abandon_transfers()
    shares = [end - start for start, end in zip(before, after, strict=True)]
    percent = round(100 * shares[0] / max(1, sum(shares)))
    lab.note(f"coupled {shares[0]} bytes, rival {shares[1]}: {percent} %")
    lab.verdict.must_be_within("share of the coupled subflows in percent", between(30, 62), percent)


@case(topology="two-paths", groups=("idle", SLOW), families=("4",), waits_mostly=True)
def long_idle(lab: CaseLab) -> None:
    """Nothing is said for three seconds, in virtual time for three hours: both subflows outlive it."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth1", subflow=True)
    idle_s = 3 * 3600 if lab.is_virtual else 3
    with (
        lab.measure() as run,
        lab.start_transfer(
            kib(128),
            chunk_bytes=kib(64),
            pause_us=idle_s * 1_000_000,
            timeout_s=3 * idle_s + 30,
            lifetime_s=3 * idle_s + 60,
        ) as transfer,
    ):
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_be_one_mptcp_connection()
    run.must_join(1)
    run.must_not_reset()
