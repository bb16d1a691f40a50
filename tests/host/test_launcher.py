"""Agents start fast, say why when they cannot, and end when they should."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from testbed.errors import HostError
from testbed.host.client import HostClient
from testbed.host.launcher import AgentLauncher, SpawnedAgent
from tests.device.namespaces import namespace
from tests.host.labs import configuration

pytestmark = pytest.mark.root

_TIMEOUT_S = 10.0


@pytest.fixture(scope="module")
def one_namespace(namespaces: None) -> Iterator[str]:
    with namespace() as name:
        yield name


@contextlib.contextmanager
def watching(pid: int) -> Iterator[int]:
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def assert_ends(descriptor: int) -> None:
    readable, _, _ = select.select([descriptor], [], [], _TIMEOUT_S)
    assert readable, "the process has not ended"


def test_agents_answer_and_end_with_the_launcher(one_namespace: str, tmp_path: Path) -> None:
    with AgentLauncher(tmp_path) as launcher:
        agents = launcher.spawn(
            [configuration(tmp_path, host, one_namespace, "tcp") for host in ("client", "server")]
        )
        assert [agent.host for agent in agents] == ["client", "server"]
        for agent in agents:
            client = HostClient(agent.host, agent.control_socket, "tcp")
            client.ping()
            client.close()
            assert agent.control_socket.stat().st_mode & 0o777 == 0o600
        with watching(agents[0].pid) as first, watching(agents[1].pid) as second:
            launcher.close()
            assert_ends(first)
            assert_ends(second)
    assert not agents[0].control_socket.exists()


def test_start_and_spawn_are_fast(one_namespace: str, tmp_path: Path) -> None:
    started = time.monotonic()
    with AgentLauncher(tmp_path) as launcher:
        launcher.spawn([configuration(tmp_path, "first", one_namespace, "tcp")])
        warmed_up = time.monotonic()
        launcher.spawn([configuration(tmp_path, f"h{number}", one_namespace, "tcp") for number in range(20)])
        finished = time.monotonic()
    # Generous: other tests may run at the same time. What a quiet machine needs is a tenth of it.
    assert warmed_up - started < 2
    assert finished - warmed_up < 2


def test_an_idle_agent_is_small(one_namespace: str, tmp_path: Path) -> None:
    with AgentLauncher(tmp_path) as launcher:
        (agent,) = launcher.spawn([configuration(tmp_path, "client", one_namespace, "tcp")])
        assert resident_bytes(agent.pid) < 40 << 20


def resident_bytes(pid: int) -> int:
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return int(fields["VmRSS"].split()[0]) * 1024


def test_a_failed_start_says_why_and_leaves_nothing(one_namespace: str, tmp_path: Path) -> None:
    good = configuration(tmp_path, "client", one_namespace, "tcp")
    bad = replace(configuration(tmp_path, "server", one_namespace, "tcp"), namespace_path="/run/netns/none")
    with AgentLauncher(tmp_path) as launcher:
        with pytest.raises(HostError, match="server: its agent did not start") as caught:
            launcher.spawn([good, bad])
        assert "namespace /run/netns/none: No such file or directory" in str(caught.value)
        # The launcher is none the worse for it; the good agent makes way for its successor.
        launcher.spawn([replace(good, host="other", control_socket=str(tmp_path / "other.sock"))])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stack": "quantum"}, "unknown stack 'quantum'"),
        ({"control_socket": "/nonexistent/a.sock"}, "control socket /nonexistent/a.sock"),
        ({"sysctls": (("net.ipv4.no_such_thing", "1"),)}, "sysctl net.ipv4.no_such_thing = 1: No such file"),
        ({"sysctls": (("net.ipv4.tcp_sack", "much"),)}, "sysctl net.ipv4.tcp_sack = much: Invalid argument"),
        ({"sysctls": (("net..ipv4", "1"),)}, "sysctl 'net..ipv4': no such name"),
    ],
)
def test_a_bad_configuration_is_named(
    one_namespace: str, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    bad = configuration(tmp_path, "client", one_namespace, "tcp")
    with AgentLauncher(tmp_path) as launcher, pytest.raises(HostError, match=message):
        launcher.spawn([type(bad)(**(asdict(bad) | change))])


def test_two_agents_for_one_host_are_refused(one_namespace: str, tmp_path: Path) -> None:
    wanted = configuration(tmp_path, "client", one_namespace, "tcp")
    with AgentLauncher(tmp_path) as launcher, pytest.raises(HostError, match="two agents for one host"):
        launcher.spawn([wanted, wanted])


def test_a_launcher_that_was_killed_says_so(one_namespace: str, tmp_path: Path) -> None:
    with AgentLauncher(tmp_path) as launcher:
        (agent,) = launcher.spawn([configuration(tmp_path, "client", one_namespace, "tcp")])
        with watching(agent.pid) as descriptor:
            os.kill(parent_of(agent.pid), signal.SIGKILL)
            assert_ends(descriptor)
        with pytest.raises(HostError, match="the agent launcher failed"):
            launcher.spawn([configuration(tmp_path, "server", one_namespace, "tcp")])


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


ORCHESTRATOR = """
import json, sys
from pathlib import Path
from testbed.host.launcher import AgentLauncher
from testbed.host.protocol import AgentConfiguration

configuration = AgentConfiguration(**json.loads(sys.argv[1]))
launcher = AgentLauncher(Path(sys.argv[2]), persistent=sys.argv[3] == "persistent")
(agent,) = launcher.spawn([configuration])
print(agent.pid, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def orchestrator(directory: Path, namespace_name: str, kind: str) -> Iterator[tuple[int, SpawnedAgent]]:
    """A process that has spawned one agent and is killed with SIGKILL at the end of the block."""
    wanted = configuration(directory, "client", namespace_name, "tcp")
    arguments = [sys.executable, "-c", ORCHESTRATOR, json.dumps(asdict(wanted)), str(directory), kind]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            pid = int(process.stdout.readline())
            yield process.pid, SpawnedAgent("client", pid, Path(wanted.control_socket))
        finally:
            process.kill()


def test_agents_die_with_an_orchestrator_that_is_killed(one_namespace: str, tmp_path: Path) -> None:
    with (
        orchestrator(tmp_path, one_namespace, "ordinary") as (pid, agent),
        watching(agent.pid) as agent_descriptor,
        watching(parent_of(agent.pid)) as launcher_descriptor,
    ):
        HostClient("client", agent.control_socket, "tcp").ping()
        os.kill(pid, signal.SIGKILL)
        assert_ends(agent_descriptor)
        assert_ends(launcher_descriptor)


def test_persistent_agents_outlive_their_orchestrator(one_namespace: str, tmp_path: Path) -> None:
    with orchestrator(tmp_path, one_namespace, "persistent") as (pid, agent):
        with watching(parent_of(agent.pid)) as launcher_descriptor:
            os.kill(pid, signal.SIGKILL)
            assert_ends(launcher_descriptor)
        client = HostClient("client", agent.control_socket, "tcp")
        with watching(agent.pid) as agent_descriptor:
            client.ping()
            client.shutdown()
            assert_ends(agent_descriptor)
        assert not agent.control_socket.exists()
        with pytest.raises(HostError, match="client: its agent is gone"):
            client.ping()
