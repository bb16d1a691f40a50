"""Paths managed from outside, on every kind of host: the same commands, the same events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import HostError
from testbed.host.client import HostClient
from testbed.host.launcher import AgentLauncher
from testbed.host.path_control import Announce, CreateSubflow, DestroySubflow, Remove, SetSubflowFlags
from tests.host.labs import Pair, assert_intact, configuration, linked_namespaces, start_transfer

pytestmark = [pytest.mark.root, pytest.mark.kernel]
MPTCP = ("mptcp", "mptcp")
STACKS = [("userspace", "kernel"), ("kernel", "userspace")]


@pytest.fixture(params=STACKS, ids="-".join)
def pair(request: pytest.FixtureRequest, namespaces: None, tmp_path: Path) -> Iterator[Pair]:
    stacks: tuple[str, str] = request.param
    if not Path("/proc/sys/net/mptcp/pm_type").exists():
        pytest.skip("this kernel has no path manager in user space")
    with linked_namespaces(stacks) as ends, AgentLauncher(tmp_path) as launcher:
        agents = launcher.spawn(
            [
                replace(
                    configuration(tmp_path, host, end, stack),
                    sysctls=(("net.mptcp.pm_type", "1"),),
                )
                for host, end, stack in zip(("client", "server"), ends, stacks, strict=True)
            ]
        )
        clients = [
            HostClient(agent.host, agent.control_socket, stack)
            for agent, stack in zip(agents, stacks, strict=True)
        ]
        with contextlib.closing(clients[0]), contextlib.closing(clients[1]):
            for client in clients:
                client.watch_paths()
            yield Pair(clients[0], clients[1], *ends)


def wait_for_event(host: HostClient, name: str) -> list[dict[str, Any]]:
    """All up to the first of that name, which comes last."""
    seen: list[dict[str, Any]] = []
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        seen += host.path_events()
        if any(event["event"] == name for event in seen):
            return seen
    raise AssertionError(f"{host.name}: no event {name!r} in {seen}")


def named(events: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(event for event in events if event["event"] == name)


def test_a_controller_serves_both_kinds_of_host(pair: Pair) -> None:
    connecting, listening = start_transfer(
        pair, "10.8.0.2", 200_000, 100_000, protocols=MPTCP, hold_open_after=True
    )
    at_client, at_server = (
        wait_for_event(pair.client, "established"),
        wait_for_event(pair.server, "established"),
    )
    created, passive = named(at_client, "created"), named(at_server, "created")
    assert (created["saddr"], created["daddr"], created["family"]) == ("10.8.0.1", "10.8.0.2", "inet")
    assert (created["dport"], created["loc_id"], created["rem_id"]) == (listening.port, 0, 0)
    assert (created["server_side"], passive["server_side"]) == (False, True)
    assert (created["sport"], passive["sport"]) == (passive["dport"], created["dport"])
    assert named(at_server, "listener_created")["sport"] == listening.port

    pair.server.command_paths(Announce(passive["token"], 7, "10.8.1.2"))
    announced = named(wait_for_event(pair.client, "announced"), "announced")
    assert (announced["daddr"], announced["rem_id"]) == ("10.8.1.2", 7)
    assert announced["dport"] == listening.port

    pair.client.command_paths(CreateSubflow(created["token"], 5, "10.8.1.1", "10.8.1.2", listening.port))
    joined = named(wait_for_event(pair.client, "sub_established"), "sub_established")
    accepted = named(wait_for_event(pair.server, "sub_established"), "sub_established")
    assert (joined["saddr"], joined["daddr"], joined["loc_id"]) == ("10.8.1.1", "10.8.1.2", 5)
    assert (joined["backup"], accepted["rem_id"], accepted["loc_id"]) == (False, 5, 7)

    ends = joined["saddr"], joined["sport"], joined["daddr"], joined["dport"]
    pair.client.command_paths(SetSubflowFlags(created["token"], *ends, backup=True))
    changed = named(wait_for_event(pair.server, "sub_priority"), "sub_priority")
    assert (changed["rem_id"], changed["backup"]) == (5, True)

    pair.client.command_paths(DestroySubflow(created["token"], *ends))
    closed = named(wait_for_event(pair.server, "sub_closed"), "sub_closed")
    assert (closed["rem_id"], closed["daddr"]) == (5, "10.8.1.1")
    pair.server.command_paths(Remove(passive["token"], 7))
    assert named(wait_for_event(pair.client, "removed"), "removed")["rem_id"] == 7

    connecting.finish()
    listening.finish()
    (client,), (server,) = connecting.result(), listening.result()
    assert_intact(client, server, 200_000, 100_000)
    assert named(wait_for_event(pair.client, "closed"), "closed")["token"] == created["token"]
    # The listener closes before or after the connection.
    last = wait_for_event(pair.server, "closed")
    if not any(event["event"] == "listener_closed" for event in last):
        last += wait_for_event(pair.server, "listener_closed")
    assert named(last, "closed")["token"] == passive["token"]
    assert named(last, "listener_closed")["sport"] == listening.port


@pytest.mark.parametrize("host", ["client", "server"])
def test_refusals_have_the_same_names(pair: Pair, host: str) -> None:
    client: HostClient = getattr(pair, host)
    with pytest.raises(HostError, match="identifier: expected 0 to 255, got 256"):
        client.command_paths(Remove(1, 256))
    with pytest.raises(HostError, match=r"E(SRCH|INVAL)"):
        client.command_paths(Remove(1, 1))
