"""Throw-away hosts with agents: two namespaces that two links join, and a launcher."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed.host.client import HostClient, RunningWorkload
from testbed.host.launcher import AgentLauncher
from testbed.host.protocol import AgentConfiguration, ConnectionResult, Role, Workload, WorkloadKind
from tests.device.namespaces import namespace, run

LINKS = 2
"""Interfaces eth0 and eth1; the client has 10.8.N.1 and fd08:N::1, the server the same with .2 and ::2."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two hosts with an agent each."""

    client: HostClient
    server: HostClient
    client_namespace: str
    server_namespace: str


def configuration(directory: Path, host: str, namespace_name: str, stack: str) -> AgentConfiguration:
    """The second host is the server: its addresses end in 2."""
    number = 1 if host == "client" else 2
    return AgentConfiguration(
        lab="tests",
        host=host,
        stack=stack,
        namespace_path=f"/run/netns/{namespace_name}",
        control_socket=str(directory / f"{host}.sock"),
        log_file=str(directory / f"{host}.log"),
        interfaces=tuple(
            {
                "name": f"eth{link}",
                "mac": f"02:08:00:00:{link:02x}:{number:02x}",
                "mtu": 1500,
                "addresses": [f"10.8.{link}.{number}/24", f"fd08:{link}::{number}/64"],
            }
            for link in range(LINKS)
        ),
    )


@contextlib.contextmanager
def linked_namespaces(stacks: tuple[str, str]) -> Iterator[tuple[str, str]]:
    """Client and server; the kernel has the addresses of a host whose stack is its own."""
    with namespace() as client, namespace() as server:
        for link in range(LINKS):
            name = f"eth{link}"
            run("ip", "-n", client, "link", "add", name, "type", "veth", "peer", name, "netns", server)
            for host, number, stack in ((client, 1, stacks[0]), (server, 2, stacks[1])):
                mac = f"02:08:00:00:{link:02x}:{number:02x}"
                run("ip", "-n", host, "link", "set", name, "address", mac)
                if stack == "userspace":
                    run("ip", "netns", "exec", host, "sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")
                else:
                    run("ip", "-n", host, "addr", "add", f"10.8.{link}.{number}/24", "dev", name)
                    run("ip", "-n", host, "addr", "add", f"fd08:{link}::{number}/64", "dev", name, "nodad")
                run("ip", "-n", host, "link", "set", name, "up")
        yield client, server


@contextlib.contextmanager
def pair_of_hosts(directory: Path, stacks: tuple[str, str]) -> Iterator[Pair]:
    """A client and a server that are ready to be used."""
    with (
        linked_namespaces(stacks) as (client_namespace, server_namespace),
        AgentLauncher(directory) as launcher,
    ):
        agents = launcher.spawn(
            [
                configuration(directory, "client", client_namespace, stacks[0]),
                configuration(directory, "server", server_namespace, stacks[1]),
            ]
        )
        clients = [
            HostClient(agent.host, agent.control_socket, stack)
            for agent, stack in zip(agents, stacks, strict=True)
        ]
        with contextlib.closing(clients[0]), contextlib.closing(clients[1]):
            yield Pair(clients[0], clients[1], client_namespace, server_namespace)


def start_transfer(
    pair: Pair,
    address: str,
    client_bytes: int,
    server_bytes: int,
    *,
    protocols: tuple[str, str],
    hold_open_after: bool = False,
) -> tuple[RunningWorkload, RunningWorkload]:
    """Both ways at once, verified. Returns the client's and the server's workload."""
    listening = pair.server.start(
        Workload(
            WorkloadKind.TRANSFER,
            Role.LISTEN,
            "::",
            0,
            protocol=protocols[1],
            send_bytes=server_bytes,
            send_seed=2,
            hold_open_after=hold_open_after,
            timeout_us=20_000_000,
        )
    )
    connecting = pair.client.start(
        Workload(
            WorkloadKind.TRANSFER,
            Role.CONNECT,
            address,
            listening.port,
            protocol=protocols[0],
            send_bytes=client_bytes,
            send_seed=1,
            hold_open_after=hold_open_after,
            timeout_us=20_000_000,
        )
    )
    return connecting, listening


def transfer(
    pair: Pair, address: str, client_bytes: int, server_bytes: int, *, protocols: tuple[str, str]
) -> tuple[ConnectionResult, ConnectionResult]:
    """To the end. Returns what the client and what the server saw."""
    connecting, listening = start_transfer(pair, address, client_bytes, server_bytes, protocols=protocols)
    (client,) = connecting.result()
    (server,) = listening.result()
    return client, server


def assert_intact(
    client: ConnectionResult, server: ConnectionResult, client_bytes: int, server_bytes: int
) -> None:
    assert (client.error, server.error) == (None, None), (client.detail, server.detail)
    assert (client.bytes_sent, server.bytes_received) == (client_bytes, client_bytes)
    assert (server.bytes_sent, client.bytes_received) == (server_bytes, server_bytes)
    assert client.sha256_sent == server.sha256_received
    assert server.sha256_sent == client.sha256_received
    assert client.sha256_sent != server.sha256_sent
    assert (client.local, client.remote) == (server.remote, server.local)
