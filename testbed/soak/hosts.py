"""Brings a scenario's network to life: two stacks, a link for each path, and what happens to them when."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.ip.interface import Interface, InterfaceAddress, LinkType
from mptcp_stack.ip.routing import Route
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.settings import StackSettings
from mptcp_stack.simulator import Link, Simulator
from mptcp_stack.stack import Stack
from mptcp_stack.wire.addresses import parse_address
from testbed.soak.middlebox import Box, damage
from testbed.soak.scenario import AddressChange, AddressEvent, PathChange, PathEvent, PathPlan, Scenario

DEATH_POLL_US = 20_000


def address_of(path: int, *, on_client: bool, is_ipv6: bool) -> bytes:
    """10.0.N.2 or fd00:N::2 for the client on path N - 1, .1 for the server."""
    host = 2 if on_client else 1
    return parse_address(f"fd00:{path + 1}::{host}" if is_ipv6 else f"10.0.{path + 1}.{host}")


@dataclass(slots=True)
class Path:
    plan: PathPlan
    link: Link
    boxes: tuple[Box, Box]


class Hosts:
    """``client`` and ``server`` of a scenario, on one simulator."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.simulator = Simulator(scenario.seed)
        self.client = self._stack("client", scenario.client)
        self.server = self._stack("server", scenario.server)
        self.paths = [self._add_path(number, plan) for number, plan in enumerate(scenario.paths)]
        for event in scenario.path_events:
            self.simulator.call_at(event.at_us, partial(self._change_path, event))
        for change in scenario.address_events:
            self.simulator.call_at(change.at_us, partial(self._change_addresses, change))
        self._dead_addresses: set[bytes] = set()
        """Of the path that has died for good."""

    def damaged_packets(self, server_port: int, *, to_client: bool) -> int:
        """Whose payload was changed under a right checksum; one bit in each."""
        return sum(path.boxes[to_client].damaged[server_port] for path in self.paths)

    def stripped_packets(self, server_port: int) -> int:
        """From which options of MPTCP were removed."""
        return sum(box.stripped[server_port] for path in self.paths for box in path.boxes)

    @property
    def stacks(self) -> tuple[tuple[str, Stack], tuple[str, Stack]]:
        return ("client", self.client), ("server", self.server)

    def _stack(self, name: str, settings: StackSettings) -> Stack:
        stack = Stack(settings, random_bytes=self.simulator.random(name).randbytes)
        self.simulator.add_stack(name, stack)
        return stack

    def _add_path(self, number: int, plan: PathPlan) -> Path:
        client = self._interface(self.client, number, plan, on_client=True)
        server = self._interface(self.server, number, plan, on_client=False)
        self._route_by_source(number, client)
        link = self.simulator.link(
            "client", client, "server", server, plan.forward, plan.backward, name=str(number)
        )
        boxes = []
        for wire in (link.forward, link.backward):
            layer = wire.link_layer
            box = Box(layer, self.simulator.random(f"box {wire.name}"), plan.stripping, plan.damages_data)
            if plan.stripping is not None or plan.damages_data:
                wire.rewrite = box.rewrite
            wire.corruptor = partial(damage, link_layer=layer)
            boxes.append(box)
        return Path(plan, link, (boxes[0], boxes[1]))

    def _interface(self, stack: Stack, number: int, plan: PathPlan, *, on_client: bool) -> Interface:
        return stack.ip.add_interface(
            f"eth{number}",
            link_type=LinkType.RAW_IP if plan.is_raw_ip else LinkType.ETHERNET,
            mac=b"" if plan.is_raw_ip else bytes([2, 0, 0, 0, number, 2 if on_client else 1]),
            mtu=plan.mtu,
            addresses=[
                InterfaceAddress(address_of(number, on_client=on_client, is_ipv6=False), 24),
                InterfaceAddress(address_of(number, on_client=on_client, is_ipv6=True), 64),
            ],
            checksum_offload=plan.gso_max_size > 0,
            gso_max_size=plan.gso_max_size,
        )

    def _route_by_source(self, number: int, interface: Interface) -> None:
        """What the client sends from an address of a path takes that path, wherever it is for."""
        for is_ipv6, length in ((False, 4), (True, 16)):
            self.client.ip.routes.add(
                Route(
                    bytes(length),
                    0,
                    interface,
                    gateway=address_of(number, on_client=False, is_ipv6=is_ipv6),
                    source=address_of(number, on_client=True, is_ipv6=is_ipv6),
                )
            )

    # --- events ---

    def _change_path(self, event: PathEvent) -> None:
        path = self.paths[event.path]
        link = path.link
        match event.change:
            case PathChange.DOWN:
                link.set_up(False)
            case PathChange.FORWARD_DOWN:
                link.forward.is_up = False
                link.forward.clear()
            case PathChange.UP:
                link.set_up(True)
            case PathChange.SLOW:
                self._add_delay(path, event.delay_us)
            case PathChange.USUAL:
                self._add_delay(path, 0)
            case PathChange.DIE:
                self._die_when_possible(event.path)

    def _add_delay(self, path: Path, delay_us: int) -> None:
        plan = path.plan
        for wire, usual in ((path.link.forward, plan.forward), (path.link.backward, plan.backward)):
            wire.settings = replace(usual, delay_us=usual.delay_us + delay_us)

    def _die_when_possible(self, number: int) -> None:
        """Path 0 only once every connection has something else to live on; else the data could not arrive."""
        if number == 0 and not self._can_do_without_path_0():
            later_us = self.simulator.now_us + DEATH_POLL_US
            if later_us < 60_000_000:
                self.simulator.call_at(later_us, partial(self._die_when_possible, number))
            return
        self._dead_addresses = _addresses_of(number)
        self.paths[number].link.set_up(False)

    def _can_do_without_path_0(self) -> bool:
        if any(plan.at_us >= self.simulator.now_us for plan in self.scenario.conversations):
            return False
        return self._can_do_without({address_of(0, on_client=True, is_ipv6=each) for each in (False, True)})

    def _can_do_without(self, addresses: set[bytes]) -> bool:
        return all(
            _has_usable_subflow_without(connection, addresses)
            for _, stack in self.stacks
            for connection in stack.connections()
        )

    def _may_withdraw(self, address: bytes) -> bool:
        """After a path has died for good, nobody withdraws what a connection lives on."""
        return not self._dead_addresses or self._can_do_without(self._dead_addresses | {address})

    def _change_addresses(self, event: AddressEvent) -> None:
        stack = self.client if event.on_client else self.server
        manager = stack.path_manager
        address = address_of(event.path, on_client=event.on_client, is_ipv6=event.is_ipv6)
        known = [endpoint.identifier for endpoint in manager.endpoints() if endpoint.address == address]
        try:
            match event.change:
                case AddressChange.ADD:
                    manager.add_endpoint(address, flags=event.flags)
                case AddressChange.DELETE if known and self._may_withdraw(address):
                    manager.delete_endpoint(known[0])
                case AddressChange.PRIORITY if known:
                    manager.set_flags(known[0], event.flags & {"backup"})
                case AddressChange.LIMITS:
                    manager.set_limits(*event.limits)
                case _:
                    pass
        except ConfigurationError:
            # The address has an endpoint already: an administrator is told so.
            return


def _addresses_of(path: int) -> set[bytes]:
    ends = ((on_client, is_ipv6) for on_client in (False, True) for is_ipv6 in (False, True))
    return {address_of(path, on_client=on_client, is_ipv6=is_ipv6) for on_client, is_ipv6 in ends}


def _has_usable_subflow_without(connection: Connection, addresses: set[bytes]) -> bool:
    return any(
        subflow.is_usable and subflow.local not in addresses and subflow.remote not in addresses
        for subflow in connection.subflows
    )
