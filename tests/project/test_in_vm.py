"""Commands in a virtual machine: what the script refuses, and on demand (``-m vm``) that it runs them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .source_files import ROOT

SCRIPT = ROOT / "scripts/in_vm"
USAGE, UNAVAILABLE = 2, 5


def in_vm(*words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *words],
        env=os.environ | {"PATH": path or os.environ["PATH"]},
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("words", [(), ("--results",), ("--knl", "x", "true"), ("--cpus", "2")])
def test_nonsense_is_refused_with_the_usage(words: tuple[str, ...]) -> None:
    result = in_vm(*words)
    assert result.returncode == USAGE
    assert "scripts/in_vm [OPTION...] COMMAND" in result.stderr


def test_a_clock_that_counts_instructions_counts_those_of_one_processor() -> None:
    result = in_vm("--cpus", "2", "true")
    assert result.returncode == UNAVAILABLE
    assert "add --real-time or --kvm" in result.stderr


def test_missing_packages_are_named(tmp_path: Path) -> None:
    for tool in ("bash", "sort", "cat"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    result = in_vm("true", path=str(tmp_path))
    assert result.returncode == UNAVAILABLE
    assert "the Debian packages: qemu-system-x86 " in result.stderr
    assert "cpio" in result.stderr


@pytest.mark.vm
@pytest.mark.timeout(1800)
def test_a_command_runs_on_another_kernel(tmp_path: Path) -> None:
    results = tmp_path / "results"
    script = 'cat /proc/uptime && touch /usr/trace && echo "$PWD" > "$0/here" && exit 7'
    result = in_vm("--results", str(results), "bash", "-c", script, str(results))
    assert result.returncode == 7, result.stderr
    assert 0 < float(result.stdout.split()[0]) < 60
    assert (results / "here").read_text().strip() == str(ROOT)
    assert not Path("/usr/trace").exists()


@pytest.mark.vm
@pytest.mark.timeout(1800)
def test_netem_does_there_what_it_is_told() -> None:
    words = ["-m", "pytest", "-p", "no:cacheprovider", "tests/backend/test_netem.py"]
    result = in_vm(".venv/bin/python", *words)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " skipped" not in result.stdout
