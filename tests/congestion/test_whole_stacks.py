"""What connections take of a link that they share, with all of the stack at work (``whole_stacks.py``).

RFC 6356 §2.1, goal 2, as ``test_shared_bottleneck.py`` has it for the controllers alone.
"""

from __future__ import annotations

import pytest

from tests.congestion.whole_stacks import Contender, mean_ratio

RENO = Contender("reno")


@pytest.mark.timeout(600)
def test_two_subflows_of_lia_take_what_one_tcp_takes() -> None:
    assert mean_ratio(Contender("lia", 2), RENO, seeds=4, duration_s=50) == pytest.approx(1, abs=0.15)


def test_two_subflows_that_are_not_coupled_take_more() -> None:
    assert mean_ratio(Contender("reno", 2), RENO, seeds=2, duration_s=30) > 1.5
