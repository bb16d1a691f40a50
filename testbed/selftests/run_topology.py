"""The topology of a run: its case's, with what the run's axes say filled in."""

from __future__ import annotations

from dataclasses import replace

from testbed.selftests.case import Case
from testbed.selftests.presets import with_preset
from testbed.selftests.results import DEFAULT, Run
from testbed.topology.load import load_topology
from testbed.topology.model import Node, NodeKind, StackKind, Topology


def run_topology(case: Case, run: Run) -> Topology:
    """Raises TopologyError."""
    variables = {
        **case.variables,
        "client_stack": run.client_stack,
        "server_stack": run.server_stack,
    }
    topology = with_preset(load_topology(case.topology, variables), run.impairment)
    return replace(topology, nodes=tuple(_with_settings(node, run) for node in topology.nodes))


def _with_settings(node: Node, run: Run) -> Node:
    """A host with what the run's axes say of its stack; what the topology says comes last, and wins."""
    if node.kind is not NodeKind.HOST:
        return node
    settings: list[tuple[str, str]] = []
    if run.congestion_control != DEFAULT:
        settings.append(("net.ipv4.tcp_congestion_control", run.congestion_control))
    if node.stack is not StackKind.TCP:
        if run.scheduler != DEFAULT:
            settings.append(("net.mptcp.scheduler", run.scheduler))
        if run.checksum:
            settings.append(("net.mptcp.checksum_enabled", "1"))
    return replace(node, sysctls=(*settings, *node.sysctls))
