"""What a case demands of its data: every way in which a transfer can go wrong is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from testbed.host.protocol import ConnectionResult
from testbed.selftests.host_view import CaseAbortedError
from testbed.selftests.lab_view import CaseLab
from testbed.selftests.results import Outcome
from testbed.selftests.transfer import Transfer
from tests.selftests.fakes import FakeNetwork, connected_agents, make_topology

Change = Callable[[ConnectionResult], ConnectionResult]


def unchanged(result: ConnectionResult) -> ConnectionResult:
    return result


def lab_with(client: Change = unchanged, server: Change = unchanged) -> CaseLab:
    """A lab in which each side reports a changed result."""
    agents = connected_agents()
    agents[0].change_result, agents[1].change_result = client, server
    return CaseLab(
        make_topology(),
        dict(zip(("client", "server"), agents, strict=True)),
        FakeNetwork(),
        4,
        1,
        settled_after_s=0,
    )


def failed(lab: CaseLab) -> list[str]:
    return [check.subject for check in lab.verdict.checks if check.outcome is Outcome.FAIL]


DAMAGES: dict[str, Change] = {
    "an error": lambda result: replace(result, error="ECONNRESET"),
    "too little sent": lambda result: replace(result, bytes_sent=result.bytes_sent - 1),
    "too little received": lambda result: replace(result, bytes_received=result.bytes_received - 1),
    "too much received": lambda result: replace(result, bytes_received=result.bytes_received + 1),
    "other bytes received": lambda result: replace(result, sha256_received="another"),
    "other bytes sent": lambda result: replace(result, sha256_sent="another"),
    "nothing hashed": lambda result: replace(result, sha256_sent="", sha256_received=""),
}


def test_an_intact_transfer_is_intact() -> None:
    lab = lab_with()
    lab.transfer(1000, 2000).must_be_intact()
    assert lab.verdict.outcome is Outcome.PASS


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("side", ["client", "server", "both"])
def test_a_damaged_transfer_is_not_intact(damage: str, side: str) -> None:
    change = DAMAGES[damage]
    lab = lab_with(
        client=change if side in ("client", "both") else unchanged,
        server=change if side in ("server", "both") else unchanged,
    )
    lab.transfer(1000, 2000).must_be_intact()
    assert failed(lab)


def plain(result: ConnectionResult) -> ConnectionResult:
    return replace(result, is_mptcp=False)


@pytest.mark.parametrize(
    ("client", "server", "speaks_mptcp", "speaks_plain_tcp"),
    [
        (unchanged, unchanged, Outcome.PASS, Outcome.FAIL),
        (plain, plain, Outcome.FAIL, Outcome.PASS),
        (plain, unchanged, Outcome.FAIL, Outcome.FAIL),
        (unchanged, plain, Outcome.FAIL, Outcome.FAIL),
    ],
)
def test_which_protocol_was_spoken(
    client: Change, server: Change, speaks_mptcp: Outcome, speaks_plain_tcp: Outcome
) -> None:
    for judge, outcome in (
        (Transfer.must_speak_mptcp, speaks_mptcp),
        (Transfer.must_speak_plain_tcp, speaks_plain_tcp),
    ):
        lab = lab_with(client, server)
        judge(lab.transfer(1, 1))
        assert lab.verdict.outcome is outcome


def cut_off(result: ConnectionResult) -> ConnectionResult:
    return replace(result, error="ECONNRESET", bytes_received=10)


def stopped(result: ConnectionResult) -> ConnectionResult:
    return replace(result, bytes_received=20)


@pytest.mark.parametrize("closer", ["client", "server"])
def test_a_transfer_that_is_cut_off(closer: str) -> None:
    def outcome(of_closer: Change, of_peer: Change) -> Outcome:
        lab = lab_with(of_closer, of_peer) if closer == "client" else lab_with(of_peer, of_closer)
        by = lab.client if closer == "client" else lab.server
        transfer = lab.aborted_transfer(1000, by=by)
        transfer.must_be_cut_off(by=by)
        return lab.verdict.outcome

    assert outcome(stopped, cut_off) is Outcome.PASS
    assert outcome(cut_off, stopped) is Outcome.FAIL
    assert outcome(stopped, stopped) is Outcome.FAIL
    # the peer heard of a reset, but had everything already: nothing was cut off
    assert outcome(unchanged, lambda result: replace(result, error="ECONNRESET")) is Outcome.FAIL


def test_results_are_not_there_before_the_end() -> None:
    lab = lab_with()
    with lab.start_transfer(1, 1) as transfer, pytest.raises(CaseAbortedError, match="not ended"):
        transfer.must_be_intact()


def test_a_transfer_waits_for_the_bytes_of_each_side() -> None:
    agents = dict(zip(("client", "server"), connected_agents(), strict=True))
    lab = CaseLab(make_topology(), agents, FakeNetwork(), 4, 1, settled_after_s=0)
    with lab.start_transfer(1000, 3000) as transfer:
        transfer.wait_until_part_arrived(0.5)
    assert agents["client"].waited_for == ["received 1500", "received 3000"]
    assert agents["server"].waited_for == ["listening", "received 500", "received 1000"]
