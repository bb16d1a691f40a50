"""Agents on the bundled stack, with one another and with the kernel's."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mptcp_stack.sockets import structures
from mptcp_stack.sockets.mptcp_options import MPTCP_INFO, SOL_MPTCP
from mptcp_stack.sockets.structures import MptcpInfo
from testbed.counters.nstat import subtract
from testbed.errors import HostError
from testbed.host.client import HostClient, RunningWorkload
from testbed.host.launcher import AgentLauncher
from testbed.host.protocol import AgentConfiguration, CloseKind, EndpointRequest, Role, Workload, WorkloadKind
from tests.host.labs import (
    Pair,
    assert_intact,
    configuration,
    linked_namespaces,
    pair_of_hosts,
    start_transfer,
    transfer,
)
from tests.host.test_launcher import resident_bytes

pytestmark = pytest.mark.root

SERVER_ADDRESSES = ("10.8.0.2", "fd08:0::2")
MPTCP = ("mptcp", "mptcp")
ENDED = ("done", "failed")


@pytest.fixture(
    scope="module",
    params=[
        ("userspace", "userspace"),
        pytest.param(("userspace", "kernel"), marks=pytest.mark.kernel),
        pytest.param(("kernel", "userspace"), marks=pytest.mark.kernel),
    ],
    ids="-".join,
)
def module_pair(
    request: pytest.FixtureRequest, namespaces: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    stacks: tuple[str, str] = request.param
    if "kernel" in stacks and not Path("/proc/sys/net/mptcp").exists():
        pytest.skip("this kernel has no MPTCP")
    with pair_of_hosts(tmp_path_factory.mktemp("agents"), stacks) as pair:
        yield pair


@pytest.fixture
def pair(module_pair: Pair) -> Pair:
    """Hosts without endpoints and with the default limits."""
    for host in (module_pair.client, module_pair.server):
        host.flush_endpoints()
        host.set_limits(2, 0)
    return module_pair


@pytest.mark.parametrize("address", SERVER_ADDRESSES)
@pytest.mark.parametrize("protocols", [MPTCP, ("mptcp", "tcp"), ("tcp", "mptcp"), ("tcp", "tcp")])
def test_transfers_arrive_intact(pair: Pair, address: str, protocols: tuple[str, str]) -> None:
    client, server = transfer(pair, address, 2_000_000, 3_000_000, protocols=protocols)
    assert_intact(client, server, 2_000_000, 3_000_000)
    assert client.is_mptcp == server.is_mptcp == (protocols == MPTCP)


def await_counter(host: HostClient, before: dict[str, int], name: str, workload: RunningWorkload) -> None:
    """Until it has moved, or the watchdog has ended the workload."""
    while subtract(host.counters(), before)[name] < 1 and workload.progress().state not in ENDED:
        host.ping()


@pytest.mark.parametrize("address", SERVER_ADDRESSES)
def test_a_join_is_counted_on_both_hosts(pair: Pair, address: str) -> None:
    pair.client.add_endpoint("10.8.1.1" if "." in address else "fd08:1::1", flags={"subflow"})
    before = pair.client.counters(), pair.server.counters()
    listener = Workload(WorkloadKind.ECHO, Role.LISTEN, "::", 0, timeout_us=20_000_000)
    listening = pair.server.start(listener)
    connecting = pair.client.start(
        replace(
            listener,
            role=Role.CONNECT,
            address=address,
            port=listening.port,
            send_bytes=200_000,
            hold_open_after=True,
        )
    )
    connecting.wait_for("holding")
    await_counter(pair.server, before[1], "MPTcpExtMPJoinAckRx", connecting)
    client_counters = subtract(pair.client.counters(), before[0])
    server_counters = subtract(pair.server.counters(), before[1])
    connecting.finish()
    results = connecting.result() + listening.result()
    assert [result.error for result in results] == [None, None]
    assert all(result.is_mptcp for result in results)
    assert client_counters["MPTcpExtMPJoinSynTx"] == client_counters["MPTcpExtMPJoinSynAckRx"] == 1
    assert server_counters["MPTcpExtMPJoinSynRx"] == server_counters["MPTcpExtMPJoinAckRx"] == 1


def test_many_connections_at_once(pair: Pair) -> None:
    listening = pair.server.start(Workload(WorkloadKind.ECHO, Role.LISTEN, "::", 0, connections=40))
    connecting = pair.client.start(
        Workload(
            WorkloadKind.ECHO, Role.CONNECT, "10.8.0.2", listening.port, connections=40, send_bytes=50_000
        )
    )
    clients, servers = connecting.result(), listening.result()
    assert {result.error for result in clients + servers} == {None}
    sent = sorted(result.sha256_sent for result in clients)
    assert sent == sorted(result.sha256_received for result in servers)
    assert len(set(sent)) == 40


def test_requests_and_responses(pair: Pair) -> None:
    listener = Workload(
        WorkloadKind.REQUEST_RESPONSE, Role.LISTEN, "::", 0, send_bytes=200, response_bytes=5000
    )
    listening = pair.server.start(listener)
    connector = replace(listener, role=Role.CONNECT, address="10.8.0.2", port=listening.port, requests=50)
    (client,) = pair.client.start(connector).result()
    (server,) = listening.result()
    assert (client.error, server.error) == (None, None)
    assert (client.bytes_received, server.bytes_received) == (250_000, 10_000)
    assert client.sha256_received == server.sha256_sent


def test_an_abort_is_a_fastclose(pair: Pair) -> None:
    before = pair.client.counters(), pair.server.counters()
    listening = pair.server.start(Workload(WorkloadKind.HOLD, Role.LISTEN, "::", 0))
    connecting = pair.client.start(
        Workload(WorkloadKind.HOLD, Role.CONNECT, "10.8.0.2", listening.port, close=CloseKind.ABORT)
    )
    connecting.wait_for("holding")
    listening.wait_for("holding")
    connecting.finish()
    (client,) = connecting.result()
    (server,) = listening.result()
    assert (client.error, server.error) == (None, "ECONNRESET")
    assert subtract(pair.client.counters(), before[0])["MPTcpExtMPFastcloseTx"] == 1
    assert subtract(pair.server.counters(), before[1])["MPTcpExtMPFastcloseRx"] == 1


def test_nobody_listens(pair: Pair) -> None:
    (client,) = pair.client.start(Workload(WorkloadKind.HOLD, Role.CONNECT, "10.8.0.2", 9)).result()
    assert client.error == "ECONNREFUSED"


def test_what_is_held_is_described_and_stopped(pair: Pair) -> None:
    listening = pair.server.start(Workload(WorkloadKind.HOLD, Role.LISTEN, "::", 0))
    connecting = pair.client.start(Workload(WorkloadKind.HOLD, Role.CONNECT, "10.8.0.2", listening.port))
    connecting.wait_for("holding")
    for host in (pair.client, pair.server):
        assert str(listening.port) in host.sockets()
    connecting.stop()
    (client,) = connecting.result()
    assert client.error == "stopped"
    assert "ESTAB" in client.detail.upper()
    assert [result.error for result in listening.result()] == ["ECONNRESET"]


def test_endpoints_and_limits_speak_one_language(pair: Pair) -> None:
    for host in (pair.client, pair.server):
        host.set_limits(3, 4)
        assert host.limits() == (3, 4)
        assert host.add_endpoint("10.8.1.9", flags={"subflow", "backup"}, identifier=9) == 9
        (endpoint,) = host.endpoints()
        assert endpoint == EndpointRequest("10.8.1.9", endpoint.flags, None, 9, None)
        assert set(endpoint.flags) == {"subflow", "backup"}
        host.set_endpoint_flags((), address="10.8.1.9")
        assert host.endpoints() == [EndpointRequest("10.8.1.9", ("subflow",), None, 9, None)]
        host.delete_endpoint(9)
        assert host.endpoints() == []


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("add_endpoint", {"address": "nowhere", "flags": ["signal"]}, "neither an IPv4 nor an IPv6 address"),
        ("add_endpoint", {"address": "10.8.1.1", "flags": ["sygnal"]}, "endpoint flags sygnal"),
        ("delete_endpoint", {"identifier": 77}, "no endpoint with id 77"),
        ("set_endpoint_flags", {"flags": [], "address": "10.8.1.1"}, "no endpoint 10.8.1.1"),
        ("set_endpoint_flags", {"flags": []}, "identifier or an address"),
        ("set_limits", {"subflows": 100, "add_addr_accepted": 0}, "limit subflows: expected 0 to"),
        ("set_interface", {"name": "eth9", "up": True}, "no interface 'eth9'"),
    ],
)
def test_refusals_say_why(pair: Pair, method: str, parameters: dict[str, object], message: str) -> None:
    for host in (pair.client, pair.server):
        if host.stack == "userspace":
            with pytest.raises(HostError, match=message):
                host.request(method, parameters)
            host.ping()


@pytest.mark.parametrize(
    "address", ["10.8.0.300", "fe80::1%eth9", "10.8.0.1%eth0", "fd08::1%eth0", "localhost", ""]
)
def test_bad_addresses_are_refused(pair: Pair, address: str) -> None:
    for host in (pair.client, pair.server):
        if host.stack == "userspace":
            (result,) = host.start(Workload(WorkloadKind.HOLD, Role.CONNECT, address, 9)).result()
            assert result.error == "EINVAL"
            with pytest.raises(HostError, match="cannot listen"):
                host.start(Workload(WorkloadKind.HOLD, Role.LISTEN, address, 0))


def test_an_interface_that_is_down_carries_nothing(pair: Pair) -> None:
    is_client = pair.client.stack == "userspace"
    host, peer = (pair.client, "10.8.0.2") if is_client else (pair.server, "10.8.0.1")
    host.set_interface("eth0", up=False)
    try:
        (result,) = host.start(Workload(WorkloadKind.HOLD, Role.CONNECT, peer, 9)).result()
        assert result.error == "ENETUNREACH"
    finally:
        host.set_interface("eth0", up=True)


@pytest.fixture(scope="module")
def bare_namespaces(namespaces: None) -> Iterator[tuple[str, str]]:
    """Client and server without agents, for stacks of ours."""
    with linked_namespaces(("userspace", "userspace")) as names:
        yield names


def test_an_idle_host_is_small(bare_namespaces: tuple[str, str], tmp_path: Path) -> None:
    with AgentLauncher(tmp_path) as launcher:
        (agent,) = launcher.spawn([configuration(tmp_path, "client", bare_namespaces[0], "userspace")])
        assert resident_bytes(agent.pid) < 40 << 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"sysctls": (("net.mptcp.colour", "1"),)},
            "net.mptcp.colour: the bundled stack has no such setting",
        ),
        ({"sysctls": (("net.mptcp.enabled", "yes"),)}, "net.mptcp.enabled: expected a number"),
        ({"interfaces": ({"name": "eth9"},)}, "interface eth9"),
        ({"interfaces": ({"name": "eth0", "mac": "nonsense"},)}, "hexadecimal"),
        ({"interfaces": ({"name": "eth0", "addresses": ["10.0.0.1/99"]},)}, "10.0.0.1/99"),
        ({"interfaces": ({"name": "eth0", "colour": 1},)}, "colour: unknown"),
        ({"routes": ({"destination": "10.0.0.1/24", "interface": "eth0"},)}, "host bits"),
        ({"routes": ({"destination": "10.0.0.0/24", "interface": "eth9"},)}, "eth9"),
        ({"endpoints": ({"address": "10.8.1.1", "flags": ["sygnal"]},)}, "sygnal"),
        ({"subflows_limit": 99}, "limit subflows"),
    ],
)
def test_a_bad_configuration_is_named(
    bare_namespaces: tuple[str, str], tmp_path: Path, change: dict[str, str], message: str
) -> None:
    good = configuration(tmp_path, "client", bare_namespaces[0], "userspace")
    bad = AgentConfiguration(**(asdict(good) | change))
    with AgentLauncher(tmp_path) as launcher:
        with pytest.raises(HostError, match=message) as caught:
            launcher.spawn([bad])
        assert "Traceback" not in str(caught.value)


def test_sysctls_reach_the_stack(bare_namespaces: tuple[str, str], tmp_path: Path) -> None:
    names = bare_namespaces
    with AgentLauncher(tmp_path) as launcher:
        configurations = [
            configuration(tmp_path, host, name, "userspace")
            for host, name in zip(("client", "server"), names, strict=True)
        ]
        configurations[1] = replace(configurations[1], sysctls=(("net.mptcp.enabled", "0"),))
        agents = launcher.spawn(configurations)
        hosts = [HostClient(agent.host, agent.control_socket, "userspace") for agent in agents]
        pair = Pair(hosts[0], hosts[1], *names)
        with pytest.raises(HostError, match="enabled is 0"):
            hosts[1].start(Workload(WorkloadKind.HOLD, Role.LISTEN, "10.8.0.2", 0))
        client, server = transfer(pair, "10.8.0.2", 1000, 1000, protocols=("mptcp", "tcp"))
        assert_intact(client, server, 1000, 1000)
        assert not client.is_mptcp
        assert pair.client.counters()["MPTcpExtMPCapableFallbackSYNACK"] == 1


def test_announced_port_is_joined(pair: Pair) -> None:
    pair.client.set_limits(1, 1)
    pair.server.set_limits(1, 0)
    pair.server.add_endpoint("10.8.1.2", flags=("signal",), port=10100)
    assert [endpoint.port for endpoint in pair.server.endpoints()] == [10100]
    before = pair.client.counters(), pair.server.counters()
    ends = start_transfer(
        pair, SERVER_ADDRESSES[0], 2_000_000, 1_000_000, protocols=MPTCP, hold_open_after=True
    )
    await_counter(pair.server, before[1], "MPTcpExtMPJoinPortAckRx", ends[0])
    for end in ends:
        end.finish()
    client, server = (end.result()[0] for end in ends)
    assert_intact(client, server, 2_000_000, 1_000_000)
    of_client, of_server = (
        subtract(host.counters(), then) for host, then in zip((pair.client, pair.server), before, strict=True)
    )
    assert (of_client["MPTcpExtPortAdd"], of_client["MPTcpExtMPJoinPortSynAckRx"]) == (1, 1)
    assert (of_server["MPTcpExtMPJoinPortSynRx"], of_server["MPTcpExtMPJoinPortAckRx"]) == (1, 1)
    assert (of_server["MPTcpExtMismatchPortSynRx"], of_server["MPTcpExtMPJoinAckRx"]) == (0, 1)


def test_socket_options_of_both_ends(pair: Pair) -> None:
    """MPTCP_INFO names the same connection as long as it is open; an option that is none is refused."""
    listening = Workload(WorkloadKind.HOLD, Role.LISTEN, "0.0.0.0", 0)
    server = pair.server.start(listening)
    client = pair.client.start(
        replace(listening, role=Role.CONNECT, address=SERVER_ADDRESSES[0], port=server.port)
    )
    for end in (client, server):
        end.wait_for("holding", 10)
        info = MptcpInfo.unpack(end.get_option(SOL_MPTCP, MPTCP_INFO, structures.MPTCP_INFO.size))
        assert (info.subflows, info.subflows_total) == (0, 1)
        assert info.token != 0
        end.set_option(socket.IPPROTO_TCP, socket.TCP_NODELAY, struct.pack("=i", 1))
        assert end.get_option(socket.IPPROTO_TCP, socket.TCP_NODELAY, 4) == struct.pack("=i", 1)
        with pytest.raises(OSError, match="not supported") as refused:
            end.get_option(SOL_MPTCP, 99, 4)
        assert refused.value.errno == errno.EOPNOTSUPP
    with pytest.raises(HostError, match="no connection 1"):
        client.get_option(SOL_MPTCP, MPTCP_INFO, 4, connection=1)
    client.finish()
    server.finish()
    assert client.result(10)[0].error is None
