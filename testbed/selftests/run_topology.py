"""The topology of a run: its case's, with what the run's axes say filled in."""

from __future__ import annotations

from testbed.selftests.case import Case
from testbed.selftests.results import Run
from testbed.topology.load import load_topology
from testbed.topology.model import Topology


def run_topology(case: Case, run: Run) -> Topology:
    """Raises TopologyError."""
    variables = {
        **case.variables,
        "client_stack": run.client_stack,
        "server_stack": run.server_stack,
    }
    return load_topology(case.topology, variables)
