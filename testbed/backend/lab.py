"""A lab that is up: its hosts, and what can be done to its links."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from testbed.backend import ownership
from testbed.backend.agents import EMULATOR_ROLE, EMULATOR_SOCKET, AgentSession, control_socket
from testbed.backend.impaired_links import LINKS_NODE, cut_links
from testbed.backend.link_control import EmulatorRealiser, LinkControl, Realiser
from testbed.backend.link_readiness import await_settled
from testbed.backend.link_shaping import Shaper, plan_shapers, set_buckets
from testbed.backend.link_status import links_down
from testbed.backend.links import LinkPlan, link_state_request, route_requests
from testbed.backend.netem_links import NetemRealiser
from testbed.backend.netlink import NetlinkSocket, Request
from testbed.backend.ownership import LabRecord, node_namespace, open_namespace
from testbed.backend.reconfiguration import (
    Replugging,
    kernel_requests,
    network_change,
    node_changes,
    plug_requests,
    repluggings,
    unplug_request,
)
from testbed.backend.stored_topology import store_topology
from testbed.backend.system import network_namespace
from testbed.errors import LabError, UsageError
from testbed.topology.model import Link, LinkEnd, StackKind, Topology

if TYPE_CHECKING:
    from testbed.host.client import HostClient


class Lab:
    """What ``NamespaceBackend.up`` and ``open_lab`` return.

    A lab from ``up`` is taken down when its ``with`` block ends; one from ``open_lab`` stays up.
    """

    def __init__(
        self,
        record: LabRecord,
        topology: Topology,
        *,
        shapers: Sequence[Shaper] | None = None,
        session: AgentSession | None = None,
        down_on_exit: bool = False,
    ) -> None:
        self.name = record.name
        self.topology = topology
        self.directory = record.directory
        self._record = record
        self._built = cut_links(topology)
        self._plan = LinkPlan(self._built.topology)
        self._shapers = list(shapers if shapers is not None else plan_shapers(self._plan))
        # Kept for its life: the agents end with their session.
        self._session = session
        self._down_on_exit = down_on_exit

    @property
    def shapers(self) -> Sequence[Shaper]:
        """Where the links' rates are enforced."""
        return tuple(self._shapers)

    @property
    def links(self) -> LinkControl:
        """What the links do to packets, and how to change it."""
        return LinkControl(
            self._built,
            self.topology.links,
            lambda: self._shapers,
            self.set_rate,
            self._realiser(),
        )

    def _realiser(self) -> Realiser:
        if any(process.role == EMULATOR_ROLE for process in self._record.processes):
            return EmulatorRealiser(self.directory / EMULATOR_SOCKET)
        return NetemRealiser(lambda: self._netlink(LINKS_NODE), self._plan.indices)

    @cached_property
    def hosts(self) -> dict[str, HostClient]:
        """The agents of all hosts, by name."""
        from testbed.host.client import HostClient

        return {
            node.name: HostClient(
                node.name, control_socket(self.directory, self.topology, node.name), str(node.stack)
            )
            for node in self.topology.hosts()
        }

    def host(self, name: str) -> HostClient:
        """Raises UsageError for a name that is no host's."""
        try:
            return self.hosts[name]
        except KeyError:
            known = ", ".join(node.name for node in self.topology.hosts())
            raise UsageError(f"lab '{self.name}' has no host '{name}' (there are {known})") from None

    def namespace_path(self, node: str) -> Path:
        """The node's named network namespace. Raises UsageError for an unknown node."""
        return node_namespace(self._record, node).path

    def set_link(self, node: str, interface: str, up: bool) -> None:
        """Let a link fail, or come back, at one end.

        The end is set down in the kernel; packets in flight to it are lost and the other end loses its
        carrier. Where the userspace stack owns the end, the other end is set down instead. When it comes up
        again, its routes are restored. Raises UsageError for an unknown end.
        """
        end = self._end(node, interface)
        impaired = self._built.link_at(end)
        if impaired is not None:
            # Both ends in its middle: what is on its way is lost, and both sides lose their carrier.
            for middle in (impaired.near, impaired.far):
                self._set_end(middle, up)
        elif self.topology.node(node).stack is StackKind.USERSPACE:
            self._set_end(self._plan.opposite[end], up)
            return
        if self.topology.node(node).stack is not StackKind.USERSPACE:
            self._set_end(end, up)

    def links_down(self) -> frozenset[Link]:
        """Those that were set down, at either end, and are not up again."""
        return links_down(self.topology.links, self._built, self._plan, self._netlink)

    def _set_end(self, end: LinkEnd, up: bool) -> None:
        owner = self._built.topology.node(end.node)
        requests = [link_state_request(end, self._plan.indices[end], up=up)]
        if up and not owner.is_bridge and owner.stack is not StackKind.USERSPACE:
            requests += route_requests(self._plan, owner, end.interface)
        self._run_requests(end.node, requests)
        self._await_link(end, self._plan)

    def _await_link(self, end: LinkEnd, plan: LinkPlan) -> None:
        for each in (end, plan.opposite[end]):
            with self._netlink(each.node) as netlink:
                await_settled(netlink, each, plan.indices[each])

    def reconfigure(self, topology: Topology) -> None:
        """Make of this lab's topology another one: see :mod:`testbed.topology.changes`.

        Raises UsageError where it cannot be done; RequestError or HostError, and the lab is between the two.
        """
        before, after = self.topology, topology
        old_plan = self._plan
        built = cut_links(topology)
        plan = LinkPlan(built.topology)
        replugged = list(repluggings(self._built.topology, built.topology))
        self._check_not_shaped(replugged)
        for replugging in replugged:
            with self._namespace(replugging.new.node) as descriptor:
                request = unplug_request(replugging, old_plan, plan, descriptor)
                self._run_requests(replugging.old.node, [request])
            self._run_requests(replugging.new.node, plug_requests(replugging, plan))
            self._await_link(replugging.new, plan)
        self.topology, self._built, self._plan = topology, built, plan
        for change in node_changes(before, after):
            if change.after.stack is StackKind.USERSPACE:
                self.hosts[change.after.name].change_network(network_change(change))
            else:
                self._run_requests(change.after.name, kernel_requests(plan, change))
        store_topology(topology, self.directory)

    def _check_not_shaped(self, replugged: Sequence[Replugging]) -> None:
        shaped = {end for shaper in self._shapers for end in (shaper.sender, shaper.receiver)}
        for each in replugged:
            if each.old in shaped:
                raise UsageError(
                    f"{each.stays} cannot be moved: its rate is enforced where the cable ends; write"
                    " 'emulated: true' at the link in the topology"
                )

    def another(self) -> Lab:
        """This lab once more, with connections of its own: for another thread."""
        return Lab(self._record, self.topology, shapers=self._shapers)

    def set_rate(self, node: str, interface: str, rate_bit_s: int) -> None:
        """Change the rate of what ``node:interface`` sends. The link must have been given a rate at first.

        Raises UsageError for an unknown end or one without a rate.
        """
        end = self._end(node, interface)
        for position, shaper in enumerate(self._shapers):
            if shaper.sender == end:
                changed = replace(shaper, rate_bit_s=rate_bit_s)
                with self._netlink(changed.node) as netlink:
                    set_buckets([changed], netlink)
                self._shapers[position] = changed
                return
        raise UsageError(f"{end} sends without a rate; give it one in the topology to change it later")

    def run_in(
        self, node: str, argv: Sequence[str], *, timeout: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in a node's namespace and collect what it says.

        Raises LabError when it cannot be started, and subprocess.TimeoutExpired after ``timeout`` seconds.
        """
        with self._namespace(node) as descriptor:
            try:
                with network_namespace(descriptor):
                    process = subprocess.Popen(
                        argv,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                        text=True,
                        env=os.environ | self._record.environment,
                    )
            except OSError as error:
                raise LabError(f"{node}: cannot run '{argv[0]}': {error.strerror}") from error
        with process:
            try:
                output, errors = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(argv, process.returncode, output, errors)

    @contextlib.contextmanager
    def inside(self, node: str) -> Iterator[None]:
        """Sockets that are opened in the block, by this thread, belong to the node."""
        with self._namespace(node) as descriptor, network_namespace(descriptor):
            yield

    def down(self) -> None:
        """Take the lab down. Harmless when it is down already."""
        self.close()
        ownership.undo(self._record)

    def close(self) -> None:
        """Disconnect from the hosts' agents without taking the lab down."""
        for client in self.__dict__.pop("hosts", {}).values():
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._down_on_exit:
            self.down()
        else:
            self.close()

    def _end(self, node: str, interface: str) -> LinkEnd:
        end = LinkEnd(node, interface)
        if end not in self._plan.opposite:
            ends = ", ".join(map(str, self._plan.opposite))
            raise UsageError(f"lab '{self.name}' has no link at {end} (there are {ends})")
        return end

    def _run_requests(self, node: str, requests: Sequence[Request]) -> None:
        with self._netlink(node) as netlink:
            netlink.run(requests)

    @contextlib.contextmanager
    def _namespace(self, node: str) -> Iterator[int]:
        descriptor = open_namespace(node_namespace(self._record, node))
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _netlink(self, node: str) -> Iterator[NetlinkSocket]:
        with self._namespace(node) as descriptor:
            with network_namespace(descriptor):
                netlink = NetlinkSocket()
            with contextlib.closing(netlink):
                yield netlink
