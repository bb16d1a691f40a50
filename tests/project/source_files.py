"""The project's own source as text and syntax trees, for the tests that judge its form."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("mptcp_stack", "testbed", "topologies", "playbooks", "tests")


@cache
def python_files(*packages: str) -> tuple[Path, ...]:
    """Every Python file of the packages (all of them when none is named), in order."""
    return tuple(path for package in packages or PACKAGES for path in sorted((ROOT / package).rglob("*.py")))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def place(path: Path, node: ast.AST | None = None) -> str:
    """``package/file.py`` or ``package/file.py:12``, as an editor understands it."""
    name = path.relative_to(ROOT).as_posix()
    line = getattr(node, "lineno", None)
    return name if line is None else f"{name}:{line}"


def listed(offenders: Iterable[str]) -> str:
    """All of them, one a line: pytest's own comparison shows only the first few."""
    return "".join(f"\n  {offender}" for offender in offenders)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path, *, at_import_time_only: bool = False) -> Iterator[tuple[str, ast.stmt]]:
    """Absolute names of what a file imports; ``from package import name`` gives ``package.name`` too.

    With ``at_import_time_only`` leaves out what stands in functions or under ``if TYPE_CHECKING``.
    """
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in _statements(tree_of(path).body, at_import_time_only):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            yield base, node
            for alias in node.names:
                yield f"{base}.{alias.name}", node


def _statements(body: list[ast.stmt], at_import_time_only: bool) -> Iterator[ast.stmt]:
    for node in body:
        if at_import_time_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if at_import_time_only and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                yield from _statements([child], at_import_time_only)
            elif isinstance(child, ast.ExceptHandler | ast.match_case):
                yield from _statements(child.body, at_import_time_only)
