"""Agents on the kernel's stack: transfers over two links, and everything else a client may ask for."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from testbed.counters.nstat import subtract
from testbed.errors import HostError
from testbed.host.client import HostClient
from testbed.host.protocol import CloseKind, EndpointRequest, Role, Workload, WorkloadKind
from tests.device.namespaces import run
from tests.host.labs import Pair, assert_intact, pair_of_hosts, transfer

pytestmark = [pytest.mark.root, pytest.mark.kernel]

SERVER_ADDRESSES = ("10.8.0.2", "fd08:0::2")
MPTCP = ("mptcp", "mptcp")


@pytest.fixture
def pair(kernel_pair: Pair) -> Pair:
    """Hosts without endpoints and with the kernel's limits."""
    for host in (kernel_pair.client, kernel_pair.server):
        host.flush_endpoints()
        host.set_limits(2, 0)
    return kernel_pair


@pytest.mark.parametrize("address", SERVER_ADDRESSES)
@pytest.mark.parametrize("protocols", [MPTCP, ("mptcp", "tcp"), ("tcp", "mptcp"), ("tcp", "tcp")])
def test_transfers_arrive_intact(pair: Pair, address: str, protocols: tuple[str, str]) -> None:
    client, server = transfer(pair, address, 2_000_000, 3_000_000, protocols=protocols)
    assert_intact(client, server, 2_000_000, 3_000_000)
    assert client.is_mptcp == server.is_mptcp == (protocols == MPTCP)


def test_a_join_is_counted_on_both_hosts(pair: Pair) -> None:
    pair.client.add_endpoint("10.8.1.1", flags={"subflow"})
    before = pair.client.counters(), pair.server.counters()
    listening = pair.server.start(Workload(WorkloadKind.HOLD, Role.LISTEN, "::", 0))
    connecting = pair.client.start(
        Workload(
            WorkloadKind.TRANSFER,
            Role.CONNECT,
            "10.8.0.2",
            listening.port,
            send_bytes=100_000,
            hold_open_after=True,
        )
    )
    deadline = time.monotonic() + 10
    while not subtract(pair.server.counters(), before[1])["MPTcpExtMPJoinAckRx"]:
        assert time.monotonic() < deadline, "no join"
    connecting.finish()
    connecting.result()
    listening.result()
    client = subtract(pair.client.counters(), before[0])
    server = subtract(pair.server.counters(), before[1])
    assert client["MPTcpExtMPJoinSynTx"] == client["MPTcpExtMPJoinSynAckRx"] == 1
    assert server["MPTcpExtMPJoinSynRx"] == 1
    assert client["TcpActiveOpens"] == server["TcpPassiveOpens"] == 2


def test_an_abort_is_a_fastclose(pair: Pair) -> None:
    before = pair.client.counters()
    listening = pair.server.start(Workload(WorkloadKind.HOLD, Role.LISTEN, "::", 0))
    connecting = pair.client.start(
        Workload(WorkloadKind.HOLD, Role.CONNECT, "10.8.0.2", listening.port, close=CloseKind.ABORT)
    )
    connecting.wait_for("holding")
    connecting.finish()
    (client,) = connecting.result()
    (server,) = listening.result()
    assert (client.error, server.error) == (None, "ECONNRESET")
    assert client.is_mptcp
    assert subtract(pair.client.counters(), before)["MPTcpExtMPFastcloseTx"] == 1


def test_the_local_address_is_bound(pair: Pair) -> None:
    listening = pair.server.start(Workload(WorkloadKind.HOLD, Role.LISTEN, "::", 0))
    connecting = pair.client.start(
        Workload(WorkloadKind.TRANSFER, Role.CONNECT, "10.8.0.2", listening.port, local_address="10.8.1.1")
    )
    (client,) = connecting.result()
    assert client.local.split()[0] == "10.8.1.1"


def test_endpoints_and_limits(pair: Pair) -> None:
    host = pair.client
    host.set_limits(3, 4)
    assert host.limits() == (3, 4)
    identifier = host.add_endpoint("10.8.1.1", flags={"subflow", "backup"}, interface="eth1", identifier=9)
    assert identifier == 9
    assert host.endpoints() == [EndpointRequest("10.8.1.1", ("subflow", "backup"), "eth1", 9, None)]
    host.set_endpoint_flags((), identifier=9)
    assert run("ip", "-n", pair.client_namespace, "mptcp", "endpoint").split() == (
        "10.8.1.1 id 9 subflow dev eth1".split()
    )
    host.delete_endpoint(9)
    assert host.endpoints() == []
    with pytest.raises(HostError, match="client: delete_endpoint: EINVAL: address not found"):
        host.delete_endpoint(9)


