"""Labs in network namespaces: the backend that needs nothing but a Linux kernel."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from testbed.backend import ownership
from testbed.backend.agents import (
    AgentSession,
    AgentSpawner,
    agent_configurations,
    emulator_configuration,
    process_role,
    start_launcher,
)
from testbed.backend.host_settings import apply_basic_settings, apply_topology_settings, check_settings
from testbed.backend.impaired_links import LINKS_NODE, Built, choose_realisation, cut_links
from testbed.backend.lab import Lab
from testbed.backend.link_readiness import await_settled
from testbed.backend.link_shaping import Shaper, apply_shapers, plan_shapers
from testbed.backend.links import LinkPlan, configuration_requests, creation_requests
from testbed.backend.netem_links import set_up
from testbed.backend.netlink import NetlinkSocket
from testbed.backend.offloads import set_tcp_segmentation_offload
from testbed.backend.ownership import Journal, LabRecord, NamespaceRecord, Undone, namespace_path
from testbed.backend.privileges import HOLDER_ROLE, is_in_own_user_namespace, start_holder
from testbed.backend.runtime import NAMESPACE_DIRECTORY
from testbed.backend.stored_topology import load_stored_topology, store_topology
from testbed.backend.system import (
    CLONE_NEWNET,
    MS_BIND,
    MS_REC,
    MS_SHARED,
    interruptions_deferred,
    mount,
    network_namespace,
    unshare,
)
from testbed.errors import CapabilityError, HostError, LabError
from testbed.host.protocol import AgentConfiguration
from testbed.topology.model import Realisation, Topology


@dataclass(frozen=True, slots=True)
class OpenNamespace:
    """A node's namespace while the lab is being built."""

    record: NamespaceRecord
    descriptor: int
    netlink: NetlinkSocket


