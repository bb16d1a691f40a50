"""What connections take of a bottleneck that they share.

RFC 6356 §2.1, goal 2: a multipath flow takes no more of a link than one TCP would. The model of
``queue_model.py``: a drop-tail queue of one bandwidth-delay product, whose overflow is the only loss, equal
round trips, endless sources, and acknowledgements that are up to 10 ms late at random. Chance still decides
how a single run goes, so what is asserted is the mean over seeds and links.

With less delay at random coupled connections take more, for the losses of flows in step are not those that
the papers reckon with; ``docs/protocol_coverage.md`` has the numbers.
"""

from __future__ import annotations

from statistics import mean
from typing import NamedTuple

import pytest

from tests.congestion.queue_model import Bottlenecks, Queue

SEEDS = (1, 2, 3)
SETTLING_S = 10
MEASURED_S = 75


class Link(NamedTuple):
    rate_packets_s: int
    round_trip_us: int

    @property
    def queue_packets(self) -> int:
        return self.rate_packets_s * self.round_trip_us // 1_000_000


LINKS = (Link(500, 50_000), Link(500, 100_000), Link(1000, 50_000))


def share(name: str, subflows: int, rival: str, link: Link, seed: int) -> float:
    """What a connection with so many subflows gets, in shares of the single TCP beside it."""
    bottlenecks = Bottlenecks(seed)
    way = (Queue(link.rate_packets_s, link.queue_packets), link.round_trip_us)
    members = bottlenecks.connect(name, *[way] * subflows)
    (single,) = bottlenecks.connect(rival, way)
    bottlenecks.measure(SETTLING_S, MEASURED_S)
    return sum(path.delivered_packets for path in members) / single.delivered_packets


def mean_share(name: str, subflows: int = 2, rival: str = "reno") -> float:
    return mean(share(name, subflows, rival, link, seed) for link in LINKS for seed in SEEDS)


@pytest.mark.parametrize("name", ["lia", "olia", "balia"])
def test_two_coupled_subflows_take_the_share_of_one_tcp(name: str) -> None:
    assert mean_share(name) == pytest.approx(1, abs=0.15)


def test_two_subflows_that_are_not_coupled_take_two_shares() -> None:
    assert 1.7 < mean_share("reno") < 2.6


def test_cubic_shares_evenly_with_cubic() -> None:
    assert mean_share("cubic", 1, "cubic") == pytest.approx(1, abs=0.15)


def test_cubic_leaves_reno_its_share_where_reno_does_well() -> None:
    """RFC 9438 §4.3: with round trips as short as these CUBIC grows like Reno; but it gives way by less."""
    assert 1 < mean_share("cubic", 1, "reno") < 1.5
