"""Whole labs in real namespaces: what is built is what the topology says, and nothing stays behind."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.backend import namespaces as namespaces_module
from testbed.backend.lab import Lab
from testbed.backend.link_shaping import ShaperPlace
from testbed.backend.namespaces import NamespaceBackend
from testbed.backend.netlink import RequestError
from testbed.backend.ownership import namespace_path, read_lab, read_labs
from testbed.errors import CapabilityError, LabError, UsageError
from testbed.topology.model import Node, StackKind, Topology

from .conftest import namespaces_of
from .connections import can_talk, connection, inside
from .topologies import direct, two_paths, two_switches

pytestmark = pytest.mark.root

RATE_BIT_S = 20_000_000
ELSEWHERE = {socket.AF_INET: "203.0.113.1", socket.AF_INET6: "2001:db8::1"}


@contextlib.contextmanager
def lab_of(topology: Topology, name: str) -> Iterator[Lab]:
    with NamespaceBackend(with_agents=False).up(topology, name) as lab:
        yield lab


@pytest.mark.parametrize("address", ["10.0.11.2", "10.0.12.2", "fd00:11::2", "fd00:12::2"])
def test_every_path_carries_connections(lab_name: str, address: str) -> None:
    with lab_of(two_paths(), lab_name) as lab:
        assert can_talk(lab, "client", "server", address)


@pytest.mark.parametrize(
    ("family", "source"),
    [(socket.AF_INET, "10.0.1.2"), (socket.AF_INET, "10.0.2.2"), (socket.AF_INET6, "fd00:2::2")],
)
def test_routes_with_a_source_hold_for_that_source_only(
    lab_name: str, family: socket.AddressFamily, source: str
) -> None:
    with lab_of(two_paths(), lab_name) as lab, inside(lab, "client"):
        with socket.socket(family, socket.SOCK_DGRAM) as bound:
            bound.bind((source, 0))
            bound.connect((ELSEWHERE[family], 9))
        if family == socket.AF_INET6:
            return  # without a source the kernel tries the IPv6 rules with the sources that they name
        with socket.socket(family, socket.SOCK_DGRAM) as unbound, pytest.raises(OSError, match="unreachable"):
            unbound.connect((ELSEWHERE[family], 9))


def test_switches_that_are_joined_forward_at_once(lab_name: str) -> None:
    with lab_of(two_switches(), lab_name) as lab:
        assert can_talk(lab, "a", "b", "10.8.0.2")
        assert can_talk(lab, "a", "b", "fd08::2")


def test_interfaces_are_as_the_topology_says(lab_name: str) -> None:
    topology = two_paths()
    client = topology.node("client")
    jumbo = replace(client.interfaces[0], mtu=9000)
    nodes = (replace(client, interfaces=(jumbo, client.interfaces[1])), *topology.nodes[1:])
    with lab_of(replace(topology, nodes=nodes), lab_name) as lab:
        for name, value in (("mtu", "9000"), ("address", jumbo.mac), ("operstate", "up")):
            command = ["sh", "-c", f"mount -t sysfs none /sys && cat /sys/class/net/eth1/{name}"]
            shown = lab.run_in("client", ["unshare", "-m", *command])
            assert shown.stdout.strip() == value, shown.stderr


def test_no_ipv6_address_is_tentative(lab_name: str) -> None:
    """The last number but one of a line of ``if_inet6`` holds the flags; 0x40 is IFA_F_TENTATIVE."""
    with lab_of(two_paths(), lab_name) as lab:
        for node in ("client", "r1"):
            lines = lab.run_in(node, ["cat", "/proc/net/if_inet6"]).stdout.splitlines()
            assert len(lines) == 5  # for each interface one of the topology's and one link-local, and ::1
            assert not [line for line in lines if int(line.split()[4], 16) & 0x40]


def test_userspace_hosts_hold_no_kernel_address(lab_name: str) -> None:
    with lab_of(direct(StackKind.USERSPACE), lab_name) as lab:
        assert lab.run_in("a", ["cat", "/proc/net/if_inet6"]).stdout.split("\n")[1:] == [""]
        with (
            inside(lab, "a"),
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock,
            pytest.raises(OSError, match="assign"),
        ):
            sock.bind(("10.9.0.1", 0))


@pytest.mark.parametrize(("stack", "enabled"), [(StackKind.KERNEL, "1"), (StackKind.TCP, "0")])
def test_kernel_hosts_have_mptcp_and_plain_hosts_have_not(
    lab_name: str, stack: StackKind, enabled: str
) -> None:
    if not Path("/proc/sys/net/mptcp").exists():
        pytest.skip("this kernel has no MPTCP")
    with lab_of(direct(stack), lab_name) as lab:
        assert lab.run_in("a", ["cat", "/proc/sys/net/mptcp/enabled"]).stdout.strip() == enabled


def test_settings_of_the_topology_are_made(lab_name: str) -> None:
    with lab_of(two_paths(sysctls=(("net.ipv4.tcp_sack", "0"),)), lab_name) as lab:
        assert lab.run_in("client", ["cat", "/proc/sys/net/ipv4/tcp_sack"]).stdout == "0\n"
        assert lab.run_in("server", ["cat", "/proc/sys/net/ipv4/tcp_sack"]).stdout == "1\n"


@pytest.mark.parametrize("name", ["kernel.hostname", "net", "net/../kernel/hostname", "vm.swappiness"])
def test_settings_outside_the_namespace_are_refused(lab_name: str, name: str) -> None:
    with pytest.raises(UsageError, match="client: "), lab_of(two_paths(sysctls=((name, "1"),)), lab_name):
        raise AssertionError("it was accepted")


def test_an_unknown_setting_undoes_the_lab(lab_name: str) -> None:
    topology = two_paths(sysctls=(("net.ipv4.no_such_thing", "1"),))
    with pytest.raises(LabError, match=r"client: cannot set net\.ipv4\.no_such_thing"):
        NamespaceBackend(with_agents=False).up(topology, lab_name)


def test_a_link_that_is_down_carries_nothing_and_comes_back_with_its_routes(lab_name: str) -> None:
    with lab_of(two_paths(), lab_name) as lab:
        for address, node, interface in (("10.0.11.2", "client", "eth1"), ("fd00:11::2", "server", "eth1")):
            lab.set_link(node, interface, up=False)
            with pytest.raises(OSError, match=r"unreachable|timed out|No route"):
                talk_briefly(lab, address)
            lab.set_link(node, interface, up=True)
            assert can_talk(lab, "client", "server", address)
        with inside(lab, "client"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
            bound.bind(("10.0.1.2", 0))
            bound.connect((ELSEWHERE[socket.AF_INET], 9))


def talk_briefly(lab: Lab, address: str) -> None:
    with inside(lab, "client"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(0.2)
            sock.connect((address, 9))


def test_the_other_end_fails_for_a_userspace_host(lab_name: str) -> None:
    with lab_of(direct(StackKind.USERSPACE), lab_name) as lab:
        lab.set_link("a", "eth0", up=False)
        flags = {node: int(read_in_sysfs(lab, node, "eth0/flags"), 16) for node in "ab"}
        assert flags["a"] & 1
        assert not flags["b"] & 1


def read_in_sysfs(lab: Lab, node: str, name: str) -> str:
    command = f"mount -t sysfs none /sys && cat /sys/class/net/{name}"
    return lab.run_in(node, ["unshare", "-m", "sh", "-c", command]).stdout.strip()


def test_an_unknown_link_is_a_usage_error(lab_name: str) -> None:
    with lab_of(direct(), lab_name) as lab, pytest.raises(UsageError, match=r"no link at a:eth7.*a:eth0"):
        lab.set_link("a", "eth7", up=False)


def transfer_seconds(lab: Lab, client: str, server: str, address: str, size: int) -> float:
    """From the first byte sent to the last byte received."""
    with connection(lab, client, server, address) as (near, far):
        near.setblocking(False)
        data = memoryview(bytes(size))
        received = 0
        started = time.monotonic()
        while received < size:
            with contextlib.suppress(BlockingIOError):
                data = data[near.send(data[:65_536]) :] if data else data
            with contextlib.suppress(TimeoutError):
                far.settimeout(0.01)
                received += len(far.recv(1 << 20))
        return time.monotonic() - started


@pytest.mark.parametrize(
    ("client", "server", "address"),
    [
        ("client", "server", "10.0.11.2"),
        ("server", "client", "fd00:1::2"),
    ],
)
def test_rates_are_enforced_in_the_middle_in_both_directions(
    lab_name: str, client: str, server: str, address: str
) -> None:
    with lab_of(two_paths(rate_bit_s=RATE_BIT_S), lab_name) as lab:
        places = {shaper.place for shaper in lab.shapers}
        assert places == {ShaperPlace.SENDER_IN_THE_MIDDLE, ShaperPlace.RECEIVER_IN_THE_MIDDLE}
        size = 1_000_000
        achieved_bit_s = 8 * size / transfer_seconds(lab, client, server, address, size)
    # A busy machine may be slower; bits taken for bytes would be an eighth.
    assert 0.25 * RATE_BIT_S < achieved_bit_s < 1.05 * RATE_BIT_S


def test_a_rate_between_two_hosts_can_be_changed_later(lab_name: str) -> None:
    with lab_of(direct(rate_bit_s=1_000_000), lab_name) as lab:
        assert [shaper.place for shaper in lab.shapers] == [ShaperPlace.SENDING_HOST]
        lab.set_rate("a", "eth0", 10 * RATE_BIT_S)
        seconds = transfer_seconds(lab, "a", "b", "10.9.0.2", 1_000_000)
        with pytest.raises(UsageError, match="b:eth0 sends without a rate"):
            lab.set_rate("b", "eth0", RATE_BIT_S)
    assert seconds < 1


def test_rates_out_of_range_are_refused_before_anything_is_made(lab_name: str) -> None:
    with pytest.raises(CapabilityError, match="a:eth0 -> b:eth0"):
        NamespaceBackend(with_agents=False).up(direct(rate_bit_s=10**12), lab_name)


def test_programs_run_in_their_node_and_say_how_they_ended(lab_name: str) -> None:
    with lab_of(direct(), lab_name) as lab:
        ended = lab.run_in("a", ["sh", "-c", "echo out; echo err >&2; exit 3"])
        assert (ended.returncode, ended.stdout, ended.stderr) == (3, "out\n", "err\n")
        with pytest.raises(LabError, match="a: cannot run '/no/such/program'"):
            lab.run_in("a", ["/no/such/program"])
        with pytest.raises(subprocess.TimeoutExpired):
            lab.run_in("a", ["sleep", "60"], timeout=0.05)
        with pytest.raises(UsageError, match=r"no node 'c' \(there are a, b\)"):
            lab.run_in("c", ["true"])


def test_names_are_visible_to_ip_netns_and_survive_open_lab(lab_name: str) -> None:
    backend = NamespaceBackend(with_agents=False, persistent=True)
    backend.up(direct(), lab_name)
    assert namespaces_of(lab_name) == [f"mt-{lab_name}-a", f"mt-{lab_name}-b"]
    with backend.open_lab(lab_name) as lab:
        assert lab.topology == direct()
        assert can_talk(lab, "a", "b", "10.9.0.2")
    assert [record.state for record in backend.list_labs()] == ["up"]
    removed = [str(item) for item in backend.down(lab_name)]
    assert removed[:2] == [f"namespace mt-{lab_name}-a", f"namespace mt-{lab_name}-b"]
    with pytest.raises(LabError, match="there is no lab"):
        backend.down(lab_name)


def test_a_name_that_is_taken_is_left_alone(lab_name: str) -> None:
    with lab_of(direct(), lab_name) as lab:
        with pytest.raises(LabError, match="exists already"):
            NamespaceBackend(with_agents=False).up(two_paths(), lab_name)
        assert can_talk(lab, "a", "b", "10.9.0.2")


def test_a_foreign_namespace_of_a_needed_name_is_left_alone(lab_name: str) -> None:
    foreign = namespace_path(lab_name, "b")
    subprocess.run(["ip", "netns", "add", foreign.name], check=True)
    try:
        inode = foreign.stat().st_ino
        with pytest.raises(LabError, match="belongs to no lab"):
            NamespaceBackend(with_agents=False).up(direct(), lab_name)
        assert namespaces_of(lab_name) == [foreign.name]
        assert foreign.stat().st_ino == inode
    finally:
        subprocess.run(["ip", "netns", "delete", foreign.name], check=True)


def test_a_foreign_namespace_that_took_the_name_since_is_left_alone(lab_name: str) -> None:
    lab = NamespaceBackend(with_agents=False).up(direct(), lab_name)
    foreign = namespace_path(lab_name, "b").name
    subprocess.run(["ip", "netns", "delete", foreign], check=True)
    subprocess.run(["ip", "netns", "add", foreign], check=True)
    try:
        with pytest.raises(LabError, match="no longer the namespace of b"):
            lab.run_in("b", ["true"])
        lab.down()
        assert namespaces_of(lab_name) == [foreign]
    finally:
        subprocess.run(["ip", "netns", "delete", foreign], check=True)


def test_every_namespace_is_in_the_journal_and_on_the_disk_before_it_has_a_name(
    lab_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[set[str]] = []
    synchronise = os.fsync
    give_name = namespaces_module._give_name

    def remember(descriptor: int) -> None:
        synchronise(descriptor)
        stored.append(set(read_lab(lab_name).namespaces) if lab_exists(lab_name) else set())

    def check(namespace: namespaces_module.OpenNamespace) -> None:
        assert namespace.record.node in stored[-1]
        give_name(namespace)

    monkeypatch.setattr(os, "fsync", remember)
    monkeypatch.setattr(namespaces_module, "_give_name", check)
    with lab_of(direct(), lab_name):
        assert stored[-1] == {"a", "b"}


def lab_exists(lab_name: str) -> bool:
    return any(record.name == lab_name for record in read_labs())


STEPS = [
    "store_topology",
    "apply_basic_settings",
    "_give_name",
    "_build",
    "apply_shapers",
    "creation_requests",
]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_whatever_stops_the_building_undoes_all_of_it(
    lab_name: str, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(namespaces_module, step, fail)
    here = Path("/proc/thread-self/ns/net")
    home = here.stat().st_ino
    with pytest.raises((type(error), CapabilityError, LabError)):
        NamespaceBackend(with_agents=False).up(direct(rate_bit_s=RATE_BIT_S), lab_name)
    assert here.stat().st_ino == home
    assert read_labs() == []


def test_a_refused_request_says_what_was_wanted(lab_name: str) -> None:
    topology = direct()
    first = topology.nodes[0]
    doubled = replace(first, interfaces=(replace(first.interfaces[0], name="lo"),))
    link = replace(topology.links[0], first=replace(topology.links[0].first, interface="lo"))
    with pytest.raises(RequestError, match="cannot make the link a:lo - b:eth0: File exists"):
        NamespaceBackend(with_agents=False).up(
            Topology("refused", (doubled, topology.nodes[1]), (link,)), lab_name
        )


def test_many_nodes_need_more_descriptors_than_the_soft_limit(lab_name: str) -> None:
    nodes = tuple(Node(f"n{number}", direct().nodes[0].kind, StackKind.TCP) for number in range(600))
    with lab_of(Topology("many", nodes, ()), lab_name):
        assert len(namespaces_of(lab_name)) == len(nodes)
