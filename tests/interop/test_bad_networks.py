"""The bundled stack and the kernel's over bad links, in real time: data intact, no fallback, no reset.

``make test`` runs a selection. The whole grid: ``pytest -m grid tests/interop``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mptcp_stack.device.in_memory import WireSettings
from testbed.selftests.judgement import FALLBACK_NAMES
from tests.host.labs import assert_intact
from tests.interop.hosts import ADDRESSES, BadPair, bad_pair, grown, transfer_over_both_links

pytestmark = [pytest.mark.root, pytest.mark.kernel]

GOOD = WireSettings(delay_us=2_000, rate_bit_s=20_000_000, split=True)
LINKS = {
    "good": GOOD,
    "loss-1": replace(GOOD, loss=0.01),
    "loss-5": replace(GOOD, loss=0.05),
    "reordering": replace(GOOD, reorder=0.1),
    "duplication": replace(GOOD, duplicate=0.1),
    "jitter": replace(GOOD, delay_us=4_000, jitter_us=2_000),
    "all": replace(GOOD, loss=0.01, reorder=0.05, duplicate=0.05, jitter_us=1_000),
}
ROLES = (("userspace", "kernel"), ("kernel", "userspace"))
NEVER = (
    *(f"MPTcpExt{name}" for name in FALLBACK_NAMES),
    *(
        f"MPTcpExt{name}"
        for name in (
            "DataCsumErr",
            "MPFailTx",
            "MPFailRx",
            "DSSCorruptionReset",
            "DSSNotMatching",
            "MPJoinAckHMacFailure",
            "MPJoinSynAckHMacFailure",
            "MPFastcloseTx",
            "MPFastcloseRx",
            "FallbackFailed",
            "MPRstTx",
            "MPRstRx",
        )
    ),
    "TcpEstabResets",
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of the grid."""

    roles: tuple[str, str]
    family: int
    link: str
    checksum: bool

    @property
    def name(self) -> str:
        return (
            f"{'-'.join(self.roles)}-ipv{self.family}-{self.link}-{'checksum' if self.checksum else 'plain'}"
        )


GRID = [
    Cell(roles, family, link, checksum)
    for roles in ROLES
    for family in ADDRESSES
    for link in LINKS
    for checksum in (False, True)
]
SELECTION: frozenset[tuple[tuple[str, str], int, str, bool]] = frozenset()
"""What `make test` plays: nothing while cells fail now and then on a reset after the last data."""


def is_in_selection(cell: Cell) -> bool:
    return (cell.roles, cell.family, cell.link, cell.checksum) in SELECTION


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, id=cell.name, marks=pytest.mark.grid(in_selection=is_in_selection(cell)))
        for cell in GRID
    ],
)
def test_data_is_intact(cell: Cell, kernel_mptcp: None, tmp_path: Path) -> None:
    with bad_pair(tmp_path, cell.roles, LINKS[cell.link], checksum=cell.checksum) as hosts:
        before = hosts.counters()
        client, server = transfer_over_both_links(hosts, cell.family, 400_000, 300_000)
        counted = grown(hosts.counters(), before)
    assert_intact(client, server, 400_000, 300_000)
    assert client.is_mptcp
    assert server.is_mptcp
    for side, counters in zip(("client", "server"), counted, strict=True):
        assert {name: counters[name] for name in NEVER if counters.get(name)} == {}, side
    must_have_been_bad(hosts, cell.link)


def must_have_been_bad(hosts: BadPair, link: str) -> None:
    """The links did what they are named for."""
    settings = LINKS[link]
    counters = [direction.wire.counters for direction in hosts.forwarder.directions]
    assert bool(settings.loss) == any(each.lost for each in counters)
    assert bool(settings.reorder) == any(each.reordered for each in counters)
    assert bool(settings.duplicate) == any(each.duplicated for each in counters)
    assert sum(each.delivered for each in counters) > 400
