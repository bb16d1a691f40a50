"""From a file or the name of a shipped topology to a resolved :class:`~testbed.topology.model.Topology`."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from testbed.errors import TopologyError
from testbed.topology.check import check
from testbed.topology.check_events import check_timeline
from testbed.topology.document import MAXIMUM_BYTES, parse_document
from testbed.topology.findings import Findings
from testbed.topology.model import Topology
from testbed.topology.problems import Mark, ProblemCollector, did_you_mean, quoted
from testbed.topology.resolve import resolve
from testbed.topology.template import render

SUFFIXES = (".topo.yaml", ".topo.yaml.j2")


def builtin_names() -> tuple[str, ...]:
    """The topologies that come with the testbed."""
    return tuple(sorted(_builtin_files()))


def load_topology(topology: str | os.PathLike[str], variables: Mapping[str, str] | None = None) -> Topology:
    """The topology of a file (its path) or of a shipped one (its name, like ``two-paths``).

    Raises TopologyError with every problem of the file, one a line.
    """
    path = _find(topology)
    text = _read(path)
    problems = ProblemCollector(str(path))
    if path.suffix == ".j2" or variables:
        text, lines = render(text, variables or {}, problems)
        problems.raise_if_any()
        problems = ProblemCollector(str(path), lambda mark: _template_mark(mark, lines))
    return load_text(text, problems, path)


def load_text(text: str, problems: ProblemCollector, path: Path | None = None) -> Topology:
    """The topology of a YAML text. Raises TopologyError with everything that is wrong with it."""
    document = parse_document(text, problems)
    checked = check(document, problems) if document is not None else None
    problems.raise_if_any()
    if checked is None or document is None:
        raise AssertionError("what cannot be read is a problem")
    topology = resolve(checked, path)
    check_timeline(checked.file, topology, Findings(document, problems))
    problems.raise_if_any()
    return topology


def _template_mark(mark: Mark, lines: list[int]) -> Mark:
    if mark.line <= len(lines):
        return Mark(lines[mark.line - 1], mark.column)
    return Mark(lines[-1] if lines else 1, mark.column)


def _builtin_files() -> dict[str, Path]:
    found = {}
    for entry in Path(str(files("topologies"))).iterdir():
        for suffix in SUFFIXES:
            if entry.name.endswith(suffix):
                found[entry.name.removesuffix(suffix)] = entry
    return found


def _find(topology: str | os.PathLike[str]) -> Path:
    path = Path(topology)
    is_name = (
        isinstance(topology, str) and os.sep not in topology and path.suffix not in {".yaml", ".yml", ".j2"}
    )
    if not is_name:
        return path
    builtin = _builtin_files()
    if topology in builtin:
        return builtin[str(topology)]
    hint = did_you_mean(str(topology), sorted(builtin))
    raise TopologyError(
        f"no topology is called {quoted(topology)} (a file's name contains '/' or ends in '.yaml') — {hint}"
    )


def _read(path: Path) -> str:
    try:
        # A FIFO would block, a device would never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise TopologyError(f"{path}: not a regular file")
        with path.open("rb") as file:
            data = file.read(MAXIMUM_BYTES + 1)
    except ValueError:
        raise TopologyError(f"{quoted(path)}: not a file's name") from None
    except OSError as error:
        raise TopologyError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAXIMUM_BYTES:
        raise TopologyError(f"{path}: larger than {MAXIMUM_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise TopologyError(f"{path}:{line}:{column}: not UTF-8 text — save the file as UTF-8") from None
