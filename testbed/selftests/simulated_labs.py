"""The labs of runs in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from testbed.backend.simulated.lab import SimulatedLab
from testbed.backend.simulated.links import SIMULATED
from testbed.selftests.capture_files import capture_files
from testbed.selftests.case import Case
from testbed.selftests.executor import BuiltLab
from testbed.selftests.link_checks import achieved_by
from testbed.selftests.results import Run
from testbed.selftests.run_topology import run_topology
from testbed.selftests.simulated_capture import capture
from testbed.topology.model import LinkEnd


@contextmanager
def open_simulated_lab(case: Case, run: Run, capture_directory: str | None = None) -> Iterator[BuiltLab]:
    """See :data:`testbed.selftests.executor.LabOpener`."""
    topology = run_topology(case, run)
    realised: dict[LinkEnd, str] = {}
    for link in topology.links:
        for end, impairment in ((link.first, link.forward), (link.second, link.backward)):
            if not impairment.is_nothing:
                realised[end] = SIMULATED
    with ExitStack() as closing:
        lab = closing.enter_context(SimulatedLab(topology, run.seed))
        captures: tuple[str, ...] = ()
        if capture_directory is not None:
            files = capture_files(topology.links, Path(capture_directory), run.identifier)
            captured = closing.enter_context(files)
            capture(lab, captured)
            captures = captured.paths
        yield BuiltLab(
            topology,
            lab.hosts,
            lab,
            captures,
            clock=lab.clock,
            realised=realised,
            achieved=partial(achieved_by, lab.links),
            event_loop=lab.loop,
        )
