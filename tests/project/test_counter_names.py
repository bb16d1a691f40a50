"""A misspelt counter name would only show when its event happens: find it here instead."""

from __future__ import annotations

import ast
import platform
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mptcp_stack.counters import ALL_NAMES, MPTCP_NAMES, Counters
from testbed.selftests.judgement import full_counter_name

from .source_files import listed, place, python_files, tree_of


def counted_names(path: Path) -> Iterator[tuple[ast.Constant, str]]:
    """Literals given as the name to ``increment`` or ``decrement``, both sides of an ``if`` included."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Attribute | ast.Name):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if function in {"increment", "decrement"}:
                yield from _names_in(node.args[0])


def _names_in(argument: ast.expr) -> Iterator[tuple[ast.Constant, str]]:
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        yield argument, argument.value
    elif isinstance(argument, ast.IfExp):
        yield from _names_in(argument.body)
        yield from _names_in(argument.orelse)


def test_every_counted_name_exists() -> None:
    offenders = [
        f"{place(path, node)} {name}"
        for path in python_files("mptcp_stack")
        for node, name in counted_names(path)
        if name not in ALL_NAMES
    ]
    assert not offenders, listed(offenders)


def test_every_literal_counter_name_exists() -> None:
    pattern = re.compile(r"(MPTcpExt|TcpExtTCP|StackDrop)[A-Z]\w+")
    offenders = [
        f"{place(path, node)} {node.value}"
        for path in python_files("mptcp_stack", "testbed")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and pattern.fullmatch(node.value)
        and node.value not in ALL_NAMES
    ]
    assert not offenders, listed(offenders)


def expected_names(path: Path) -> Iterator[tuple[ast.keyword, str]]:
    for node in ast.walk(tree_of(path)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "must_count"
        ):
            yield from ((keyword, keyword.arg) for keyword in node.keywords if keyword.arg is not None)


def test_every_expected_name_exists() -> None:
    """At run time a misspelt one ends its case: this finds it without running it."""
    offenders = []
    for path in python_files("testbed"):
        for keyword, name in expected_names(path):
            try:
                full_counter_name(name)
            except ValueError as problem:
                offenders.append(f"{place(path, keyword)} {problem}")
    assert not offenders, listed(offenders)


def test_names_are_unique_and_complete() -> None:
    assert len(MPTCP_NAMES) == 76
    assert len(set(ALL_NAMES)) == len(ALL_NAMES)
    assert tuple(Counters()) == ALL_NAMES


@pytest.mark.kernel
def test_names_are_the_kernels() -> None:
    if platform.release().split(".")[:2] != ["6", "18"]:
        pytest.skip("the list is that of Linux 6.18; this kernel may count other events")
    lines = Path("/proc/net/netstat").read_text(encoding="ascii").splitlines()
    kernel_names = next((line.split()[1:] for line in lines if line.startswith("MPTcpExt:")), None)
    if kernel_names is None:
        pytest.skip("this kernel was built without MPTCP")
    assert ["MPTcpExt" + name for name in kernel_names] == list(MPTCP_NAMES)
