"""Captures in the middle of emulated links: every packet is there, and says what befell it."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.utils import rdpcap

from testbed.backend.namespaces import NamespaceBackend
from testbed.errors import HostError
from testbed.selftests.capture import captured_links
from testbed.selftests.captured_frames import captured_frames
from testbed.topology.changes import moved
from testbed.topology.load import load_text
from testbed.topology.model import LinkEnd
from testbed.topology.problems import ProblemCollector

from .connections import can_talk
from .test_impaired_links import datagrams, lab_of, received, send_numbered, two_hosts

IMPAIRED = (
    '{"->": {loss: 20%, duplicate: 10%, corrupt: 10%, delay: 5ms, reorder: 20%, rate: 10mbit, limit: 20}}'
)


@pytest.mark.root
def test_decisions_are_comments_and_there_are_as_many_as_were_counted(lab_name: str, tmp_path: Path) -> None:
    with lab_of(two_hosts(IMPAIRED), lab_name) as lab, datagrams(lab) as (sender, receiver):
        link = lab.links.link_at("a:eth0")
        before = lab.links.state(link).forward.counters
        with captured_links(lab, tmp_path, "x") as paths:
            send_numbered(sender, 600, 0.0001)
            arrived = received(receiver)
        after = lab.links.state(link).forward.counters
    path = Path(paths[0])
    packets = [bytes(packet) for packet in rdpcap(str(path))]
    frames = [frame.to_bytes() for frame in captured_frames(path)]
    assert frames == packets
    # Those that were lost are there as well; ARP may take part.
    assert len(packets) == pytest.approx(600, abs=5)
    assert len(arrived) < 600
    data = path.read_bytes()
    for words, counted in (
        ("lost", "lost"),
        ("dropped by a full queue", "overflowed"),
        ("duplicated", "duplicated"),
        ("sent ahead of others", "reordered"),
    ):
        told = data.count(words.encode()) + data.count(f"{words} twice".encode())
        assert told == after[counted] - before[counted] > 0
    assert 0 < data.count(b" flipped") <= after["corrupted"] - before["corrupted"]
    assert b"a:eth0" in data


@pytest.mark.root
def test_both_directions_and_times_are_there(lab_name: str, tmp_path: Path) -> None:
    with lab_of(two_hosts("delay 5ms"), lab_name) as lab, datagrams(lab) as (sender, receiver):
        with captured_links(lab, tmp_path, "x") as paths:
            send_numbered(sender, 3)
            received(receiver)
            receiver.sendto(b"back", ("10.0.1.1", 4000))
            sender.recv(100)
        size = Path(paths[0]).stat().st_size
        send_numbered(sender, 3)
        received(receiver)
        assert Path(paths[0]).stat().st_size == size, "it has ended"
    stamps_s = [float(packet.time) for packet in rdpcap(paths[0])]
    assert stamps_s == sorted(stamps_s)
    assert abs(stamps_s[0] - Path(paths[0]).stat().st_mtime) < 60


@pytest.mark.root
def test_a_file_that_cannot_be_written_is_told_at_once(lab_name: str, tmp_path: Path) -> None:
    with lab_of(two_hosts("delay 5ms"), lab_name) as lab:
        capture = lab.links.capturer(lab.links.link_at("a:eth0"))
        assert capture is not None
        with pytest.raises(HostError, match="No such file or directory"):
            capture(tmp_path / "nowhere" / "x.pcapng")
        capture(Path("/dev/full"))
        with datagrams(lab) as (sender, receiver):
            send_numbered(sender, 10)
            assert len(received(receiver)) == 10, "traffic goes on"
        with pytest.raises(HostError, match=r"incomplete: No space left on device"):
            capture(None)
        assert lab.links.state(lab.links.link_at("a:eth0")).forward.counters["offered"] > 0


@pytest.mark.root
def test_links_without_an_emulator_have_no_such_capture(lab_name: str) -> None:
    with lab_of(two_hosts("{}"), lab_name) as lab:
        assert lab.links.capturer(lab.links.link_at("a:eth0")) is None


@pytest.mark.root
def test_a_cable_that_moves_and_a_link_that_goes_down_are_captured_on(lab_name: str, tmp_path: Path) -> None:
    """Of a link whose first end is a switch's, at its other one."""
    hosts = ", ".join(f"{name}: {{stack: tcp}}" for name in "abcd")
    links = "".join(f"  - endpoints: [{ends}]\n" for ends in ("home, a", "home, b", "office, c", "office, d"))
    topology = load_text(
        f"version: 1\nname: moving\nnodes: {{home: {{kind: switch}}, office: {{kind: switch}}, {hosts}}}\n"
        f"links:\n{links}",
        ProblemCollector("moving"),
    )
    with NamespaceBackend(with_agents=False).up(topology, lab_name) as lab:
        with captured_links(lab, tmp_path, "x") as paths:
            assert can_talk(lab, "a", "b", "10.0.1.2")
            lab.set_link("a", "eth0", up=False)
            lab.set_link("a", "eth0", up=True)
            lab.reconfigure(moved(topology, LinkEnd("a", "eth0"), "office"))
            assert can_talk(lab, "a", "c", "10.0.2.1")
        packets = rdpcap(paths[0])
    to_b, to_c = (
        [packet for packet in packets if IP in packet and packet[IP].dst == address]
        for address in ("10.0.1.2", "10.0.2.1")
    )
    assert len(to_b) >= 4
    assert len(to_c) >= 4
