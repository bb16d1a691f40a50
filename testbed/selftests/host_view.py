"""One end of a case's lab, and what a case needs of the agent and network behind it.

The protocols name the part of host agents and backends that cases use, so that a case can be judged against
made-up hosts as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from mptcp_stack.ip.interface import link_local_from_mac
from mptcp_stack.wire.addresses import format_address
from testbed.errors import CapabilityError
from testbed.host.path_control import PathCommand
from testbed.host.protocol import (
    ConnectionResult,
    EndpointRequest,
    StepAnswer,
    StepKind,
    Workload,
    WorkloadProgress,
)
from testbed.middlebox.settings import BoxCounters, BoxSettings
from testbed.topology.model import Impairment, LinkEnd, Node, Topology

POLL_INTERVAL_S = 0.02
ECHO_LIMIT_S = 5.0
EVENT_LIMIT_S = 15.0
"""How long an awaited event may take, slow machines included."""


class CaseAbortedError(Exception):
    """What a case waited for did not come: it ends here, as failed."""


def counted(host: CaseHost, full_name: str) -> int:
    """A counter of a host to wait for. Raises CapabilityError where there is none of that name."""
    counters = host.agent.counters()
    if full_name not in counters:
        raise CapabilityError(f"the kernel of {host.name} has no counter {full_name} to wait for")
    return counters[full_name]


class RunningWorkload(Protocol):
    """A workload on a host agent."""

    @property
    def port(self) -> int: ...

    def wait_for(self, milestone: str, timeout_s: float) -> WorkloadProgress: ...

    def get_option(
        self, level: int, option: int, length: int, *, request: bytes = b"", connection: int = 0
    ) -> bytes: ...

    def set_option(self, level: int, option: int, value: bytes, *, connection: int = 0) -> bytes: ...

    def step(
        self, kind: StepKind, number: int = 0, *, connection: int = 0, timeout_s: float = ...
    ) -> StepAnswer: ...

    def progress(self) -> WorkloadProgress: ...

    def finish(self) -> None: ...

    def stop(self) -> None: ...

    def result(self, timeout_s: float) -> Sequence[ConnectionResult]: ...


class HostAgent(Protocol):
    """A host of a lab, as :class:`testbed.host.client.HostClient` offers it."""

    def start(self, workload: Workload) -> RunningWorkload: ...

    def counters(self) -> dict[str, int]: ...

    def set_limits(self, subflows: int, add_addr_accepted: int) -> None: ...

    def add_endpoint(
        self,
        address: str,
        *,
        flags: Sequence[str],
        interface: str | None = None,
        identifier: int | None = None,
        port: int | None = None,
    ) -> int: ...

    def delete_endpoint(self, identifier: int, address: str | None = None) -> None: ...

    def flush_endpoints(self) -> None: ...

    def set_endpoint_flags(
        self, flags: Sequence[str], *, identifier: int | None = None, address: str | None = None
    ) -> None: ...

    def endpoints(self) -> list[EndpointRequest]: ...

    def watch_paths(self) -> None: ...

    def path_events(self) -> list[dict[str, Any]]: ...

    def command_paths(self, command: PathCommand) -> None: ...

    def limits(self) -> tuple[int, int]: ...

    def listeners(
        self,
        *,
        local_address: str | None = None,
        local_port: int | None = None,
        remote_port: int | None = None,
    ) -> list[str]: ...

    def sockets_in_use(self) -> int: ...

    def reach(self, address: str, timeout_s: float = ...) -> int | None: ...

    def sockets(self) -> str: ...


class NetworkControl(Protocol):
    """What a case may do to the network between the hosts."""

    def set_link(self, node: str, interface: str, up: bool) -> None: ...

    def impair(
        self, node: str, interface: str, words: Mapping[str, str], *, sent: bool, received: bool
    ) -> None: ...

    def put_impairments(
        self, node: str, interface: str, forward: Impairment | None, backward: Impairment | None
    ) -> None:
        """In the place of those in force on a link, from its first end and from its second."""
        ...

    def set_middlebox(self, node: str, interface: str, boxes: Sequence[BoxSettings]) -> None: ...

    def box_counters(self) -> Mapping[LinkEnd, Sequence[BoxCounters]]:
        """What the boxes of each link have done since they are there, by the link's first end."""
        ...

    def reconfigure(self, topology: Topology) -> None:
        """Addresses, routes and cables as in another topology with the same nodes and links."""
        ...

    def schedule(self, delay_s: float, action: Callable[[], None]) -> None:
        """Call ``action``, which raises nothing, after so long in the lab's time, unless the lab is gone."""
        ...

    def interface_bytes(self, node: str, interface: str) -> tuple[int, int]:
        """Received and transmitted bytes since the interface was made."""
        ...

    def filter(self, router: str, rules: Sequence[str], hook: str) -> None:
        """What a router shall do with some packets, in the words of nftables; no rules let everything pass.

        ``hook`` is "forward", or "prerouting" for what it may know no way for. Raises CapabilityError.
        """
        ...

    def filtered(self, node: str) -> list[int]:
        """How many packets each rule of its filter has counted, of those that say "counter".

        Raises CapabilityError.
        """
        ...

    def intercept(self, host: str, port: int) -> None:
        """What a host forwards to this port, wherever to, goes to its transparent listener (TPROXY).

        Nothing has to be done for hosts of the bundled stack. Raises CapabilityError.
        """
        ...


