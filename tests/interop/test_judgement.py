"""What the judgement of a transfer over bad links lets pass, and what not."""

from __future__ import annotations

import pytest

from tests.interop.judgement import problems

REPEATED = {"MPTcpExtMPTCPRetrans": 3}
LATE_DATA_REFUSED = {"TcpExtTCPAbortOnData": 1}
LEFT_UNREAD = {"TcpExtTCPAbortOnClose": 1, "MPTcpExtMPRstTx": 1}
RESET = {"TcpEstabResets": 1, "MPTcpExtMPRstRx": 1}


def test_late_copies_may_be_refused() -> None:
    assert problems({}, {}, checksum=False) == []
    assert problems(REPEATED, LATE_DATA_REFUSED, checksum=False) == []
    assert problems(REPEATED | RESET, LATE_DATA_REFUSED, checksum=False) == []
    assert problems(LEFT_UNREAD, REPEATED | RESET, checksum=True) == []


@pytest.mark.parametrize(
    ("client", "server", "checksum"),
    [
        ({}, LATE_DATA_REFUSED, False),
        (REPEATED, LEFT_UNREAD, False),
        (REPEATED, LATE_DATA_REFUSED | {"MPTcpExtMPRstTx": 1}, True),
        (REPEATED | RESET, {}, False),
        (REPEATED | {"TcpEstabResets": 2}, LATE_DATA_REFUSED, False),
        (REPEATED | {"TcpExtTCPAbortOnTimeout": 1}, REPEATED, True),
        ({"MPTcpExtDSSNotMatching": 1}, {}, True),
        ({}, {"MPTcpExtDssFallback": 1}, False),
    ],
)
def test_every_other_reset_is_a_problem(
    client: dict[str, int], server: dict[str, int], checksum: bool
) -> None:
    assert problems(client, server, checksum=checksum)
    assert problems(server, client, checksum=checksum)
