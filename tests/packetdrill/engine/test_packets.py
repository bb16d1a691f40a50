"""The scripts of ``tests/packets``: on the bundled stack always, on the kernel where this machine can."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from testbed.errors import ExitCode
from testbed.packetdrill.parser import load_script
from testbed.packetdrill.session import SessionOptions, run_session
from testbed.packetdrill.suite import find_scripts

SCRIPTS = Path(__file__).parents[2] / "packets"
KERNEL_TOLERANCE_FACTOR = 5.0
"""This machine has other things to do while tests run."""


def play_all_on(stack: str, tolerance_factor: float = 1.0) -> tuple[ExitCode, str]:
    stdout = io.StringIO()
    options = SessionOptions(
        (SCRIPTS,), stack=stack, jobs=os.cpu_count() or 1, tolerance_factor=tolerance_factor
    )
    return run_session(options, stdout, io.StringIO()), stdout.getvalue()


def test_every_script_passes_on_the_bundled_stack() -> None:
    code, text = play_all_on("userspace")
    assert code is ExitCode.PASS, text


@pytest.mark.root
def test_every_script_passes_on_the_kernel() -> None:
    code, text = play_all_on("kernel", KERNEL_TOLERANCE_FACTOR)
    if code is ExitCode.SKIP:
        pytest.skip("the kernel's stack cannot be used here: " + text)
    assert code is ExitCode.PASS, text


@pytest.mark.parametrize("path", find_scripts([SCRIPTS]), ids=lambda path: path.stem)
def test_every_script_says_what_it_is_about(path: Path) -> None:
    assert load_script(path).header, path
