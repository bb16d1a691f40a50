"""Who may import whom: ``testbed`` the stack, never the other way, and inside the stack only downwards."""

from __future__ import annotations

import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from .source_files import PACKAGES, ROOT, imported_modules, listed, module_name, place, python_files

BASE = frozenset({"errors", "counters", "trace", "settings"})
BELOW_TCP = BASE | {"wire", "ip", "congestion"}
# These three are one layer in three folders: schedulers and path managers work on connections.
MPTCP_LAYER = frozenset({"mptcp", "schedulers", "path_managers"})
BELOW_DRIVERS = BELOW_TCP | MPTCP_LAYER | {"tcp", "listener", "stack", "driver"}

MAY_IMPORT: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "counters": frozenset(),
    "trace": frozenset({"errors", "counters"}),
    "settings": frozenset({"errors"}),
    "wire": BASE,
    "ip": BASE | {"wire"},
    "congestion": BASE | {"wire"},
    "device": BASE | {"wire"},
    "tcp": BELOW_TCP,
    "mptcp": BELOW_TCP | MPTCP_LAYER | {"tcp"},
    "schedulers": BELOW_TCP | MPTCP_LAYER | {"tcp"},
    "path_managers": BELOW_TCP | MPTCP_LAYER | {"tcp"},
    "listener": BELOW_TCP | MPTCP_LAYER | {"tcp"},
    "stateless_answers": BELOW_TCP | MPTCP_LAYER | {"tcp", "listener"},
    "passive_opens": BELOW_TCP | MPTCP_LAYER | {"tcp", "listener", "stateless_answers"},
    "transparency": BELOW_TCP | MPTCP_LAYER | {"tcp", "listener"},
    "stack": BELOW_DRIVERS | {"passive_opens", "transparency"},
    "driver": BELOW_DRIVERS,
    "simulator": BELOW_DRIVERS | {"device"},
    "run_loop": BELOW_DRIVERS | {"device"},
    "control": BELOW_DRIVERS | {"device", "run_loop"},
    "sockets": BELOW_DRIVERS | {"device", "run_loop"},
}


def unit_of(module: str) -> str:
    """The part of the stack that a module belongs to: its folder or its file directly under the package."""
    return module.split(".")[1] if "." in module else ""


def stack_files() -> list[Path]:
    return [path for path in python_files("mptcp_stack") if unit_of(module_name(path))]


@pytest.mark.parametrize("package", ["mptcp_stack", "topologies"])
def test_libraries_do_not_know_the_testbed(package: str) -> None:
    offenders = [
        f"{place(path, node)} imports {name}"
        for path in python_files(package)
        for name, node in imported_modules(path)
        if name.split(".")[0] in {"testbed", "playbooks", "tests"}
    ]
    assert not offenders, listed(offenders)


def test_product_does_not_know_its_tests() -> None:
    offenders = [
        f"{place(path, node)} imports {name}"
        for path in python_files("testbed", "playbooks")
        for name, node in imported_modules(path)
        if name.split(".")[0] == "tests"
    ]
    assert not offenders, listed(offenders)


def test_every_part_of_the_stack_has_its_layer() -> None:
    unplaced = sorted({unit_of(module_name(path)) for path in stack_files()} - set(MAY_IMPORT))
    assert not unplaced, f"say in MAY_IMPORT which layers these may use: {unplaced}"


def test_the_stack_imports_downwards_only() -> None:
    offenders = []
    for path in stack_files():
        unit = unit_of(module_name(path))
        for name, node in imported_modules(path):
            if not name.startswith("mptcp_stack."):
                continue
            imported = unit_of(name)
            if imported in MAY_IMPORT and imported != unit and imported not in MAY_IMPORT.get(unit, ()):
                offenders.append(f"{place(path, node)} ({unit}) imports {name}")
    assert not offenders, listed(offenders)


def test_no_module_imports_itself_in_a_circle() -> None:
    modules = {
        module_name(path): path for path in python_files("mptcp_stack", "testbed", "topologies", "playbooks")
    }
    graph = {
        module: {
            name
            for name, _ in imported_modules(path, at_import_time_only=True)
            if name in modules and name != module
        }
        for module, path in modules.items()
    }
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as problem:
        pytest.fail("circle: " + " -> ".join(problem.args[1]))


def test_the_stack_needs_nothing_but_the_standard_library() -> None:
    offenders = [
        f"{place(path, node)} imports {name}"
        for path in python_files("mptcp_stack")
        for name, node in imported_modules(path)
        if name.split(".")[0] not in sys.stdlib_module_names | {"mptcp_stack", "__future__"}
    ]
    assert not offenders, listed(offenders)


def test_every_folder_of_python_is_a_package() -> None:
    folders = {path.parent for path in python_files()}
    assert [place(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []
    assert {folder.relative_to(ROOT).parts[0] for folder in folders} == set(PACKAGES)
