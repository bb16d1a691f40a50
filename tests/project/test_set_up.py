"""The set-up script where it has nothing to do or cannot go on; `make test` itself shows that it installs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .source_files import ROOT

UNAVAILABLE = 5


def copy_of_project(folder: Path) -> Path:
    """Enough of the project for the script to judge, in a folder with a space in its name."""
    copy = folder / "a clone"
    (copy / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/set_up", copy / "scripts")
    shutil.copy(ROOT / "pyproject.toml", copy)
    shutil.copy(ROOT / "Makefile", copy)
    return copy


def set_up(project: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(project / "scripts/set_up"), "runtime"],
        env={"PATH": os.environ["PATH"]} | environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def pretend_it_is_ready(project: Path) -> None:
    """What a finished set-up leaves, with the stamp computed by the script's own function."""
    script = (project / "scripts/set_up").read_text()
    function = script[script.index("project_hash() {") :].partition("\n}\n")[0] + "\n}\n"
    command = f"checkout=$(pwd -P)\n{function}project_hash"
    stamp = subprocess.run(
        ["bash", "-c", command], cwd=project, check=True, capture_output=True, text=True, timeout=20
    ).stdout
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").symlink_to("/bin/true")
    (project / ".venv/.ready-runtime").write_text(stamp + "/usr/bin/python3\n")


def test_nothing_to_do_is_done_silently(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    pretend_it_is_ready(project)
    result = set_up(project)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "change",
    [
        lambda project: (project / ".venv/.building").touch(),
        lambda project: (project / ".venv/.ready-runtime").unlink(),
        lambda project: (project / ".venv/bin/python").unlink(),
        lambda project: (project / "pyproject.toml").write_text("[project]\nname = 'other'\n"),
    ],
    ids=["interrupted", "no stamp", "no interpreter", "other project"],
)
def test_what_is_not_ready_is_noticed(tmp_path: Path, change: object) -> None:
    assert callable(change)
    project = copy_of_project(tmp_path)
    pretend_it_is_ready(project)
    change(project)
    # An interpreter that there is not ends the run before anything is installed.
    result = set_up(project, PYTHON="/no/such/python")
    assert result.returncode == UNAVAILABLE
    assert result.stderr == "set-up: PYTHON=/no/such/python is not a Python 3.11 or newer.\n"


def test_a_new_lint_rule_costs_no_installation(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    pretend_it_is_ready(project)
    with (project / "pyproject.toml").open("a") as file:
        file.write("\n[tool.ruff.lint.isort]\nforce-single-line = true\n")
    assert set_up(project).returncode == 0


def test_help_is_the_default_and_needs_no_set_up(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    result = subprocess.run(
        ["make", "-C", str(project)], check=True, capture_output=True, text=True, timeout=20
    )
    assert "make selftest" in result.stdout
    assert not (project / ".venv").exists()
