"""The bundled stack and the kernel's over bad links, in real time: data intact, no fallback, no reset.

``make test`` runs a selection. The whole grid: ``pytest -m grid tests/interop``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from mptcp_stack.device.in_memory import WireSettings
from testbed.selftests.judgement import FALLBACK_NAMES
from tests.host.labs import assert_intact, transfer
from tests.interop.hosts import BadPair, bad_pair, grown

pytestmark = [pytest.mark.root, pytest.mark.kernel]

BASE = WireSettings(delay_us=2_000, split=True)
LINKS = {
    "good": BASE,
    "loss-1": WireSettings(delay_us=2_000, loss=0.01),
    "loss-5": WireSettings(delay_us=2_000, loss=0.05),
    "reordering": WireSettings(delay_us=2_000, reorder=0.1),
    "duplication": WireSettings(delay_us=2_000, duplicate=0.1),
    "jitter": WireSettings(delay_us=4_000, jitter_us=2_000),
    "all": WireSettings(delay_us=2_000, loss=0.01, reorder=0.05, duplicate=0.05, jitter_us=1_000),
}
ROLES = (("userspace", "kernel"), ("kernel", "userspace"))
ADDRESSES = {4: "10.8.0.2", 6: "fd08:0::2"}
JOINING = {4: "10.8.1.1", 6: "fd08:1::1"}
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
        hosts.pair.client.add_endpoint(JOINING[cell.family], flags={"subflow"})
        before = hosts.counters()
        client, server = transfer(
            hosts.pair, ADDRESSES[cell.family], 400_000, 300_000, protocols=("mptcp", "mptcp")
        )
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
