"""The labs of runs in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from testbed.backend.simulated.lab import SimulatedLab
from testbed.selftests.case import Case
from testbed.selftests.executor import BuiltLab
from testbed.selftests.results import Run
from testbed.selftests.run_topology import run_topology
from testbed.topology.model import LinkEnd


@contextmanager
def open_simulated_lab(case: Case, run: Run) -> Iterator[BuiltLab]:
    """See :data:`testbed.selftests.executor.LabOpener`."""
    topology = run_topology(case, run)
    realised: dict[LinkEnd, str] = {}
    for link in topology.links:
        for end, impairment in ((link.first, link.forward), (link.second, link.backward)):
            if not impairment.is_nothing:
                realised[end] = "link model of the simulator"
    with SimulatedLab(topology, run.seed) as lab:
        yield BuiltLab(topology, lab.hosts, lab, clock=lab.clock, realised=realised)
