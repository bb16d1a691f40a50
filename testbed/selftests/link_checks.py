"""Whether the links of a run did what was asked of them: else its outcome says nothing of the stacks.

What impairs a link counts its decisions. Shares of packets must lie within what chance leaves but once in a
million runs; what a busy machine does to a link excuses a failure, and spoils no success.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from testbed.calibration.expectation import binomial_interval
from testbed.selftests.observations import Achieved
from testbed.topology.model import Impairment, Link, LinkEnd, Topology

if TYPE_CHECKING:
    from testbed.backend.link_control import LinkControl

CONFIDENCE = 1 - 1e-6
LATE_US, LATE_SHARE = 5000, 0.1
"""The mean lateness of delayed frames that is allowed: the larger of both."""


def achieved_by(links: LinkControl) -> Achieved:
    """Of a lab: the directions that something impairs. Raises HostError or LabError."""
    return {
        direction.sender: direction.counters
        for state in links.states()
        for direction in (state.forward, state.backward)
        if direction.counters and _is_asked_for(state.link)
    }


def wrong_shares(topology: Topology, achieved: Achieved) -> list[str]:
    """Losses, copies, flipped bits and overtakings that are too many or too few. For unchanged links."""
    found = []
    for sender, impairment, counters in _directions(topology, achieved):
        for name, asked, counted, trials in _shares(impairment, counters):
            lowest, highest = binomial_interval(trials, asked, CONFIDENCE)
            if not lowest <= counted <= highest:
                found.append(
                    f"{sender}: {name} of {asked:.2%} was asked, it met {counted} of {trials} packets"
                    f" ({lowest} to {highest} would be as asked)"
                )
    return found


def strained(topology: Topology, achieved: Achieved) -> list[str]:
    """What the machine has added of its own: frames lost before they were looked at, or held up."""
    found = []
    for sender, impairment, counters in _directions(topology, achieved):
        if overrun := counters.get("overrun", 0):
            found.append(f"{sender}: {overrun} packets came too fast for the link emulator")
        if timed := counters.get("timed", 0):
            late_us = counters.get("late_us", 0) // timed
            if late_us > max(LATE_US, LATE_SHARE * impairment.delay_us):
                found.append(f"{sender}: packets went on {late_us} us too late on average")
    return found


def _directions(
    topology: Topology, achieved: Achieved
) -> Iterator[tuple[LinkEnd, Impairment, Mapping[str, int]]]:
    """Those whose packets are counted one by one. A box makes others of them, so links with boxes are not."""
    for link in topology.links:
        for sender, impairment in ((link.first, link.forward), (link.second, link.backward)):
            counters = achieved.get(sender, {})
            if counters.get("offered") and not link.middlebox:
                yield sender, impairment, counters


def _shares(impairment: Impairment, counters: Mapping[str, int]) -> Iterator[tuple[str, float, int, int]]:
    """Name, probability asked for, how often, of how many; where packets are drawn for independently."""
    entered = counters["offered"] - counters.get("filtered", 0) - counters.get("oversized", 0)
    lost, duplicated = counters.get("lost", 0), counters.get("duplicated", 0)
    left = entered + duplicated - lost - counters.get("overflowed", 0)
    if impairment.loss_model is None and not impairment.loss_correlation:
        yield "loss", impairment.loss, lost, entered
    if not impairment.duplicate_correlation:
        yield "duplication", impairment.duplicate, duplicated, entered
    if not impairment.corrupt_correlation:
        yield "corruption", impairment.corrupt, counters.get("corrupted", 0), left
    if impairment.gap == 1 and not impairment.reorder_correlation:
        yield "reordering", impairment.reorder, counters.get("reordered", 0), left


def _is_asked_for(link: Link) -> bool:
    return (
        link.is_emulated or bool(link.middlebox) or not (link.forward.is_nothing and link.backward.is_nothing)
    )
