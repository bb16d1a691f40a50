"""All endpoints of a host, or of both, that go away at once while data flows."""

from __future__ import annotations

from testbed.selftests.case import case
from testbed.selftests.lab_view import CaseLab
from testbed.selftests.measurement import Measurement


def _flush(lab: CaseLab, run: Measurement, *, joined: int) -> None:
    """Both hosts at once, when all joins are done, and wait until the subflows are gone."""
    lab.wait_for_count(run.server, "MPJoinAckRx", joined)
    lab.server.flush_endpoints()
    lab.client.flush_endpoints()
    lab.wait_for(
        f"{joined} subflows removed",
        lambda: run.client.grown("RmSubflow") + run.server.grown("RmSubflow") >= joined,
    )


@case(topology="four-links", groups=("flush", "remove", "signal", "subflow"))
def flush_subflows_and_signal(lab: CaseLab) -> None:
    """One address announced by the server, two endpoints of the client: all three subflows go."""
    lab.server.limits(subflows=3)
    lab.client.limits(subflows=3, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True, backup=True)
    lab.client.endpoint("eth2", subflow=True, backup=True)
    lab.client.endpoint("eth3", subflow=True, backup=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        _flush(lab, run, joined=3)
    transfer.must_be_intact()
    run.must_join(3)
    run.must_announce(1)
    run.must_remove_at_once(3)
    run.must_not_reset()


@case(topology="four-links", groups=("flush", "remove", "subflow"))
def flush_subflows(lab: CaseLab) -> None:
    """Three endpoints of the client, one of them with an id of its own choice."""
    lab.server.limits(subflows=3, add_addr_accepted=3)
    lab.client.limits(subflows=3, add_addr_accepted=3)
    lab.client.endpoint("eth1", subflow=True, backup=True, identifier=150)
    lab.client.endpoint("eth2", subflow=True, backup=True)
    lab.client.endpoint("eth3", subflow=True, backup=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        _flush(lab, run, joined=3)
    transfer.must_be_intact()
    run.must_join(3)
    run.must_announce(0)
    run.must_remove_at_once(3)
    run.must_not_reset()


@case(topology="four-links", groups=("flush", "remove", "signal"))
def flush_addresses(lab: CaseLab) -> None:
    """Three addresses that the server has announced."""
    lab.server.limits(subflows=3, add_addr_accepted=3)
    lab.client.limits(subflows=3, add_addr_accepted=3)
    lab.server.endpoint("eth1", signal=True, backup=True, identifier=250)
    lab.server.endpoint("eth2", signal=True, backup=True)
    lab.server.endpoint("eth3", signal=True, backup=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        _flush(lab, run, joined=3)
    transfer.must_be_intact()
    run.must_join(3)
    run.must_announce(3)
    run.server.must_count(RmAddrTx=3)
    run.client.must_count(RmAddr=3)
    run.must_remove_at_once(3)
    run.must_not_reset()
