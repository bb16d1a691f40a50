"""What hosts tell of their MPTCP sockets: listeners that match, and how many sockets are in use."""

from __future__ import annotations

import asyncio

import pytest

from testbed.host.client import HostClient
from testbed.host.listing import ListingRequests
from testbed.host.protocol import AgentConfiguration, ListenerMatch, Role, Workload, WorkloadKind
from testbed.host.rpc_server import RequestError
from testbed.host.userspace import UserspaceHost
from testbed.host.userspace_listing import matching_listeners
from tests.host.labs import Pair
from tests.mptcp.network import PORT, Network


@pytest.mark.parametrize(
    ("match", "ports"),
    [
        (ListenerMatch(), [PORT, PORT + 1, PORT + 2]),
        (ListenerMatch(local_port=PORT), [PORT]),
        (ListenerMatch(local_address="::"), [PORT]),
        (ListenerMatch(local_address="0.0.0.0"), [PORT + 1]),
        (ListenerMatch(local_address="10.0.1.1"), [PORT + 2]),
        (ListenerMatch(local_address="fd00:1::1"), []),
        (ListenerMatch(local_address="10.0.1.1", local_port=PORT), []),
        (ListenerMatch(local_port=PORT + 3), []),
        (ListenerMatch(remote_port=PORT), []),
        (ListenerMatch(remote_port=0), [PORT, PORT + 1, PORT + 2]),
    ],
)
def test_listeners_of_the_bundled_stack(match: ListenerMatch, ports: list[int]) -> None:
    stack = Network().server
    for port, address in enumerate((None, bytes(4), bytes((10, 0, 1, 1))), start=PORT):
        stack.listen(address, port)
    stack.listen(None, PORT + 3, protocol="tcp")
    found = matching_listeners(stack, match)
    assert [int(line.split()[-1]) for line in found] == ports


def test_sockets_in_use_of_the_bundled_stack() -> None:
    """With a token, after a fallback too, and what listens for MPTCP."""
    network = Network()
    assert network.server.mptcp_sockets_in_use() == 0
    near, far = network.establish()
    assert [stack.mptcp_sockets_in_use() for stack in (network.client, network.server)] == [1, 2]
    for connection in (near, far):
        connection.abort()
    network.simulator.run_for(1_000_000)
    assert [stack.mptcp_sockets_in_use() for stack in (network.client, network.server)] == [0, 1]
    other = Network()
    fallen, _ = other.establish(server="tcp")
    assert not fallen.is_mptcp
    assert other.client.mptcp_sockets_in_use() == 1


def test_an_address_that_is_none_is_refused() -> None:
    async def ask() -> None:
        listeners = ListingRequests(_a_host()).methods()["listeners"]
        assert await listeners({}) == []
        with pytest.raises(RequestError, match="local_address: 'here' does not appear"):
            await listeners({"local_address": "here"})

    asyncio.run(ask())


def _a_host() -> UserspaceHost:
    class Driver:
        stack = Network().server

        def start(self) -> None: ...

        def wake(self) -> None: ...

        def close(self) -> None: ...

    return UserspaceHost(Driver.stack, Driver(), AgentConfiguration("lab", "server", "userspace", "", "", ""))


def test_listeners_of_the_kernel(kernel_pair: Pair) -> None:
    host: HostClient = kernel_pair.server
    before = host.sockets_in_use()
    listener = host.start(Workload(WorkloadKind.HOLD, Role.LISTEN, "0.0.0.0", 0))
    assert host.sockets_in_use() == before + 1
    assert len(host.listeners(local_port=listener.port)) == 1
    assert len(host.listeners(local_address="0.0.0.0", local_port=listener.port)) == 1
    assert host.listeners(local_address="::", local_port=listener.port) == []
    assert host.listeners(remote_port=listener.port) == []
    listener.stop()
    assert host.listeners(local_port=listener.port) == []
