"""A grid of impairments on one link, measured cell by cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from testbed.calibration.measure import Calibration, calibrate_direction
from testbed.topology.impairments import combine, parse_word, split_words
from testbed.topology.model import Impairment, Realisation

if TYPE_CHECKING:
    from testbed.topology.model import Topology

CELLS = (
    *("delay 1ms", "delay 5ms", "delay 10ms", "delay 20ms", "delay 50ms", "delay 100ms", "delay 200ms"),
    *("rate 1mbit", "rate 2mbit", "rate 5mbit", "rate 10mbit", "rate 20mbit", "rate 50mbit"),
    *("rate 100mbit", "rate 200mbit", "rate 500mbit"),
    *(
        "rate 10mbit delay 10ms",
        "rate 10mbit delay 100ms",
        "rate 100mbit delay 20ms",
        "rate 100mbit delay 200ms",
    ),
    *("loss 0.1%", "loss 0.5%", "loss 1%", "loss 2%", "loss 5%", "loss 10%"),
    *("delay 10ms loss gemodel 1% 20%", "delay 10ms loss state 1% 30%"),
    *(
        "delay 10ms reorder 1%",
        "delay 10ms reorder 5%",
        "delay 10ms reorder 25%",
        "delay 10ms reorder 100% gap 5",
    ),
    *("delay 20ms 5ms", "delay 20ms 5ms distribution normal", "delay 20ms 5ms distribution pareto"),
    "delay 20ms 5ms distribution paretonormal",
    *("duplicate 1%", "corrupt 1%", "delay 5ms slot 2ms 4ms"),
    "rate 50mbit delay 30ms 2ms loss 1% duplicate 0.5% corrupt 0.5%",
)
"""Delay 0 to 200 ms, rate 1 to 500 Mbit/s, loss 0 to 10 %, reordering 0 to 25 %, and the other words."""

_FILE = """\
version: 1
name: calibration
nodes: {sender: {stack: tcp}, receiver: {stack: tcp}}
links:
  - endpoints: [sender, receiver]
    impair: {"->": delay 1ms}
"""
_SEED = 5


def grid_topology(realisation: Realisation) -> Topology:
    """Two hosts and one link."""
    from dataclasses import replace

    from testbed.topology.load import load_text
    from testbed.topology.problems import ProblemCollector

    topology = load_text(_FILE, ProblemCollector("calibration"))
    return replace(topology, impairments=realisation)


def measure_grid(
    lab_name: str, realisation: Realisation, packets: int, cells: Sequence[str] = CELLS
) -> Iterator[Calibration]:
    """One cell after the other, on one link whose impairment is exchanged."""
    from contextlib import closing

    from testbed.backend.link_control import EMULATOR
    from testbed.backend.namespaces import NamespaceBackend

    with (
        closing(NamespaceBackend(with_agents=False)) as backend,
        backend.up(grid_topology(realisation), lab_name, seed=_SEED) as lab,
    ):
        (link,) = lab.topology.links
        # With a seed, a cell measured again loses the same packets; netem takes one on recent kernels only.
        is_seeded = lab.links.state(link).forward.realised_by == EMULATOR
        unimpaired = Impairment(seed=_SEED if is_seeded else None)
        for text in cells:
            state = lab.links.put(link, _impairment(text, unimpaired), Impairment())
            yield calibrate_direction(lab, state.forward, link.mtu, packets)


def _impairment(text: str, unimpaired: Impairment) -> Impairment:
    words = {word: parse_word(word, value) for word, value in split_words(text).items()}
    return combine(words, unimpaired)
