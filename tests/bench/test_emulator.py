"""``testbed bench emulator``: one short run, and its table."""

from __future__ import annotations

import argparse
import json

import pytest

from testbed.bench import emulator
from testbed.bench.emulator import SETTINGS, Throughput
from testbed.errors import UsageError
from tests.device.namespaces import missing


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    emulator.add_arguments(parser)
    return parser.parse_args(words)


def test_impossible_durations_are_refused() -> None:
    with pytest.raises(UsageError, match="--seconds: 0 is not between"):
        emulator.run(parse("--seconds", "0"))


def test_the_table_has_a_line_for_each_path() -> None:
    lines = emulator.table(
        [Throughput("veth", 1e5, 9e4, 1.0), Throughput("emulator", 8e4, 6e4, 1.0, 70_000.0, 0.667)]
    ).splitlines()
    assert lines[1].split() == ["veth", "100,000", "90,000"]
    assert lines[2].split() == ["emulator", "80,000", "60,000", "70,000", "0.67"]
    assert "60,000" in lines[3]


@pytest.mark.root
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_short_run_measures_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    emulator.run(parse("--seconds", "0.1", "--json"))
    results = json.loads(capsys.readouterr().out)["emulator"]
    assert len(results) == 1 + len(SETTINGS)
    assert results[0]["ratio_to_veth"] is None
    for result in results[1:]:
        assert result["received_packets_s"] > 1000
        assert result["packets_per_processor_s"] > 1000
        assert result["ratio_to_veth"] > 0
