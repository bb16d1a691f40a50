"""From a topology to the agents of its hosts."""

from __future__ import annotations

import hashlib
import shutil
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from testbed.backend import ownership
from testbed.backend.impaired_links import LINKS_NODE, Built, link_configurations
from testbed.backend.ownership import TAG_VARIABLE, Journal, namespace_path
from testbed.emulator.configuration import write_links
from testbed.errors import LabError
from testbed.host.protocol import LINK_EMULATOR, AgentConfiguration
from testbed.topology.model import Endpoint, Interface, Node, Route, Topology

if TYPE_CHECKING:
    from testbed.host.launcher import AgentLauncher, SpawnedAgent

EMULATOR_ROLE = "link emulator"
LINKS_FILE = "links.json"
EMULATOR_SOCKET = "links"
"""In the lab's directory; no host's socket is called so, these end in ``.sock``."""
_LONGEST_SOCKET_PATH = 107
"""``sun_path`` holds 108 bytes with the final zero."""


def control_socket(directory: Path, topology: Topology, host: str) -> Path:
    """Where a host's agent listens. Raises LabError when the runtime directory's path is too long."""
    path = directory / f"{host}.sock"
    if len(str(path).encode()) > _LONGEST_SOCKET_PATH:
        names = [node.name for node in topology.nodes]
        path = directory / f"{names.index(host)}.sock"
    if len(str(path).encode()) > _LONGEST_SOCKET_PATH:
        raise LabError(
            f"{directory} is too long for the address of a Unix socket: choose a shorter directory"
        )
    return path


def agent_configurations(topology: Topology, journal: Journal, seed: int | None) -> list[AgentConfiguration]:
    """What each host's agent is told, in the topology's order."""
    lab_name = journal.directory.name
    return [
        replace(
            host_configuration(node, seed),
            lab=lab_name,
            namespace_path=str(namespace_path(lab_name, node.name)),
            control_socket=str(control_socket(journal.directory, topology, node.name)),
            log_file=str(journal.directory / f"{node.name}.log"),
        )
        for node in topology.hosts()
    ]


def host_configuration(node: Node, seed: int | None) -> AgentConfiguration:
    """What the topology says about a host; where its agent lives is left open."""
    return AgentConfiguration(
        lab="",
        host=node.name,
        stack=str(node.stack),
        namespace_path="",
        control_socket="",
        log_file="",
        interfaces=tuple(_interface_fields(interface) for interface in node.interfaces),
        routes=tuple(_route_fields(route) for route in node.routes),
        subflows_limit=node.mptcp.subflows_limit,
        add_addr_accepted_limit=node.mptcp.add_addr_accepted_limit,
        endpoints=tuple(_endpoint_fields(endpoint) for endpoint in node.mptcp.endpoints),
        sysctls=node.sysctls,
        seed=_host_seed(seed, node),
    )


def emulator_configuration(built: Built, journal: Journal, seed: int | None) -> AgentConfiguration:
    """What the process that emulates the links is told. Raises LabError."""
    links_file = journal.directory / LINKS_FILE
    try:
        write_links(link_configurations(built.links, seed), links_file)
    except OSError as error:
        raise LabError(f"cannot write {links_file}: {error.strerror}") from error
    lab_name = journal.directory.name
    return AgentConfiguration(
        lab=lab_name,
        host=LINKS_NODE,
        stack=LINK_EMULATOR,
        namespace_path=str(namespace_path(lab_name, LINKS_NODE)),
        control_socket=str(journal.directory / EMULATOR_SOCKET),
        log_file=str(journal.directory / "links.log"),
        links_file=str(links_file),
    )


def process_role(name: str) -> str:
    """What the journal calls the process of a host, or of the links."""
    return EMULATOR_ROLE if name == LINKS_NODE else f"agent of {name}"


def _interface_fields(interface: Interface) -> dict[str, Any]:
    return {
        "name": interface.name,
        "mac": interface.mac,
        "mtu": interface.mtu,
        "addresses": [str(address) for address in interface.addresses],
    }


def _route_fields(route: Route) -> dict[str, Any]:
    return {
        "destination": str(route.destination),
        "interface": route.interface,
        "gateway": str(route.gateway) if route.gateway is not None else None,
        "source": str(route.source) if route.source is not None else None,
        "metric": route.metric,
    }


def _endpoint_fields(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "address": str(endpoint.address),
        "flags": sorted(endpoint.flags),
        "interface": endpoint.interface,
        "identifier": endpoint.identifier,
        "port": endpoint.port,
    }


def _host_seed(seed: int | None, node: Node) -> int | None:
    """A seed of the host's own, the same in every run with the same lab seed."""
    if seed is None:
        return None
    return int.from_bytes(hashlib.sha256(f"{seed}:{node.name}".encode()).digest()[:8], "big")


class AgentSpawner(Protocol):
    """What starts agents: a launcher, or a session that has one."""

    def spawn(self, configurations: Sequence[AgentConfiguration]) -> Sequence[SpawnedAgent]: ...


class AgentSession:
    """One launcher for all the labs that a process builds one after the other: warming up is what costs.

    The launcher's processes bear the session's tag. They end with this process, however it ends; its
    directory, with the launcher's log, is removed by :meth:`close` or by ``testbed clean``.
    """

    def __init__(self) -> None:
        self.directory = ownership.make_session_directory()
        self.tag = self.directory.name
        try:
            self._launcher = start_launcher(self.directory, self.tag, persistent=False)
        except BaseException:
            # A launcher that was under way ends with this process.
            shutil.rmtree(self.directory, ignore_errors=True)
            raise
        self._finalizer = weakref.finalize(self, _end_session, self._launcher, self.directory)

    def spawn(self, configurations: Sequence[AgentConfiguration]) -> Sequence[SpawnedAgent]:
        """Raises HostError."""
        return self._launcher.spawn(configurations)

    def close(self) -> None:
        """End the launcher and all agents that are left. Harmless when repeated."""
        self._finalizer()


def _end_session(launcher: AgentLauncher, directory: Path) -> None:
    launcher.close()
    shutil.rmtree(directory, ignore_errors=True)


def start_launcher(directory: Path, tag: str, *, persistent: bool) -> AgentLauncher:
    """Start the process that agents are forked from, marked with ``tag``; its log is in ``directory``."""
    from testbed.host.launcher import AgentLauncher

    return AgentLauncher(directory, persistent=persistent, environment={TAG_VARIABLE: tag})
