"""Links measured in real namespaces: what was asked is found, and what is wrong is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed import cli
from testbed.backend.namespaces import NamespaceBackend
from testbed.calibration.grid import CELLS, grid_topology, measure_grid
from testbed.calibration.measure import calibrate_direction
from testbed.calibration.table import markdown, run_of
from testbed.errors import ExitCode
from testbed.topology.model import Impairment, Realisation
from tests.device.namespaces import missing


@pytest.mark.root
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_link_that_does_not_do_what_was_asked_is_noticed(lab_name: str) -> None:
    """The probe is told of another delay and another loss than the link has."""
    with NamespaceBackend(with_agents=False).up(grid_topology(Realisation.EMULATOR), lab_name, seed=1) as lab:
        (link,) = lab.topology.links
        lab.links.put(link, Impairment(delay_us=5_000, loss=0.3), Impairment())
        state = lab.links.state(link)
        honest = calibrate_direction(lab, state.forward, link.mtu, 400)
        assert {each.quantity for each in honest.comparisons} == {"delay", "loss"}
        claimed = type(state.forward)(
            state.forward.sender, state.forward.receiver, Impairment(delay_us=9_000, loss=0.1)
        )
        found = calibrate_direction(lab, claimed, link.mtu, 400)
        assert [each.is_met for each in found.comparisons] == [False, False]
        delay = found.comparisons[0]
        assert 4.9 < delay.achieved < 8


@pytest.mark.root
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_some_cells_of_the_grid(lab_name: str) -> None:
    cells = ["delay 5ms", "rate 20mbit delay 2ms", "loss 10%", "delay 4ms reorder 25%"]
    results = list(measure_grid(lab_name, Realisation.EMULATOR, 300, cells))
    quantities = [[each.quantity for each in result.comparisons] for result in results]
    assert quantities == [
        ["delay", "loss"],
        ["delay", "loss", "rate"],
        ["delay", "loss"],
        ["delay", "loss", "reorder"],
    ]
    rate = results[1].comparisons[-1]
    assert 18 < rate.achieved < 20.5
    table = markdown([run_of(results)])
    assert "| rate 20mbit delay 2ms | delay (ms) |" in table
    assert "| link emulator, Linux " in table


@pytest.mark.root
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_the_command_measures_every_link_of_a_topology(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.topo.yaml"
    file.write_text(
        "version: 1\nname: small\nnodes: {a: {}, r: {kind: switch}, b: {stack: tcp}}\n"
        "links:\n  - {endpoints: [a, r], impair: {delay: 3ms}}\n  - endpoints: [r, b]\n"
    )
    code = cli.run(["calibrate", str(file), "--packets", "50", "--json", "--impairments", "emulator"])
    results = json.loads(capsys.readouterr().out)
    assert code == (ExitCode.PASS if all(each["is_met"] for each in results) else ExitCode.FAIL)
    assert [each["sender"] for each in results] == ["a:eth0", "r:eth0", "r:eth1", "b:eth0"]
    assert [each["realised_by"] for each in results] == ["link emulator"] * 2 + [""] * 2
    delays = [each["comparisons"][0]["achieved"] for each in results]
    assert min(delays[:2]) > 3 > max(delays[2:])


def test_the_command_wants_to_know_what(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["calibrate"]) == ExitCode.USAGE
    assert cli.run(["calibrate", "two-paths", "--grid"]) == ExitCode.USAGE
    assert cli.run(["calibrate", "two-paths", "--packets", "5"]) == ExitCode.USAGE
    assert cli.run(["calibrate", "two-paths", "--markdown"]) == ExitCode.USAGE
    assert cli.run(["calibrate", "--grid", "--set", "rate=1mbit"]) == ExitCode.USAGE
    assert cli.run(["calibrate", "--lab", "any", "--impairments", "netem"]) == ExitCode.USAGE
    assert "one of them" in capsys.readouterr().err


def test_the_grid_covers_what_is_promised() -> None:
    text = " ".join(CELLS)
    for edge in ("delay 200ms", "rate 1mbit", "rate 500mbit", "loss 10%", "reorder 25%"):
        assert edge in text