class NamespaceBackend:
    """Builds labs on this machine. Needs the privileges that ``ensure_privileges`` provides.

    With ``persistent`` a lab outlives the process that put it up; otherwise its agents end with it, and
    ``testbed clean`` regards the lab as left behind when the process is gone. A backend that builds many
    labs keeps one agent launcher for them until :meth:`close`. Threads need backends of their own.
    """

    def __init__(self, *, persistent: bool = False, with_agents: bool = True) -> None:
        self.persistent = persistent
        self.with_agents = with_agents
        self._session: AgentSession | None = None

    def up(self, topology: Topology, lab_name: str, *, seed: int | None = None) -> Lab:
        """Build the whole lab, or nothing: any error or interruption on the way undoes what was made.

        Raises UsageError, CapabilityError (before anything is made) or LabError.
        """
        ownership.check_lab_name(lab_name)
        check_settings(topology)
        built = cut_links(topology)
        realisation = choose_realisation(built)
        plan = LinkPlan(built.topology)
        shapers = plan_shapers(plan)
        needs_launcher = bool(built.links) or (self.with_agents and bool(topology.hosts()))
        session = self._warm_up() if needs_launcher and not self.persistent else None
        with contextlib.ExitStack() as undoing, contextlib.ExitStack() as finishing:
            with interruptions_deferred():
                journal = ownership.begin(
                    lab_name,
                    topology=topology.name,
                    persistent=self.persistent,
                    rootless=is_in_own_user_namespace(),
                    session=session.tag if session is not None else None,
                )
                undoing.callback(_undo, lab_name)
                undoing.callback(journal.close)
            launcher = session or self._own_launcher(needs_launcher, journal, finishing)
            store_topology(topology, journal.directory)
            with _namespaces(plan.topology, journal) as namespaces:
                applied = _build(plan, namespaces, shapers)
                if built.links and realisation is Realisation.NETEM:
                    _impair_by_netem(built, plan, namespaces, seed)
            if launcher is not None:
                configurations = self._configurations(topology, built, realisation, journal, seed)
                self._spawn(launcher, configurations, journal)
            journal.complete()
            record = ownership.read_lab(lab_name)
            undoing.pop_all()
            journal.close()
        return Lab(record, topology, shapers=applied, session=session, down_on_exit=True)

    def close(self) -> None:
        """End the agent launcher, and with it the agents of all labs but persistent ones."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _warm_up(self) -> AgentSession:
        """The launcher for labs that end with this process; it starts while the namespaces are being made."""
        if self._session is None:
            self._session = AgentSession()
        return self._session

    def _own_launcher(
        self, is_needed: bool, journal: Journal, finishing: contextlib.ExitStack
    ) -> AgentSpawner | None:
        """What a persistent lab needs: agents that bear its own tag, and without root a holder."""
        if not self.persistent:
            return None
        if is_in_own_user_namespace():
            journal.processes({HOLDER_ROLE: start_holder({ownership.TAG_VARIABLE: journal.tag})})
        if not is_needed:
            return None
        launcher = start_launcher(journal.directory, journal.tag, persistent=True)
        finishing.callback(launcher.close)
        return launcher

    def _configurations(
        self,
        topology: Topology,
        built: Built,
        realisation: Realisation,
        journal: Journal,
        seed: int | None,
    ) -> list[AgentConfiguration]:
        """First what forwards packets, then the agents of the hosts."""
        configurations: list[AgentConfiguration] = []
        if built.links and realisation is Realisation.EMULATOR:
            configurations.append(emulator_configuration(built, journal, seed))
        if self.with_agents:
            configurations += agent_configurations(topology, journal, seed)
        return configurations

    def _spawn(
        self, launcher: AgentSpawner, configurations: list[AgentConfiguration], journal: Journal
    ) -> None:
        try:
            spawned = launcher.spawn(configurations)
        except HostError:
            # The next lab shall not suffer from a launcher that has died.
            self.close()
            raise
        journal.processes({process_role(process.host): process.pid for process in spawned})

    def down(self, lab_name: str, *, dry_run: bool = False) -> list[Undone]:
        """Take a lab down. Raises LabError when there is none of that name."""
        return ownership.undo(ownership.read_lab(lab_name), dry_run=dry_run)

    def open_lab(self, lab_name: str) -> Lab:
        """A lab that is up. Leaving its ``with`` block leaves it up. Raises LabError."""
        record = ownership.read_lab(lab_name)
        ownership.check_usable(record)
        return Lab(record, load_stored_topology(record.directory))

    def list_labs(self) -> list[LabRecord]:
        """All labs of this user, oldest first, broken ones included."""
        return ownership.read_labs()


def _undo(lab_name: str) -> None:
    ownership.undo(ownership.read_lab(lab_name))


def _build(
    plan: LinkPlan, namespaces: Mapping[str, OpenNamespace], shapers: Sequence[Shaper]
) -> list[Shaper]:
    """All links first, then what needs them; one batch of requests per node in each round."""
    descriptors = {node: namespace.descriptor for node, namespace in namespaces.items()}
    for node_name, requests in creation_requests(plan, descriptors).items():
        namespaces[node_name].netlink.run(requests)
    for node in plan.topology.nodes:
        namespace = namespaces[node.name]
        namespace.netlink.run(configuration_requests(plan, node))
        if node.sysctls:
            with network_namespace(namespace.descriptor):
                apply_topology_settings(node)
    applied = apply_shapers(plan, shapers, lambda node_name: namespaces[node_name].netlink)
    for end, index in plan.indices.items():
        await_settled(namespaces[end.node].netlink, end, index)
    return applied


def _impair_by_netem(
    built: Built, plan: LinkPlan, namespaces: Mapping[str, OpenNamespace], seed: int | None
) -> None:
    """netem takes a super-segment for one packet, so that both ends are to send none into these links."""
    set_up(built.links, plan.indices, namespaces[LINKS_NODE].netlink, seed)
    for each in built.links:
        for end in (each.link.first, each.link.second):
            with network_namespace(namespaces[end.node].descriptor), contextlib.suppress(OSError):
                set_tcp_segmentation_offload(end.interface, enabled=False)


@contextlib.contextmanager
def _namespaces(topology: Topology, journal: Journal) -> Iterator[Mapping[str, OpenNamespace]]:
    """Make all namespaces of a lab and keep them open in the block, where the lab is built."""
    paths = {node.name: namespace_path(journal.directory.name, node.name) for node in topology.nodes}
    _prepare_namespace_directory()
    for path in paths.values():
        if os.path.lexists(path):
            raise LabError(f"{path} exists already and belongs to no lab; 'ip netns delete {path.name}'?")
    _allow_descriptors(2 * len(topology.nodes))
    namespaces: dict[str, OpenNamespace] = {}
    with contextlib.ExitStack() as closing:
        try:
            with network_namespace():
                for node in topology.nodes:
                    unshare(CLONE_NEWNET)
                    descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
                    closing.callback(os.close, descriptor)
                    record = NamespaceRecord(node.name, paths[node.name], os.fstat(descriptor).st_ino)
                    apply_basic_settings(node)
                    netlink = NetlinkSocket()
                    closing.callback(netlink.close)
                    namespaces[node.name] = OpenNamespace(record, descriptor, netlink)
        except OSError as error:
            raise _namespace_error(error, len(namespaces)) from error
        # Without a name the namespaces would vanish with this process: only now does anything need undoing.
        journal.namespaces([namespace.record for namespace in namespaces.values()])
        for namespace in namespaces.values():
            _give_name(namespace)
        yield namespaces


def _give_name(namespace: OpenNamespace) -> None:
    """Do what ``ip netns attach`` does. An existing file of that name is an error."""
    path = namespace.record.path
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
        mount(f"/proc/self/fd/{namespace.descriptor}", str(path), flags=MS_BIND)
    except OSError as error:
        raise LabError(f"cannot name the namespace {path}: {error.strerror}") from error


def _prepare_namespace_directory() -> None:
    """As ``ip netns add`` does: a mount point that shares its mounts with other mount namespaces."""
    directory = str(NAMESPACE_DIRECTORY)
    try:
        NAMESPACE_DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            mount("", directory, flags=MS_SHARED | MS_REC)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            mount(directory, directory, flags=MS_BIND | MS_REC)
            mount("", directory, flags=MS_SHARED | MS_REC)
    except OSError as error:
        raise CapabilityError(f"cannot prepare {directory} for namespaces: {error.strerror}") from error


def _allow_descriptors(number: int) -> None:
    """A large lab needs more open files at once than the usual soft limit of 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + 256
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def _namespace_error(error: OSError, made: int) -> CapabilityError:
    if error.errno == errno.ENOSPC:
        return CapabilityError(f"no more than {made} network namespaces: user.max_net_namespaces is too low")
    if error.errno == errno.EMFILE:
        return CapabilityError(f"no more than {made} nodes: the limit of open files (ulimit -n) is too low")
    return CapabilityError(f"cannot make network namespaces: {error.strerror}; see 'testbed doctor'")
