"""Calibrates the links of a lab, one direction after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.calibration.expectation import expect
from testbed.calibration.probe import ETHERNET_HEADER_BYTES, PROBE_BYTES, Probe, probe
from testbed.calibration.verdict import Comparison, compare
from testbed.topology.impairments import link_settings
from testbed.topology.model import Impairment, Link, LinkEnd

if TYPE_CHECKING:
    from testbed.backend.lab import Lab
    from testbed.backend.link_control import DirectionState

DEFAULT_PACKETS = 2000
_SHORTEST_SPACING_US = 500.0
_LONGEST_PROBE_S = 4.0
_FLOOD_S = 1.0
_OVERLOAD = 1.3
_HELD_UP = 0.95
"""A flood below this share of what it should be was held up by a busy machine, and is repeated."""
_FLOODS = 5


@dataclass(frozen=True, slots=True)
class Calibration:
    """One direction of a link, measured."""

    sender: LinkEnd
    receiver: LinkEnd
    impairment: Impairment
    realised_by: str
    packets: int
    comparisons: tuple[Comparison, ...]

    @property
    def is_met(self) -> bool:
        return all(comparison.is_met for comparison in self.comparisons)


def calibrate(
    lab: Lab, links: Iterable[Link] | None = None, packets: int = DEFAULT_PACKETS
) -> Iterator[Calibration]:
    """Every direction of these links, of all of the lab's without them."""
    for link in lab.topology.links if links is None else links:
        state = lab.links.state(link)
        for direction in (state.forward, state.backward):
            yield calibrate_direction(lab, direction, link.mtu, packets)


def calibrate_direction(lab: Lab, direction: DirectionState, mtu: int, packets: int) -> Calibration:
    """What is in force against what the link does."""
    settings = link_settings(direction.impairment, mtu)
    rate_bit_s = settings.rate_bit_s
    spacing_us = _SHORTEST_SPACING_US
    if rate_bit_s is not None:
        spacing_us = max(spacing_us, 2.5e6 * 8 * PROBE_BYTES / rate_bit_s)
    count = max(10, min(packets, int(_LONGEST_PROBE_S * 1e6 / spacing_us)))
    expectation = expect(settings, spacing_us)
    with probe(lab, direction.sender, direction.receiver) as sockets:
        arrivals = sockets.spaced(count, spacing_us, expectation.longest_delay_us)
        achieved_bit_s = None
        frame_bytes = mtu + ETHERNET_HEADER_BYTES
        if rate_bit_s is not None:
            offered_bit_s = _OVERLOAD * rate_bit_s / max(1 - expectation.loss, 0.1)
            seconds = max(_FLOOD_S, 200 * 8 * frame_bytes / rate_bit_s)
            longest_us = expectation.longest_delay_us
            achieved_bit_s = _rate(sockets, offered_bit_s, seconds, frame_bytes, longest_us)
    return Calibration(
        direction.sender,
        direction.receiver,
        direction.impairment,
        direction.realised_by,
        count,
        tuple(compare(settings, expectation, arrivals, achieved_bit_s, frame_bytes)),
    )


def _rate(
    sockets: Probe, rate_bit_s: float, seconds: float, frame_bytes: int, longest_delay_us: float
) -> float:
    """What came out while more than the link's rate went in: a sender held up would measure itself."""
    attempts = []
    for _ in range(_FLOODS):
        offered_bit_s, achieved_bit_s = sockets.flood(rate_bit_s, seconds, frame_bytes, longest_delay_us)
        attempts.append((offered_bit_s, achieved_bit_s))
        if offered_bit_s >= rate_bit_s * _HELD_UP:
            break
    return max(attempts)[1]
