"""A grid of impairments on one link, measured cell by cell, and its table for ``docs/fidelity.md``."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from testbed.calibration.measure import Calibration, calibrate_direction
from testbed.topology.impairments import combine, impairment_text, parse_word, split_words
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

    from testbed.backend.namespaces import NamespaceBackend

    with (
        closing(NamespaceBackend(with_agents=False)) as backend,
        backend.up(grid_topology(realisation), lab_name, seed=_SEED) as lab,
    ):
        (link,) = lab.topology.links
        for text in cells:
            state = lab.links.put(link, _impairment(text), Impairment())
            yield calibrate_direction(lab, state.forward, link.mtu, packets)


def _impairment(text: str) -> Impairment:
    """With a seed: a cell measured again loses the same packets."""
    words = {word: parse_word(word, value) for word, value in split_words(text).items()}
    return combine(words, Impairment(seed=_SEED))


def markdown(results: Sequence[Calibration]) -> str:
    """The table as it stands in the documentation, with where and when it was measured."""
    met = sum(result.is_met for result in results)
    lines = [
        _circumstances(results),
        "",
        "| Asked | Quantity | Asked for | Achieved | Allowed | |",
        "|-|-|-:|-:|-:|-|",
    ]
    for result in results:
        text = impairment_text(result.impairment)
        for each in result.comparisons:
            lines.append(
                f"| {text} | {each.quantity} ({each.unit}) | {each.asked:.3f} | {each.achieved:.3f}"
                f" | {each.lowest:.3f} to {each.highest:.3f} | {'met' if each.is_met else '**missed**'} |"
            )
            text = ""
    off_ms = [
        abs(each.achieved - each.asked)
        for result in results
        for each in result.comparisons
        if each.quantity == "delay"
    ]
    lines += [
        "",
        (
            f"{met} of {len(results)} cells met. Mean delays are off by {statistics.median(off_ms):.3f} ms"
            f" in the median cell and by {max(off_ms):.3f} ms in the worst one."
        ),
    ]
    return "\n".join(lines)


def _circumstances(results: Sequence[Calibration]) -> str:
    packets = max(result.packets for result in results)
    realised_by = ", ".join(sorted({result.realised_by for result in results}))
    return (
        f"Measured with up to {packets} packets a cell, as many as its rate lets through in four seconds,"
        f" on Linux {platform.release()} with {os.cpu_count()} processors and Python"
        f" {platform.python_version()};"
        f" realised by: {realised_by}."
    )