class CaseHost:
    """One end of the connection."""

    def __init__(
        self,
        name: str,
        node: Node,
        agent: HostAgent,
        family: int,
        tell: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """``tell`` is given what is done to the host, in words, as it is done."""
        self.name = name
        self.node = node
        self.agent = agent
        self.family = family
        self.endpoint_family = family
        """Another one in mixed runs."""
        self._tell = tell
        self._endpoints: dict[str, int] = {}

    @property
    def stack(self) -> str:
        return str(self.node.stack)

    def address(self, interface: str | None = None, family: int | None = None) -> str:
        """The first address of the run's family, of one interface or of the host's first.

        Raises LookupError where there is none.
        """
        wanted = family or self.family
        for candidate in self.node.interfaces:
            if interface in (None, candidate.name):
                for address in candidate.addresses:
                    if address.version == wanted and not address.ip.is_link_local:
                        return str(address.ip)
        raise LookupError(f"{self.node.name} has no IPv{wanted} address on {interface or 'any interface'}")

    def is_answered_by(self, address: str, timeout_s: float = ECHO_LIMIT_S) -> bool:
        """Whether an ICMP echo request is answered in time. Raises HostError without a way there."""
        return self.agent.reach(address, timeout_s) is not None

    def link_local(self, interface: str) -> str:
        """The link-local IPv6 address that follows from an interface's MAC. Raises StopIteration for none."""
        found = next(each for each in self.node.interfaces if each.name == interface)
        return format_address(link_local_from_mac(bytes.fromhex(found.mac.replace(":", ""))))

    def limits(self, *, subflows: int, add_addr_accepted: int = 0) -> None:
        """What ``ip mptcp limits set`` takes."""
        self.agent.set_limits(subflows, add_addr_accepted)
        self._tell(f"{self.name}: limits subflows {subflows} add_addr_accepted {add_addr_accepted}")

    def endpoint(
        self,
        interface: str,
        *,
        signal: bool = False,
        subflow: bool = False,
        backup: bool = False,
        fullmesh: bool = False,
        identifier: int | None = None,
        port: int | None = None,
    ) -> None:
        """``ip mptcp endpoint add`` for the address of an interface."""
        wanted = {"signal": signal, "subflow": subflow, "backup": backup, "fullmesh": fullmesh}
        flags = tuple(flag for flag, is_set in wanted.items() if is_set)
        address = self.address(interface, self.endpoint_family)
        self._endpoints[interface] = self.agent.add_endpoint(
            address,
            flags=flags,
            interface=interface,
            identifier=identifier,
            port=port,
        )
        named = f"{address} port {port}" if port else address
        self._tell(f"{self.name}: endpoint {named} dev {interface} {' '.join(flags)}".rstrip())

    def endpoint_at(
        self, address: str, *flags: str, identifier: int | None = None, port: int | None = None
    ) -> int:
        """``ip mptcp endpoint add`` for any address, without a device. Returns its id."""
        chosen = self.agent.add_endpoint(address, flags=flags, identifier=identifier, port=port)
        self._tell(f"{self.name}: endpoint {address} {' '.join(flags)}")
        return chosen

    def remove_endpoint_id(self, identifier: int, address: str | None = None) -> None:
        """``ip mptcp endpoint delete id``."""
        self.agent.delete_endpoint(identifier, address)
        self._tell(f"{self.name}: endpoint {identifier} removed")

    def change_endpoint(self, interface: str, *, backup: bool = False, fullmesh: bool = False) -> None:
        """``ip mptcp endpoint change``: exactly these flags from now on. Raises KeyError."""
        wanted = {"backup": backup, "fullmesh": fullmesh}
        flags = tuple(flag for flag, is_set in wanted.items() if is_set)
        self.agent.set_endpoint_flags(flags, identifier=self._endpoints[interface])
        self._tell(f"{self.name}: endpoint on {interface} is now {' '.join(flags) or 'without flags'}")

    def remove_endpoint(self, interface: str) -> None:
        """``ip mptcp endpoint delete`` for an endpoint that :meth:`endpoint` made. Raises KeyError."""
        self.agent.delete_endpoint(self._endpoints.pop(interface))
        self._tell(f"{self.name}: endpoint on {interface} removed")

    def remove_initial_address(self) -> None:
        """``ip mptcp endpoint delete id 0``: the address that the connection was opened with."""
        self.agent.delete_endpoint(0, self.address())
        self._tell(f"{self.name}: address of id 0 removed")

    def flush_endpoints(self) -> None:
        """``ip mptcp endpoint flush``."""
        self.agent.flush_endpoints()
        self._endpoints.clear()
        self._tell(f"{self.name}: endpoints flushed")

    def sockets(self) -> list[str]:
        """The states of the host's sockets, as lines of text."""
        return self.agent.sockets().splitlines()
