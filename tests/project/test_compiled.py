"""The list of what `make compiled` compiles, and that it says what it lacks.

``pytest -m compiled tests/project`` compiles the stack, for minutes, and runs the tests of TCP and MPTCP.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .source_files import ROOT

UNAVAILABLE = 5
MODULES = "scripts/compiled_modules"


def listed_entries() -> tuple[list[Path], list[Path]]:
    """What is taken in, and what is taken out again."""
    lines = [line for line in (ROOT / MODULES).read_text().splitlines() if line and line[0] != "#"]
    taken = [ROOT / line for line in lines if line[0] != "!"]
    return taken, [ROOT / line[1:] for line in lines if line[0] == "!"]


def compile_into(target: Path, project: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(project / "scripts/compile"), str(target)],
        env={"PATH": os.environ["PATH"]} | environment,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The scripts, with the interpreter of these tests."""
    copy = tmp_path / "a clone"
    (copy / "scripts").mkdir(parents=True)
    for name in ("compile", "compiled_modules"):
        shutil.copy(ROOT / "scripts" / name, copy / "scripts")
    (copy / ".venv/bin").mkdir(parents=True)
    python = copy / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return copy


def test_the_list_names_modules_that_there_are() -> None:
    taken, left_out = listed_entries()
    assert taken
    for entry in taken:
        assert entry.is_file() or list(entry.glob("*.py")), f"{MODULES}: {entry} is not there"
    for entry in left_out:
        assert entry.is_file(), f"{MODULES}: {entry} is not there"
        assert entry.parent in taken, f"{MODULES}: {entry} would not be compiled anyway"


def test_without_a_compiler_it_says_so_in_one_line(project: Path, tmp_path: Path) -> None:
    result = compile_into(tmp_path / "out", project, CC="no-such-compiler -O")
    assert result.returncode == UNAVAILABLE
    assert result.stderr == "compile: there is no C compiler no-such-compiler (Debian: gcc)\n"
    assert not (tmp_path / "out").exists()


def test_without_set_up_it_says_so_in_one_line(project: Path, tmp_path: Path) -> None:
    (project / ".venv/bin/python").unlink()
    result = compile_into(tmp_path / "out", project)
    assert result.returncode == UNAVAILABLE
    assert result.stderr == "compile: there is no .venv: make compiled sets it up\n"


def test_without_the_headers_of_python_it_says_so_in_one_line(project: Path, tmp_path: Path) -> None:
    python = project / ".venv/bin/python"
    python.write_text('#!/bin/sh\ncase "$2" in *get_path*) echo /no/such/include;; *CC*) echo true;; esac\n')
    result = compile_into(tmp_path / "out", project)
    assert result.returncode == UNAVAILABLE
    assert result.stderr == "compile: /no/such/include/Python.h is missing (Debian: python3-dev)\n"


def test_a_folder_of_somebody_elses_is_left_alone(project: Path, tmp_path: Path) -> None:
    python = project / ".venv/bin/python"
    (tmp_path / "include").mkdir()
    (tmp_path / "include/Python.h").touch()
    python.write_text(
        f'#!/bin/sh\ncase "$2" in *get_path*) echo "{tmp_path}/include";; *CC*) echo true;; esac\n'
    )
    own = tmp_path / "own/file"
    own.parent.mkdir()
    own.touch()
    result = compile_into(own.parent, project)
    assert result.returncode == UNAVAILABLE
    assert result.stderr == f"compile: {own.parent} is not empty\n"
    assert own.exists()


@pytest.mark.compiled
@pytest.mark.timeout(1800)
def test_the_compiled_stack_passes_the_tests_of_the_protocol(tmp_path: Path) -> None:
    made = compile_into(tmp_path / "out")
    assert made.returncode == 0, made.stderr
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "tests/tcp",
            "tests/mptcp",
            "tests/soak",
            "tests/bench/test_stack.py",
        ],
        cwd=tmp_path / "out",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "out")},
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    assert re.search(r"\d{3,} passed", result.stdout), result.stdout
