"""The table of a grid, with what other machines measured beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from testbed import cli
from testbed.calibration.measure import Calibration
from testbed.calibration.table import machine, markdown, read_run, run_of, to_object
from testbed.calibration.verdict import Comparison
from testbed.errors import ExitCode, UsageError
from testbed.topology.model import Impairment, LinkEnd


def calibration(delay_ms: float, achieved_ms: float, realised_by: str = "link emulator") -> Calibration:
    comparison = Comparison("delay", "ms", delay_ms, achieved_ms, delay_ms - 0.3, delay_ms + 0.3)
    impairment = Impairment(delay_us=round(delay_ms * 1000))
    return Calibration(
        LinkEnd("a", "eth0"), LinkEnd("b", "eth0"), impairment, realised_by, 500, (comparison,)
    )


def written(folder: Path, results: Sequence[Calibration]) -> str:
    file = folder / "elsewhere.json"
    file.write_text(json.dumps([to_object(result) for result in results]))
    return str(file)


def test_runs_stand_side_by_side_and_what_was_missed_stands_out(tmp_path: Path) -> None:
    here = run_of([calibration(5, 5.1), calibration(9, 9.1)])
    elsewhere = read_run(written(tmp_path, [calibration(5, 5.9, "kernel's netem")]))
    assert elsewhere == run_of([calibration(5, 5.9, "kernel's netem")])
    table = markdown([here, replace(elsewhere, machine="Linux 9.9, 1 × wheel")]).splitlines()
    assert table[1].startswith("* kernel's netem: with up to 500 packets a cell, ")
    assert table[1].endswith("; Linux 9.9, 1 × wheel.")
    assert "| kernel's netem, Linux 9.9 |" in table[3]
    assert table[5:7] == [
        "| delay 5ms | delay (ms) | 5.000 | 4.700 to 5.300 | 5.100 | **5.900**, missed |",
        "| delay 9ms | delay (ms) | 9.000 | 8.700 to 9.300 | 9.100 | not measured |",
    ]
    assert table[-1].startswith(
        "* kernel's netem, Linux 9.9: 0 of 1 cells met. Mean delays are off by 0.900 ms"
    )


def test_the_machine_is_named() -> None:
    assert re.match(r"Linux \S+, \d+ × .+, Python 3\.", machine())


@pytest.mark.parametrize("text", ["", "[]", "{}", "[5]", '[{"machine": "x"}]'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(UsageError, match="not what 'testbed calibrate --grid --json' prints"):
        read_run(str(file))
    assert cli.run(["calibrate", "--grid", "--markdown", "--beside", str(file)]) == ExitCode.USAGE
    assert cli.run(["calibrate", "--grid", "--beside", str(file)]) == ExitCode.USAGE
