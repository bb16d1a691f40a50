"""Topology files: ``load → check → resolve → Topology``, and text of the result.

Light to import: the parsers are loaded with the first file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from testbed.topology.model import (
    Endpoint,
    Impairment,
    Interface,
    Link,
    LinkEnd,
    MptcpSettings,
    Node,
    NodeKind,
    Realisation,
    Route,
    StackKind,
    Topology,
)

__all__ = [
    "Endpoint",
    "Impairment",
    "Interface",
    "Link",
    "LinkEnd",
    "MptcpSettings",
    "Node",
    "NodeKind",
    "Realisation",
    "Route",
    "StackKind",
    "Topology",
    "builtin_names",
    "describe",
    "load_topology",
    "to_json",
]


def load_topology(topology: str | os.PathLike[str], variables: Mapping[str, str] | None = None) -> Topology:
    """The topology of a file (its path) or of a shipped one (its name, like ``two-paths``).

    ``variables`` are for the file's Jinja2 template. Raises TopologyError with every problem, one a line.
    """
    from testbed.topology import load

    return load.load_topology(topology, variables)


def builtin_names() -> tuple[str, ...]:
    """The names of the topologies that come with the testbed."""
    from testbed.topology import load

    return load.builtin_names()


def describe(topology: Topology) -> str:
    """Everything about a topology as readable text, as ``testbed plan`` prints it."""
    from testbed.topology.plan import describe as describe_plan

    return describe_plan(topology)


def to_json(topology: Topology) -> str:
    """Everything about a topology as JSON (an object; field names as in the model)."""
    from testbed.topology.plan import to_json as plan_to_json

    return plan_to_json(topology)
