"""``testbed bench goodput``: its options, its topology, its table, and one short run."""

from __future__ import annotations

import argparse
import json
from itertools import combinations
from pathlib import Path

import pytest

from testbed.bench import goodput
from testbed.bench.goodput import PAIRS, PairResult
from testbed.errors import LabError, UsageError
from testbed.host.protocol import ConnectionResult
from testbed.topology.model import StackKind
from tests.device.namespaces import missing


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quiet", action="store_true")
    goodput.add_arguments(parser)
    return parser.parse_args(words)


def test_all_pairs_are_the_default() -> None:
    assert goodput.check_arguments(parse()) == PAIRS
    assert len(PAIRS) == 4


def test_every_bad_option_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        goodput.check_arguments(parse("--stacks", "kernel-kernel,tcp-tcp", "--bytes", "0", "--repeat", "0"))
    assert "--stacks: 'tcp-tcp'" in str(caught.value)
    assert "--bytes: 0" in str(caught.value)
    assert "--repeat: 0" in str(caught.value)
    with pytest.raises(UsageError, match="--seconds: 1000"):
        goodput.check_arguments(parse("--seconds", "1000"))


def test_pairs_share_nothing() -> None:
    topology = goodput.build_topology(PAIRS)
    assert [str(node.stack) for node in topology.nodes[:4]] == ["kernel", "kernel", "userspace", "userspace"]
    assert {node.stack for node in topology.nodes} == {StackKind.KERNEL, StackKind.USERSPACE}
    interfaces = [node.interface("eth0") for node in topology.nodes]
    assert len({interface.mac for interface in interfaces}) == len({n.name for n in topology.nodes}) == 8
    for first, second in combinations(topology.links, 2):
        networks = [
            {
                address.network
                for end in (link.first, link.second)
                for address in topology.node(end.node).interface(end.interface).addresses
            }
            for link in (first, second)
        ]
        assert len(networks[0]) == len(networks[1]) == 2
        assert not networks[0] & networks[1]


def test_ratios_are_of_medians() -> None:
    results = [PairResult("kernel-kernel", 100, [9.0, 10.0, 30.0]), PairResult(PAIRS[1], 100, [2.0, 3.0])]
    goodput.compare(results)
    assert [result.median_gbit_s for result in results] == [10.0, 2.5]
    assert [result.ratio_to_kernel for result in results] == [1.0, 0.25]
    lines = goodput.table(results).splitlines()
    assert lines[2].split() == ["userspace-userspace", "2.50", "0.25", "0", "2.00", "3.00"]


def test_without_the_kernel_there_is_no_ratio() -> None:
    results = [PairResult(PAIRS[1], 100, [2.0])]
    goodput.compare(results)
    assert results[0].ratio_to_kernel is None
    assert goodput.table(results).splitlines()[1].split()[2] == "-"


GOOD = ConnectionResult(0, 500, "a", "a", 1000, True, None)


@pytest.mark.parametrize(
    ("received", "message"),
    [
        (ConnectionResult(0, 500, "", "a", 1, True, "timeout", "ESTABLISHED"), "server: timeout"),
        (ConnectionResult(0, 500, "", "a", 1, False, None), "server: the connection fell back"),
        (ConnectionResult(0, 499, "", "a", 1, True, None), "did not arrive as it was sent"),
        (ConnectionResult(0, 500, "", "b", 1, True, None), "did not arrive as it was sent"),
    ],
)
def test_a_transfer_that_went_wrong_is_no_measurement(received: ConnectionResult, message: str) -> None:
    goodput.check_transfer("pair", 500, GOOD, GOOD)
    with pytest.raises(LabError, match=message):
        goodput.check_transfer("pair", 500, GOOD, received)


@pytest.mark.root
def test_a_short_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    monkeypatch.setenv("MPTCP_TESTBED_RUNTIME_DIRECTORY", str(tmp_path))
    words = ("--stacks", "userspace-userspace", "--bytes", "1000000", "--repeat", "2", "--verify", "--json")
    assert goodput.run(parse(*words)) == 0
    (result,) = json.loads(capsys.readouterr().out)["goodput"]
    assert result["transfer_bytes"] == 1_000_000
    assert len(result["gbit_s"]) == 2
    assert min(result["gbit_s"]) > 0
