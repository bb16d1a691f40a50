"""The bundled stack and the kernel's over bad links, in real time: data intact, no fallback, no reset.

``make test`` runs a selection. The whole grid, with the kernel against itself, which shows what is to be
demanded: ``pytest -m grid tests/interop``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mptcp_stack.device.in_memory import WireSettings
from tests.host.labs import assert_intact
from tests.interop.hosts import ADDRESSES, BadPair, bad_pair, grown, transfer_over_both_links
from tests.interop.judgement import problems

pytestmark = [pytest.mark.root, pytest.mark.kernel]

CLIENT_BYTES, SERVER_BYTES = 800_000, 600_000
"""Enough that a loss of 1 % is certain to lose something."""
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
ORACLE = ("kernel", "kernel")


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
    for roles in (*ROLES, ORACLE)
    for family in ADDRESSES
    for link in LINKS
    for checksum in (False, True)
]


def is_in_selection(cell: Cell) -> bool:
    """Every link in both roles, by turns over IPv4 and IPv6, with checksums and without."""
    if cell.roles == ORACLE:
        return False
    number = list(LINKS).index(cell.link) + 2 * ROLES.index(cell.roles)
    return cell.family == (4, 6)[number % 2] and cell.checksum == bool(number // 2 % 2)


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
        client, server = transfer_over_both_links(hosts, cell.family, CLIENT_BYTES, SERVER_BYTES)
        counted = grown(hosts.counters(), before)
    assert_intact(client, server, CLIENT_BYTES, SERVER_BYTES)
    assert client.is_mptcp
    assert server.is_mptcp
    assert problems(*counted, checksum=cell.checksum) == []
    must_have_been_bad(hosts, cell.link)


def must_have_been_bad(hosts: BadPair, link: str) -> None:
    """The links did what they are named for."""
    settings = LINKS[link]
    counters = [direction.wire.counters for direction in hosts.forwarder.directions]
    assert bool(settings.loss) == any(each.lost for each in counters)
    assert bool(settings.reorder) == any(each.reordered for each in counters)
    assert bool(settings.duplicate) == any(each.duplicated for each in counters)
    assert sum(each.delivered for each in counters) > 400
