"""``testbed bench recovery``: its options, what it makes of arrivals, its table, and one short run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from testbed.bench import recovery
from testbed.bench.recovery import Recovery, ScenarioResult, recovery_of
from testbed.errors import UsageError
from tests.device.namespaces import missing


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    recovery.add_arguments(parser)
    return parser.parse_args(words)


def test_every_scenario_is_the_default() -> None:
    stacks, chosen = recovery.check_arguments(parse())
    assert stacks == ("userspace", "kernel")
    assert len(chosen) == 3 + 3 * 3


def test_every_bad_option_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        recovery.check_arguments(parse("--stacks", "tcp", "--repeat", "0", "--breaks", "1,0,x"))
    problems = str(caught.value).splitlines()
    assert [each.partition(":")[0] for each in problems] == ["--stacks", "--repeat", "--breaks", "--breaks"]
    with pytest.raises(UsageError, match="--only: no scenario contains 'fire'"):
        recovery.check_arguments(parse("--only", "fire"))


MS = 1000


def test_delivery_resumes_at_the_end_of_the_longest_gap_after_the_event() -> None:
    arrivals = [0, 900 * MS, 910 * MS, 930 * MS, 1400 * MS, 1410 * MS]
    assert recovery_of(arrivals, 920 * MS) == Recovery(480.0, 470.0)
    # a gap that begins before the event counts, one that ends before it does not
    assert recovery_of(arrivals, 1000 * MS) == Recovery(400.0, 470.0)
    assert recovery_of(arrivals, 1410 * MS) == Recovery(None, None)


def test_without_an_event_the_gap_is_what_is_measured() -> None:
    # that of the connection's beginning is not meant
    assert recovery_of([0, 400 * MS, 600 * MS, 750 * MS], None) == Recovery(200.0, 200.0)


def test_what_never_resumed_has_no_time() -> None:
    good, bad = Recovery(10.0, 12.0), Recovery(None, None)
    result = ScenarioResult(
        "outage", {"userspace": [good, Recovery(30.0, 31.0), good], "kernel": [good, bad]}
    )
    assert (result.median_ms("userspace"), result.median_ms("kernel")) == (10.0, None)
    assert "| outage | 10 ms | never |" in recovery.markdown([result], 3)


@pytest.mark.root
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_short_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MPTCP_TESTBED_RUNTIME_DIRECTORY", str(tmp_path))
    words = ("--stacks", "userspace", "--breaks", "0.3", "--only", "no subflow", "--json")
    assert recovery.run(parse(*words)) == 0
    (result,) = json.loads(capsys.readouterr().out)["recovery"]
    (trial,) = result["recoveries"]["userspace"]
    # nothing arrived while there was no subflow, and something did once there was one
    assert trial["gap_ms"] > 250
    assert trial["resumed_ms"] is not None
