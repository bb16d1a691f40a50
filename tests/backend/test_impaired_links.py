"""Links with something in their middle, in real namespaces: what happens to packets, and what is left."""

from __future__ import annotations

import os
import select
import signal
import socket
import statistics
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from testbed.backend import ownership
from testbed.backend.impaired_links import LINKS_NODE, cut_links, direction_seed, link_configurations
from testbed.backend.lab import Lab
from testbed.backend.namespaces import NamespaceBackend
from testbed.emulator.control import EmulatorClient
from testbed.errors import HostError, LabError
from testbed.topology.load import load_text
from testbed.topology.model import Impairment, LinkEnd, Realisation, Topology
from testbed.topology.problems import ProblemCollector

from .conftest import namespaces_of
from .connections import can_talk, connection, inside
from .topologies import two_paths

PORT = 4000
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_STAMP = struct.Struct("=qq")


def two_hosts(impair: str, stack: str = "tcp") -> Topology:
    return load_text(
        "version: 1\nname: two\n"
        f"nodes: {{a: {{stack: {stack}}}, b: {{stack: {stack}}}}}\n"
        f"links:\n  - endpoints: [a, b]\n    impair: {impair}\n",
        ProblemCollector("two"),
    )


def emulated(impair: str, stack: str = "tcp") -> Topology:
    """By the link emulator also where the kernel has a netem."""
    return replace(two_hosts(impair, stack), impairments=Realisation.EMULATOR)


@contextmanager
def lab_of(topology: Topology, name: str) -> Iterator[Lab]:
    topology = replace(topology, impairments=Realisation.EMULATOR)
    with NamespaceBackend(with_agents=False).up(topology, name, seed=5) as lab:
        yield lab


@contextmanager
def datagrams(lab: Lab) -> Iterator[tuple[socket.socket, socket.socket]]:
    """From a to b; both know each other's MAC address already."""
    with ExitStack() as closing:
        sockets = []
        for node, address in (("a", "10.0.1.1"), ("b", "10.0.1.2")):
            with inside(lab, node):
                datagram_socket = closing.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            datagram_socket.bind((address, PORT))
            datagram_socket.settimeout(5)
            sockets.append(datagram_socket)
        sender, receiver = sockets
        receiver.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
        for _ in range(20):
            sender.sendto(b"", ("10.0.1.2", PORT))
            if select.select([receiver], [], [], 1)[0]:
                break
        while select.select([receiver], [], [], 0.2)[0]:
            receiver.recv(10)
        yield sender, receiver


def send_numbered(sender: socket.socket, count: int, spacing_s: float = 0.0, length: int = 200) -> None:
    """Datagrams that bear their number and the time at which they were sent."""
    start = time.monotonic()
    for number in range(count):
        while time.monotonic() < start + number * spacing_s:
            select.select([], [], [], 0.0002)
        stamp = _STAMP.pack(number, time.time_ns())
        sender.sendto(stamp + bytes(length - len(stamp)), ("10.0.1.2", PORT))


def received(receiver: socket.socket, quiet_s: float = 0.3) -> list[tuple[int, float]]:
    """Number and milliseconds on the way of every datagram, in the order of arrival."""
    arrivals = []
    while select.select([receiver], [], [], quiet_s)[0]:
        data, ancillary, _flags, _address = receiver.recvmsg(4096, 64)
        number, sent_ns = _STAMP.unpack_from(data)
        seconds, nanoseconds = _STAMP.unpack(ancillary[0][2])
        arrivals.append((number, (seconds * 10**9 + nanoseconds - sent_ns) / 1e6))
    return arrivals


def emulator(lab: Lab) -> EmulatorClient:
    return EmulatorClient(lab.directory / "links")


def counters(lab: Lab, direction: str = "->") -> dict[str, int]:
    shown = emulator(lab).request(method="show", link="a:eth0")
    counted: dict[str, int] = shown[direction]["counters"]
    return counted


@pytest.mark.root
def test_delay_is_what_was_asked_for(lab_name: str) -> None:
    with lab_of(two_hosts('{"->": {delay: 20ms}}'), lab_name) as lab, datagrams(lab) as (sender, receiver):
        send_numbered(sender, 100, 0.002)
        arrivals = received(receiver)
        assert [number for number, _ in arrivals] == list(range(100))
        delays_ms = [delay_ms for _, delay_ms in arrivals]
        assert min(delays_ms) >= 20
        assert statistics.median(delays_ms) == pytest.approx(20, abs=1)
        assert counters(lab)["delivered"] >= 100
        assert counters(lab, "<-")["timed"] == 0


@pytest.mark.root
def test_loss_is_counted_and_what_is_not_lost_arrives_in_order(lab_name: str) -> None:
    with lab_of(two_hosts("loss 20%"), lab_name) as lab, datagrams(lab) as (sender, receiver):
        before = counters(lab)
        send_numbered(sender, 1000)
        numbers = [number for number, _ in received(receiver)]
        assert numbers == sorted(numbers)
        # Four standard deviations of a binomial distribution.
        assert 150 < 1000 - len(numbers) < 250
        after = counters(lab)
        # ARP may take part.
        assert after["lost"] - before["lost"] == pytest.approx(1000 - len(numbers), abs=5)
        assert after["offered"] - before["offered"] == pytest.approx(1000, abs=5)


