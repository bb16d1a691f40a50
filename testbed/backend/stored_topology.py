"""The resolved topology of a lab, kept beside its journal for the commands that come later."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from testbed.errors import LabError
from testbed.topology.model import Topology

_FILE_NAME = "topology.json"


def topology_to_json(topology: Topology, *, indent: int | None = None) -> str:
    """Every field of the resolved topology; the nodes once, without the index by name."""
    return (
        TypeAdapter(Topology)
        .dump_json(topology, exclude={"node_by_name"}, indent=indent, warnings="error")
        .decode()
    )


def topology_from_json(text: str | bytes) -> Topology:
    """The inverse of :func:`topology_to_json`. Raises pydantic's ValidationError."""
    return TypeAdapter(Topology).validate_json(text)


def store_topology(topology: Topology, directory: Path) -> None:
    """Raises LabError, e.g. on a full disk."""
    try:
        (directory / _FILE_NAME).write_text(topology_to_json(topology))
    except OSError as error:
        raise LabError(f"cannot store the topology in {directory}: {error.strerror}") from error


def load_stored_topology(directory: Path) -> Topology:
    """Raises LabError when the file is missing or damaged."""
    path = directory / _FILE_NAME
    try:
        return topology_from_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise LabError(f"cannot read the lab's topology from {path}: {error}") from error
