"""Captures and key logs in virtual time, and the folder that a failed run leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from scapy.utils import rdpcap

from mptcp_stack.mptcp.crypto import derive
from mptcp_stack.wire.frame import Frame
from testbed import cli
from testbed.backend.simulated.lab import SimulatedLab
from testbed.errors import ExitCode
from testbed.host.protocol import Role, Workload, WorkloadKind
from testbed.report.bundle import needs_bundle, write_bundle
from testbed.report.files import ReportError
from testbed.report.records import RunRecord, Software, read_records
from testbed.selftests.axes import Axes
from testbed.selftests.capture_files import CaptureError, capture_files, file_name
from testbed.selftests.case import SIMULATED, all_cases
from testbed.selftests.executor import execute
from testbed.selftests.key_log import KeyLog
from testbed.selftests.matrix import expand
from testbed.selftests.results import Outcome, RunResult
from testbed.selftests.simulated_capture import capture
from testbed.selftests.simulated_labs import open_simulated_lab
from testbed.topology.load import load_topology
from tests.selftests.test_results import FULL

LOSSY = """\
version: 1
name: lossy
nodes: {client: {kind: host}, server: {kind: host}}
links:
  - {endpoints: [client, server], impair: {loss: 5%}}
"""


def captured_run(folder: Path, name: str, family: str = "4") -> RunResult:
    (run,) = expand(all_cases(), Axes((name,), (family,), backends=(SIMULATED,)), seed=4)
    return execute(run, partial(open_simulated_lab, capture_directory=str(folder)), 60.0)


@pytest.mark.parametrize("family", ["4", "6"])
def test_one_file_for_each_link_and_the_keys(tmp_path: Path, family: str) -> None:
    result = captured_run(tmp_path, "join/single-subflow", family)
    assert result.outcome is Outcome.PASS
    *files, keys = map(Path, result.captures)
    assert len(files) == 4
    assert all(path.stat().st_size > 0 for path in files)
    word, client, server, client_key, server_key, client_token, server_token, *idsn = keys.read_text().split()
    assert word == "MPTCP"
    assert (client.startswith("["), server.startswith("[")) == (family == "6",) * 2
    first, second = derive(bytes.fromhex(client_key)), derive(bytes.fromhex(server_key))
    assert (client_token, server_token) == (f"{first.token:08x}", f"{second.token:08x}")
    assert idsn == [f"{first.initial_data_sequence:016x}", f"{second.initial_data_sequence:016x}"]
    # the client's SYN with MP_JOIN names the server's token; its endpoint is on the third link
    join = bytes((30, 12, 0x10, 0x01)) + second.token.to_bytes(4, "big")
    assert [any(join[:3] in bytes(packet) for packet in rdpcap(str(path))) for path in files] == [
        False,
        False,
        True,
        False,
    ]
    assert any(join[4:] in bytes(packet) for packet in rdpcap(str(files[2])))


def test_the_capture_changes_nothing(tmp_path: Path) -> None:
    result = captured_run(tmp_path, "paths/two-paths-are-used")
    plain = execute(result.run, open_simulated_lab, 60.0)
    assert replace(result, captures=()) == plain


def test_what_was_lost_is_told_in_a_comment(tmp_path: Path) -> None:
    path = tmp_path / "lossy.topo.yaml"
    path.write_text(LOSSY)
    topology = load_topology(str(path))
    with SimulatedLab(topology, seed=3) as lab, capture_files(topology.links, tmp_path, "x") as files:
        capture(lab, files)
        listening = Workload(WorkloadKind.TRANSFER, Role.LISTEN, "::", 0)
        listener = lab.hosts["server"].start(listening)
        address = str(topology.node("server").interfaces[0].addresses[0].ip)
        connecting = Workload(WorkloadKind.TRANSFER, Role.CONNECT, address, listener.port, send_bytes=200_000)
        lab.hosts["client"].start(connecting).result(60.0)
        (forward, _), (backward, _) = lab.wires(topology.links[0].first)
        lost = forward.counters.lost + backward.counters.lost
    data = files.links[0].path.read_bytes()
    assert lost > 0
    assert data.count(b": lost") == lost
    assert b"client:eth0" in data
    assert len(rdpcap(str(files.links[0].path))) == forward.counters.offered + backward.counters.offered


def test_keys_are_found_in_nothing_else() -> None:
    log = KeyLog()
    for data in (
        b"",
        b"\0" * 14,
        bytes(12) + b"\x08\x00" + b"\x45" * 40,
        bytes(12) + b"\x86\xdd" + bytes(60),
    ):
        log.look(Frame(data))
    assert log.text() == ""


def test_a_capture_that_cannot_be_written(tmp_path: Path) -> None:
    links = load_topology("one-path").links
    with (
        pytest.raises(CaptureError, match=r"cannot capture .*: No such file"),
        capture_files(links, tmp_path / "missing", "x"),
    ):
        pass


def test_a_capture_on_a_full_disk_is_told_once(tmp_path: Path) -> None:
    (link,) = load_topology("one-path").links[:1]
    name = file_name(f"{link.first}-{link.second}")
    (tmp_path / f"x.{name}.pcapng").symlink_to("/dev/full")
    with (
        pytest.raises(CaptureError, match=r"the capture x is incomplete: No space left on device"),
        capture_files([link], tmp_path, "x"),
    ):
        pass


def test_a_simulated_run_that_cannot_be_captured_says_so_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identifier = "connect/bulk-both-ways[4,userspace-userspace,simulated]"
    for link in load_topology("chain").links:
        name = f"{file_name(identifier)}.{file_name(f'{link.first}-{link.second}')}.pcapng"
        (tmp_path / name).symlink_to("/dev/full")
    words = ["selftest", identifier, "--backend", "simulated", "--jobs", "1"]
    code = cli.run([*words, "--pcap", str(tmp_path), "--record", "/dev/full", "--junit", str(tmp_path / "j")])
    said = capsys.readouterr()
    assert code == ExitCode.FAIL
    assert "No space left on device" in said.out
    assert "Traceback" not in said.out
    # The other report is there though the records are not.
    assert "cannot write the records: No space left on device" in said.err
    assert "bulk-both-ways" in (tmp_path / "j").read_text()


RECORD = RunRecord(5, Software("0.1", "3.11", "Linux 6.18"), FULL)


def test_a_bundle_holds_everything(tmp_path: Path) -> None:
    taken = tmp_path / "taken.pcapng"
    taken.write_bytes(b"packets")
    record = replace(RECORD, result=replace(FULL, captures=(str(taken), str(tmp_path / "missing"))))
    folder = write_bundle(tmp_path / "bundles", record)
    assert folder.name == "join_no-join_4_kernel-kernel_repetition-2"
    assert {path.name for path in folder.iterdir()} == {
        "record.jsonl",
        "report.txt",
        "replay.txt",
        "timeline.txt",
        "logs.txt",
        "topology.json",
        "client.counters.txt",
        "client.sockets.txt",
        "taken.pcapng",
    }
    assert read_records([folder / "record.jsonl"]) == [record]
    assert "x +2" in (folder / "client.counters.txt").read_text()
    assert (folder / "client.sockets.txt").read_text() == "ESTAB\n"
    assert json.loads((folder / "topology.json").read_text())["links"][0]["first"] == "a"
    assert (folder / "replay.txt").read_text().startswith("testbed selftest 'join/no-join")
    # written again, it is replaced
    assert write_bundle(tmp_path / "bundles", record) == folder


def test_only_failures_need_one() -> None:
    assert [outcome for outcome in Outcome if needs_bundle(replace(FULL, outcome=outcome))] == [
        Outcome.FAIL,
        Outcome.ERROR,
    ]


def test_a_bundle_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="cannot write the debug bundle"):
        write_bundle(tmp_path / "file", RECORD)