@pytest.mark.root
def test_rate_and_queue_limit(lab_name: str) -> None:
    """Ten packets wait; the others of a burst find the queue full."""
    topology = two_hosts("{rate: 2mbit, limit: 10}")
    with lab_of(topology, lab_name) as lab, datagrams(lab) as (sender, receiver):
        send_numbered(sender, 50, length=958)
        arrivals = received(receiver)
        assert 10 <= len(arrivals) <= 14
        # 1000 bytes take 4 ms.
        assert arrivals[9][1] == pytest.approx(40, abs=8)
        assert counters(lab)["overflowed"] == 50 - len(arrivals)


@pytest.mark.root
@pytest.mark.parametrize(
    "impair", ["delay 2ms", "{rate: 50mbit, delay: 2ms}", "{delay: 2ms, corrupt: 0.3%, loss: 0.5%}"]
)
def test_a_transfer_comes_through(lab_name: str, impair: str) -> None:
    """Super-segments pass whole, or as the packets that they stand for; damage never reaches the reader."""
    data = os.urandom(1 << 20)
    with lab_of(two_hosts(impair), lab_name) as lab:
        with connection(lab, "a", "b", "10.0.1.2") as (near, far):
            near.setblocking(False)
            sent, read = 0, bytearray()
            while len(read) < len(data):
                readable, writable, _ = select.select([far], [near] if sent < len(data) else [], [], 10)
                assert readable or writable, f"stuck at {sent} and {len(read)} bytes"
                if writable:
                    sent += near.send(data[sent : sent + 65536])
                if readable:
                    read += far.recv(1 << 20)
        assert bytes(read) == data
        counted = counters(lab)
        assert counted["malformed"] == counted["refused"] == 0
        if "corrupt" in impair:
            assert counted["corrupted"] > 0


@pytest.mark.root
@pytest.mark.parametrize("address", ["10.0.11.2", "10.0.12.2", "fd00:11::2", "fd00:12::2"])
def test_impaired_links_of_a_larger_topology(lab_name: str, address: str) -> None:
    impaired = Impairment(delay_us=1000)
    topology = two_paths()
    links = tuple(
        link if number % 2 else type(link)(link.first, link.second, link.mtu, impaired, impaired)
        for number, link in enumerate(topology.links)
    )
    topology = Topology(topology.name, topology.nodes, links)
    with lab_of(topology, lab_name) as lab:
        assert can_talk(lab, "client", "server", address)
        assert emulator(lab).request(method="names") == ["client:eth1", "client:eth2"]
        assert namespaces_of(lab_name) == [
            f"mt-{lab_name}-{node}" for node in (LINKS_NODE, "client", "r1", "r2", "server")
        ]


@pytest.mark.root
def test_settings_change_while_it_runs(lab_name: str) -> None:
    with lab_of(two_hosts("delay 1ms"), lab_name) as lab, datagrams(lab) as (sender, receiver):
        client = emulator(lab)
        client.request(method="set", link="a:eth0", direction="->", settings={"loss": 1.0})
        send_numbered(sender, 10)
        assert received(receiver) == []
        shown = client.request(
            method="set", link="a:eth0", direction="->", settings={"delay_us": 30_000}, seed=9
        )
        assert shown["->"]["settings"]["delay_us"] == 30_000
        send_numbered(sender, 10)
        assert all(delay_ms >= 30 for _, delay_ms in received(receiver))


@pytest.mark.root
def test_nonsense_is_refused_and_harms_nobody(lab_name: str) -> None:
    with lab_of(two_hosts("delay 1ms"), lab_name) as lab:
        client = emulator(lab)
        for request in (
            {"method": "paint"},
            {"method": "show", "link": "b:eth9"},
            {"method": "show"},
            {"method": "set", "link": "a:eth0", "direction": "up", "settings": {}},
            {"method": "set", "link": "a:eth0", "direction": "->", "settings": {"delay_us": -1}},
            {"method": "set", "link": "a:eth0", "direction": "->", "settings": 5},
        ):
            with pytest.raises(HostError, match="refuses"):
                client.request(**request)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as raw:
            raw.connect(str(lab.directory / "links"))
            for message in (b"{", b"[]", b"\xff" * 100, b"[" * 5000):
                raw.send(message)
                assert b"error" in raw.recv(4096)
        crowd = [emulator(lab) for _ in range(40)]
        for each in crowd:
            each.close()
        assert can_talk(lab, "a", "b", "10.0.1.2")


