"""``testbed bench stack``: its options, its figures on a small scale, its table."""

from __future__ import annotations

import argparse
import cProfile
import json
from pathlib import Path

import pytest

import mptcp_stack.tcp.subflow
from mptcp_stack.mptcp.connection import Connection
from testbed.bench import stack
from testbed.errors import UsageError


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    stack.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(("protocol", "gso_bytes"), [("mptcp", 0), ("tcp", 0), ("mptcp", 65536)])
def test_a_transfer_counts_its_segments(protocol: str, gso_bytes: int) -> None:
    result = stack.measure_transfer("any", protocol, gso_bytes, 1 << 20)
    assert 720 <= result.segments <= 780
    assert result.sender_s > 0
    assert result.receiver_s > 0
    slower_s = max(result.sender_s, result.receiver_s)
    assert result.goodput_gbit_s == pytest.approx((1 << 23) / slower_s / 1e9)


def test_connections_are_opened_measured_and_closed() -> None:
    result = stack.measure_connections(300)
    assert result.resident_bytes >= 0
    assert result.open_s > 0
    assert result.close_s > 0
    assert 1_000 < result.bytes_each < 20_000, result


def test_another_connection_costs_the_same_however_many_are_open() -> None:
    """In calls of functions, which do not depend on how busy the machine is."""
    pair = stack.Pair()
    listener = pair.listen("mptcp", backlog=4096)
    opened: list[Connection] = []
    accepted: list[Connection] = []

    def calls_for(count: int) -> int:
        profiler = cProfile.Profile()
        profiler.runcall(stack.open_many, pair, listener, opened, accepted, count)
        return sum(entry.callcount for entry in profiler.getstats())

    # The first fill what all share.
    calls_for(100)
    among_few = calls_for(100)
    stack.open_many(pair, listener, opened, accepted, 1000)
    assert calls_for(100) < 1.1 * among_few


def test_an_idle_connection_takes_less_than_six_kilobytes() -> None:
    assert stack.bytes_each(200) < 6000


def test_the_report_is_printed_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    assert stack.run(parsed("--megabytes", "1", "--repeat", "2", "--connections", "150", "--json")) == 0
    report = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in report["transfers"]].count("mptcp, MTU-size") == 2
    assert report["transfers"][0]["name"] == "mptcp, MTU-size"
    assert len(report["profile"]) == stack.PROFILED_LINES
    assert stack.run(parsed("--megabytes", "1", "--connections", "150", "--no-profile")) == 0
    printed = capsys.readouterr().out
    assert "150 connections open at once" in printed
    assert "profile" not in printed
    # What was imported says it: the tests run on the compiled stack as well.
    is_source = Path(mptcp_stack.tcp.subflow.__file__).suffix == ".py"
    assert report["is_compiled"] is not is_source
    assert printed.startswith("The stack is plain Python.\n" if is_source else "The stack is compiled.\n")


def test_repeated_transfers_are_one_line_with_their_median_and_range() -> None:
    transfers = [stack.TransferResult("made up", 1 << 20, 1000, seconds, 0.1) for seconds in (0.5, 0.25, 0.1)]
    line = next(
        line for line in stack.table(stack.StackReport(transfers=transfers)).splitlines() if "made up" in line
    )
    assert "4,000 (2,000 to 10,000)" in line


def test_every_bad_number_is_told_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        stack.run(parsed("--megabytes", "0", "--connections", "-1"))
    assert "--megabytes" in str(caught.value)
    assert "--connections" in str(caught.value)
