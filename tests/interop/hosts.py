"""A client and a server, one of them the kernel's, with a forwarder between them on each of two links."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.device.packet_socket import PacketSocket
from testbed.counters.nstat import subtract
from testbed.host.client import HostClient
from testbed.host.launcher import AgentLauncher
from testbed.host.protocol import ConnectionResult
from tests.device.namespaces import inside, namespace, run
from tests.host.labs import LINKS, Pair, configuration, start_transfer
from tests.interop.forwarder import Forwarder, forwarded

ADDRESSES = {4: "10.8.0.2", 6: "fd08:0::2"}
ANNOUNCED = {4: "10.8.1.2", 6: "fd08:1::2"}
"""On the second link, where the client's address is chosen by its route."""
LONGEST_JOIN_S = 10.0


@dataclass(frozen=True, slots=True)
class BadPair:
    pair: Pair
    forwarder: Forwarder

    def counters(self) -> tuple[dict[str, int], dict[str, int]]:
        return self.pair.client.counters(), self.pair.server.counters()


def transfer_over_both_links(
    hosts: BadPair, family: int, client_bytes: int, server_bytes: int
) -> tuple[ConnectionResult, ConnectionResult]:
    """Neither end shuts down before the join is done: one that comes later is refused, by Linux too."""
    server, client = hosts.pair.server, hosts.pair.client
    server.add_endpoint(ANNOUNCED[family], flags={"signal"})
    client.set_limits(2, 1)
    connecting, listening = start_transfer(
        hosts.pair,
        ADDRESSES[family],
        client_bytes,
        server_bytes,
        protocols=("mptcp", "mptcp"),
        hold_open_after=True,
    )
    deadline_s = time.monotonic() + LONGEST_JOIN_S
    while not server.counters().get("MPTcpExtMPJoinAckRx"):
        assert time.monotonic() < deadline_s, "no join"
    connecting.finish()
    listening.finish()
    (of_client,) = connecting.result()
    (of_server,) = listening.result()
    return of_client, of_server


def grown(
    after: tuple[dict[str, int], dict[str, int]], before: tuple[dict[str, int], dict[str, int]]
) -> tuple[dict[str, int], dict[str, int]]:
    return subtract(after[0], before[0]), subtract(after[1], before[1])


@contextlib.contextmanager
def apart(stacks: tuple[str, str]) -> Iterator[tuple[str, str, list[tuple[PacketSocket, PacketSocket]]]]:
    """Client and server without a wire between them, and the two ends of each link that lie in the middle."""
    with namespace() as client, namespace() as server, namespace() as middle, contextlib.ExitStack() as open_:
        links = []
        for link in range(LINKS):
            ends = []
            for host, number, stack in ((client, 1, stacks[0]), (server, 2, stacks[1])):
                _connect(host, middle, link, number, stack)
                with inside(middle):
                    end = PacketSocket.open(_middle_name(link, number))
                open_.callback(end.close)
                ends.append(end)
            links.append((ends[0], ends[1]))
        yield client, server, links


def _middle_name(link: int, number: int) -> str:
    return f"m{link}-{number}"


def _connect(host: str, middle: str, link: int, number: int, stack: str) -> None:
    name, far_name = f"eth{link}", _middle_name(link, number)
    run("ip", "-n", host, "link", "add", name, "type", "veth", "peer", far_name, "netns", middle)
    run("ip", "-n", host, "link", "set", name, "address", f"02:08:00:00:{link:02x}:{number:02x}")
    with inside(middle):
        Path(f"/proc/sys/net/ipv6/conf/{far_name}/disable_ipv6").write_text("1")
    if stack == "userspace":
        with inside(host):
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
    else:
        run("ip", "-n", host, "addr", "add", f"10.8.{link}.{number}/24", "dev", name)
        run("ip", "-n", host, "addr", "add", f"fd08:{link}::{number}/64", "dev", name, "nodad")
    run("ip", "-n", middle, "link", "set", far_name, "up")
    run("ip", "-n", host, "link", "set", name, "up")


@contextlib.contextmanager
def bad_pair(
    directory: Path, stacks: tuple[str, str], settings: WireSettings, *, checksum: bool, seed: int = 1
) -> Iterator[BadPair]:
    """Ready to be used."""
    sysctls = (("net.mptcp.checksum_enabled", str(int(checksum))),)
    with (
        apart(stacks) as (client_namespace, server_namespace, links),
        forwarded(links, settings, seed) as forwarder,
        AgentLauncher(directory) as launcher,
    ):
        namespaces = (client_namespace, server_namespace)
        agents = launcher.spawn(
            [
                replace(configuration(directory, host, name, stack), sysctls=sysctls)
                for host, name, stack in zip(("client", "server"), namespaces, stacks, strict=True)
            ]
        )
        clients = [
            HostClient(agent.host, agent.control_socket, stack)
            for agent, stack in zip(agents, stacks, strict=True)
        ]
        with contextlib.closing(clients[0]), contextlib.closing(clients[1]):
            yield BadPair(Pair(clients[0], clients[1], *namespaces), forwarder)
