"""``testbed bench aggregation``: its options, what it compares with, virtual time, and one short run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from testbed.backend.simulated.lab import SimulatedLab
from testbed.bench import aggregation
from testbed.bench.aggregation import FRAME_BYTES, PAYLOAD_BYTES, TARGET, Cell, CellResult
from testbed.bench.two_paths import host_pairs, impaired, two_path_topology
from testbed.errors import UsageError
from tests.device.namespaces import missing


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    aggregation.add_arguments(parser)
    return parser.parse_args(words)


def test_every_cell_is_the_default() -> None:
    stacks, cells = aggregation.check_arguments(parse())
    assert stacks == ("userspace", "kernel")
    assert len(cells) == len(set(cells)) == 4 * 3 * 2
    assert cells[0] == Cell((10, 10), (0, 0))
    assert cells[-1] == Cell((100, 100), (25, 1), 1.0)


def test_every_bad_option_is_named() -> None:
    words = ("--stacks", "windows", "--seconds", "0", "--repeat", "0", "--loss", "a", "--rates", "10/0")
    with pytest.raises(UsageError) as caught:
        aggregation.check_arguments(parse(*words, "--delays", "1,2/3"))
    problems = str(caught.value).splitlines()
    assert [problem.partition(":")[0] for problem in problems] == [
        "--stacks",
        "--seconds",
        "--repeat",
        "--rates",
        "--delays",
        "--loss",
    ]


def test_shares_are_of_the_payload_rate() -> None:
    cell = Cell((30, 10), (1, 25))
    assert (FRAME_BYTES, PAYLOAD_BYTES) == (1514, 1424)
    assert cell.payload_mbit_s == pytest.approx(40 * 1424 / 1514)
    result = CellResult(cell, {"userspace": [36.0, 1.0, 38.0], "kernel": [18.0]})
    assert result.share("userspace") == pytest.approx(36.0 / cell.payload_mbit_s)
    assert result.ratio_to_kernel == 2.0
    assert "2.00 of the kernel's" in aggregation.line(result)


def test_the_tables_have_a_row_for_each_cell() -> None:
    results = [
        CellResult(Cell((10, 3), (0, 0), loss), {"userspace": [12.0], "kernel": [11.0]})
        for loss in (0.0, 1.0)
    ]
    text = aggregation.markdown(results, 10.0, 1)
    assert text.count("| 10/3 | 0/0 | 12.23 | 12.00 | 0.981 | 11.00 | 0.900 | 1.09 |") == 2
    assert "**1 % loss**" in text


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [(Cell((10, 10), (0, 0)), 2.0), (Cell((10, 3), (1, 25)), 4.0), (Cell((10, 3), (25, 1)), 5.0)],
    ids=str,
)
def test_two_paths_are_filled_in_virtual_time(cell: Cell, seconds: float) -> None:
    topology = impaired(two_path_topology(("userspace",)), list(cell.impairments(seed=1)))
    with SimulatedLab(topology, seed=1) as lab:
        (pair,) = host_pairs(topology, lab.hosts)
        pair.allow_both_paths()
        carried = pair.send_for(seconds, lab.clock)
    assert TARGET <= carried.mbit_s / cell.payload_mbit_s <= 1.0


def test_virtual_time_is_the_bundled_stack_alone(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--virtual-time", "--seconds", "1", "--rates", "4/4", "--delays", "0/0", "--loss", "0")
    assert aggregation.run(parse(*words, "--markdown")) == 0
    assert "1 s each, once, in virtual time." in (table := capsys.readouterr().out)
    assert "| userspace | share | userspace / kernel |" in table


@pytest.mark.root
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_short_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MPTCP_TESTBED_RUNTIME_DIRECTORY", str(tmp_path))
    words = (
        "--stacks",
        "userspace",
        "--seconds",
        "0.5",
        "--rates",
        "10/10",
        "--delays",
        "0/0",
        "--loss",
        "0",
    )
    assert aggregation.run(parse(*words, "--json")) == 0
    (result,) = json.loads(capsys.readouterr().out)["aggregation"]
    (mbit_s,) = result["mbit_s"]["userspace"]
    # not more than both paths have; how little, is the machine's affair
    assert 0 < mbit_s / result["payload_mbit_s"] < 1.05
