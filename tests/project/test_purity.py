"""The core is handed its time and its randomness, and does no I/O: whatever it does can be done again."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from .source_files import ROOT, imported_modules, listed, place, python_files, tree_of

# The files that touch the world: real devices, and the loop that waits on them.
DRIVERS = frozenset(
    ROOT / "mptcp_stack" / name
    for name in (
        "run_loop.py",
        "sockets/blocking.py",
        "sockets/coroutines.py",
        "sockets/lingering.py",
        "sockets/readable_event.py",
        "sockets/reconnecting.py",
        "sockets/streams.py",
        "sockets/transports.py",
        "device/packet_socket.py",
        "device/tun.py",
        "device/link_settings.py",
    )
)
FORBIDDEN_MODULES = frozenset(
    "time datetime secrets uuid tempfile select selectors asyncio threading multiprocessing subprocess "
    "signal fcntl concurrent sched numpy".split()
)
FORBIDDEN_CALLS = frozenset(
    "os.urandom os.getrandom os.times os.read os.write os.open socket.socket random.SystemRandom "
    "open input print id breakpoint".split()
)


def core_files() -> list[Path]:
    return [path for path in python_files("mptcp_stack") if path not in DRIVERS]


def impurities(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Every place in a module that reaches for a clock, the OS's randomness, or the world outside."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _impure_imports(node)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in FORBIDDEN_CALLS:
                yield node, f"calls {called}"
            elif called in {"random.Random", "Random"}:
                if not node.args and not node.keywords:
                    yield node, "makes a Random without a seed, which takes one from the OS"
            elif called.startswith("random."):
                yield node, f"calls {called}, the generator that the whole process shares"


def _impure_imports(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[ast.AST, str]]:
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    else:
        modules = [node.module or ""]
        for alias in node.names:
            full_name = f"{node.module}.{alias.name}"
            if full_name in FORBIDDEN_CALLS or (node.module == "random" and alias.name != "Random"):
                yield node, f"imports {full_name}"
    for module in modules:
        if module.split(".")[0] in FORBIDDEN_MODULES:
            yield node, f"imports {module}"


def test_core_reads_no_clock_and_no_randomness_and_does_no_io() -> None:
    offenders = [
        f"{place(path, node)} {reason}" for path in core_files() for node, reason in impurities(tree_of(path))
    ]
    assert not offenders, listed(offenders)


def test_only_drivers_import_drivers() -> None:
    driver_names = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in DRIVERS}
    offenders = [
        f"{place(path, node)} imports {name}"
        for path in core_files()
        for name, node in imported_modules(path)
        if name in driver_names
    ]
    assert not offenders, listed(offenders)


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from time import monotonic",
        "import datetime as d",
        "from os import urandom",
        "import os\nx = os.urandom(4)",
        "import random\nx = random.random()",
        "import random\nx = random.Random()",
        "from random import randint",
        "import secrets",
        "import uuid",
        "def f():\n    import time",
        "x = open('file')",
        "import socket\ns = socket.socket()",
    ],
)
def test_the_search_finds(source: str) -> None:
    assert list(impurities(ast.parse(source)))


@pytest.mark.parametrize(
    "source", ["import random\nx = random.Random(7)", "from random import Random", "self.open()", "import os"]
)
def test_the_search_lets_pass(source: str) -> None:
    assert not list(impurities(ast.parse(source)))