@pytest.mark.root
@pytest.mark.parametrize("stack", ["tcp", "userspace"])
def test_a_link_goes_down_and_comes_back(lab_name: str, stack: str) -> None:
    with lab_of(two_hosts("delay 1ms", stack), lab_name) as lab:
        lab.set_link("a", "eth0", up=False)
        states = {node: carrier(lab, node) for node in ("a", "b")}
        # The carrier of an interface that is down cannot be read: None.
        assert states == {"a": None if stack == "tcp" else "0", "b": "0"}
        lab.set_link("a", "eth0", up=True)
        assert (carrier(lab, "a"), carrier(lab, "b")) == ("1", "1")
        if stack == "tcp":
            assert can_talk(lab, "a", "b", "10.0.1.2")


def carrier(lab: Lab, node: str) -> str | None:
    answer = lab.run_in(node, ["ip", "-brief", "link", "show", "eth0"]).stdout
    if "NO-CARRIER" in answer:
        return "0"
    return "1" if "LOWER_UP" in answer else None


@pytest.mark.root
def test_packets_on_their_way_are_lost_when_the_link_goes_down(lab_name: str) -> None:
    with lab_of(two_hosts('{"->": {delay: 300ms}}'), lab_name) as lab, datagrams(lab) as (sender, receiver):
        send_numbered(sender, 10)
        lab.set_link("a", "eth0", up=False)
        lab.set_link("a", "eth0", up=True)
        assert received(receiver, quiet_s=0.5) == []
        assert counters(lab)["cut_off"] >= 10


@pytest.mark.root
def test_a_killed_emulator_makes_the_lab_broken_and_it_is_cleaned(lab_name: str) -> None:
    lab = NamespaceBackend(with_agents=False).up(emulated("delay 1ms"), lab_name)
    try:
        (process,) = ownership.read_lab(lab_name).processes
        assert process.role == "link emulator"
        os.kill(process.pid, signal.SIGKILL)
        poll = select.poll()
        with ExitStack() as closing:
            try:
                descriptor = os.pidfd_open(process.pid)
            except ProcessLookupError:
                descriptor = None
            if descriptor is not None:
                closing.callback(os.close, descriptor)
                poll.register(descriptor, select.POLLIN)
                assert poll.poll(5000)
        fault = ownership.read_lab(lab_name).fault()
        assert fault is not None
        assert "its process link emulator" in fault
        with pytest.raises(LabError, match="link emulator"):
            ownership.check_usable(ownership.read_lab(lab_name))
    finally:
        lab.down()
    assert namespaces_of(lab_name) == []


def test_only_what_a_token_bucket_cannot_do_is_cut() -> None:
    assert cut_links(two_hosts("rate 1mbit")).links == ()
    assert cut_links(two_hosts('{"->": {rate: 1mbit}}')).links == ()
    assert cut_links(two_hosts("seed 5")).links == ()
    assert len(cut_links(two_hosts('{"->": {rate: 1mbit, limit: 5}}')).links) == 1
    topology = two_hosts("rate 1mbit")
    chosen = Topology(topology.name, topology.nodes, topology.links, impairments=Realisation.EMULATOR)
    (link,) = cut_links(chosen).links
    assert cut_links(chosen).link_at(LinkEnd("b", "eth0")) == link
    assert cut_links(chosen).link_at(LinkEnd("b", "eth1")) is None


def test_seeds_are_the_files_or_follow_from_the_labs() -> None:
    links = cut_links(two_hosts('{"->": {loss: 1%, seed: 77}, "<-": {loss: 1%}}')).links
    (one,), (again,), (free,) = (link_configurations(links, seed) for seed in (5, 5, None))
    assert one == again
    assert one.forward.seed == 77
    assert one.backward.seed == direction_seed(5, "a:eth0", "<-") != direction_seed(6, "a:eth0", "<-")
    assert free.backward.seed != one.backward.seed


def arriving_numbers(lab_name: str, seed: int) -> list[int]:
    """Which of 400 frames come through a new lab whose link loses some."""
    with NamespaceBackend(with_agents=False).up(
        emulated("loss 20%", "userspace"), lab_name, seed=seed
    ) as lab:
        sockets = []
        for node in ("a", "b"):
            with inside(lab, node):
                frame_socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
                frame_socket.bind(("eth0", 0x88B5))
                frame_socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
                sockets.append(frame_socket)
        sender, receiver = sockets
        with sender, receiver:
            for number in range(400):
                sender.send(bytes(12) + b"\x88\xb5" + number.to_bytes(2, "big") + bytes(50))
            arrived = []
            while select.select([receiver], [], [], 0.3)[0]:
                arrived.append(int.from_bytes(receiver.recv(200)[14:16], "big"))
        assert counters(lab)["offered"] == 400, "nobody else sends here"
        return arrived


@pytest.mark.root
def test_the_same_seed_loses_the_same_packets_in_a_new_lab(lab_name: str) -> None:
    first = arriving_numbers(lab_name, 5)
    assert 280 < len(first) < 360
    assert arriving_numbers(lab_name, 5) == first
    assert arriving_numbers(lab_name, 6) != first
