"""Many connections are judged as sets: each one's data has to arrive, on whichever connection it was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.host.protocol import ConnectionResult
from testbed.selftests.crowd import judge_crowd
from testbed.selftests.judgement import Verdict
from testbed.selftests.results import Outcome

SENT = [ConnectionResult(5, 0, f"hash {number}", "", 1, True, None) for number in range(3)]
RECEIVED = [ConnectionResult(0, 5, "", result.sha256_sent, 1, True, None) for result in SENT]


def failures(sent: list[ConnectionResult], received: list[ConnectionResult]) -> list[str]:
    verdict = Verdict()
    judge_crowd(verdict, 3, sent, received)
    return [check.subject for check in verdict.checks if check.outcome is Outcome.FAIL]


def test_any_order_is_right() -> None:
    assert failures(SENT, RECEIVED[::-1]) == []


@pytest.mark.parametrize(
    ("received", "failed"),
    [
        (RECEIVED[:2], ["connections that receive", "SHA-256 of all"]),
        ([*RECEIVED[:2], RECEIVED[0]], ["SHA-256 of all"]),
        ([*RECEIVED[:2], replace(RECEIVED[2], error="ECONNRESET")], ["errors"]),
    ],
)
def test_what_is_missing_or_mixed_up_is_found(received: list[ConnectionResult], failed: list[str]) -> None:
    assert failures(SENT, received) == failed


def test_equal_data_on_two_connections_would_prove_nothing() -> None:
    assert failures([SENT[0], SENT[0], SENT[1]], [RECEIVED[0], RECEIVED[0], RECEIVED[1]]) == [
        "different data"
    ]