def test_sockets_are_described(pair: Pair) -> None:
    listening = pair.server.start(Workload(WorkloadKind.HOLD, Role.LISTEN, "::", 0))
    connecting = pair.client.start(Workload(WorkloadKind.HOLD, Role.CONNECT, "10.8.0.2", listening.port))
    connecting.wait_for("holding")
    text = pair.client.sockets()
    assert f"10.8.0.2:{listening.port}" in text
    assert all(line == line.rstrip() for line in text.splitlines())
    connecting.stop()
    assert [result.error for result in connecting.result()] == ["stopped"]


def test_an_interface_goes_down_and_up(pair: Pair) -> None:
    for up in (False, True):
        pair.client.set_interface("eth1", up=up)
        shown = run("ip", "-n", pair.client_namespace, "link", "show", "eth1")
        assert ("UP" in shown.partition(">")[0].split(",")) == up
    with pytest.raises(HostError, match="interface 'eth7': No such device"):
        pair.client.set_interface("eth7", up=True)


def test_waiting_has_a_limit_and_says_how_far_it_got(pair: Pair) -> None:
    listening = pair.server.start(Workload(WorkloadKind.HOLD, Role.LISTEN, "::", 0))
    with pytest.raises(HostError, match=r"'accepted 1' not reached within 0.05 s: listening, 0 connected"):
        listening.wait_for("accepted 1", 0.05)
    assert listening.progress().state == "listening"
    listening.stop()


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("dance", {}, "unknown method 'dance'"),
        ("progress", {"id": 999_999}, "no workload 999999"),
        ("progress", {}, "id: missing"),
        ("progress", {"id": "1"}, "id: must be int"),
        ("wait", {"id": 1, "milestone": 3}, "milestone: must be str"),
        ("limits", {"colour": 1}, "colour: unknown"),
        ("start_workload", {"kind": "hold"}, "role: missing; address: missing; port: missing"),
        ("set_limits", {"subflows": 1, "add_addr_accepted": 2**70}, "limit add_addr_accepted"),
        ("set_limits", {"subflows": 100_000, "add_addr_accepted": 0}, "EINVAL: limit greater than maximum"),
        ("add_endpoint", {"address": "nowhere", "flags": ["signal"]}, "'nowhere' is not an IP address"),
        ("set_endpoint_flags", {"flags": ["backup"]}, "identifier or an address"),
    ],
)
def test_bad_requests_are_refused_with_a_reason(
    pair: Pair, method: str, parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(HostError, match=message):
        pair.client.request(method, parameters)
    pair.client.ping()


def test_several_clients_may_wait_at_once(pair: Pair) -> None:
    listening = pair.server.start(Workload(WorkloadKind.HOLD, Role.LISTEN, "::", 0))
    other = HostClient("server", pair.server.control_socket, "kernel")
    states: list[str] = []

    def wait() -> None:
        parameters = {"id": listening.id, "milestone": "accepted 1"}
        states.append(other.request("wait", parameters, timeout_s=20)["state"])

    waiting = threading.Thread(target=wait)
    waiting.start()
    connecting = pair.client.start(Workload(WorkloadKind.HOLD, Role.CONNECT, "10.8.0.2", listening.port))
    waiting.join(20)
    other.close()
    connecting.stop()
    assert states == ["holding"]


def test_a_tcp_host_has_never_heard_of_mptcp(kernel_mptcp: None, tmp_path: Path) -> None:
    with pair_of_hosts(tmp_path, ("kernel", "tcp")) as pair:
        client, server = transfer(pair, "10.8.0.2", 10_000, 20_000, protocols=MPTCP)
        assert_intact(client, server, 10_000, 20_000)
        assert (client.is_mptcp, server.is_mptcp) == (False, False)
        assert pair.client.counters()["MPTcpExtMPCapableFallbackSYNACK"] == 1
        with pytest.raises(HostError, match="plain TCP: it has no MPTCP path manager"):
            pair.server.set_limits(1, 1)
        sysctl = run("ip", "netns", "exec", pair.server_namespace, "sysctl", "-n", "net.mptcp.enabled")
        assert sysctl.strip() == "0"


@pytest.mark.parametrize("address", SERVER_ADDRESSES)
def test_an_address_is_reached(pair: Pair, address: str) -> None:
    round_trip_us = pair.client.reach(address)
    assert round_trip_us is not None
    assert 0 < round_trip_us < 5_000_000


def test_silence_is_told_and_so_is_a_missing_way(pair: Pair) -> None:
    assert pair.client.reach("10.8.0.77", 0.01) is None
    with pytest.raises(HostError, match=r"198\.51\.100\.1: .*unreachable"):
        pair.client.reach("198.51.100.1")
    with pytest.raises(HostError, match="timeout_us: expected 1 to"):
        pair.client.reach("10.8.0.2", 0)
